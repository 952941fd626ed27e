"""Gene expression from H&E, on SpatialData objects."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from sq_imputer.contract import Batch, CropSpec, Needs, Prediction, Source, Target, Views
from sq_imputer.errors import BadInput, MissingKey, OutOfMemory, SqImputerError, StoreError
from sq_imputer.predictor.registry import ModelCard, cite, get_model, list_models, register_model

if TYPE_CHECKING:
    from sq_imputer import bench, datasets, encoders, explain, genes, io, pl, pp, report, scores, testing, tl, widget
    from sq_imputer.genes.knowledge import GeneKnowledge
    from sq_imputer.genes.windows import GeneWindows
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.folder import load
    from sq_imputer.predictor.train import Plan
    from sq_imputer.section.slide import Slide

# Where the lazy names live: importing sq_imputer must not import torch, squidpy or spatialdata.
_NAMESPACES = (
    "bench",
    "datasets",
    "encoders",
    "explain",
    "genes",
    "io",
    "pl",
    "pp",
    "report",
    "scores",
    "testing",
    "tl",
    "widget",
)
# Rooms and their modules that the API page names a class of: `sqi.section.keys.SlideKeys`.
_ROOMS = {
    "device": (),
    "pixels": ("crops", "pyramid"),
    "places": (),
    "runs": ("alignment",),
    "section": ("checks", "keys", "overview", "pixel_size"),
    "store": ("journal",),
}
_LAZY = {
    "GeneKnowledge": "sq_imputer.genes.knowledge",
    "GeneWindows": "sq_imputer.genes.windows",
    "Plan": "sq_imputer.predictor.train",
    "Predictor": "sq_imputer.predictor.base",
    "Slide": "sq_imputer.section.slide",
    "load": "sq_imputer.predictor.folder",
}

__all__ = [
    "BadInput",
    "Batch",
    "CropSpec",
    "GeneKnowledge",
    "GeneWindows",
    "MissingKey",
    "ModelCard",
    "Needs",
    "OutOfMemory",
    "Plan",
    "Prediction",
    "Predictor",
    "Slide",
    "Source",
    "SqImputerError",
    "StoreError",
    "Target",
    "Views",
    "bench",
    "cite",
    "datasets",
    "encoders",
    "explain",
    "genes",
    "get_model",
    "io",
    "list_models",
    "load",
    "pl",
    "pp",
    "register_model",
    "report",
    "scores",
    "testing",
    "tl",
    "widget",
]


def __getattr__(name: str):
    if name == "__version__":  # of the installed package
        return version("sq-imputer")
    if name in _NAMESPACES:
        return import_module(f"sq_imputer.{name}")
    if name in _ROOMS:
        for module in _ROOMS[name]:
            import_module(f"sq_imputer.{name}.{module}")
        return import_module(f"sq_imputer.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sq_imputer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
