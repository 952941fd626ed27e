"""Gene expression from H&E, on SpatialData objects."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sq_imputer.contract import Batch, CropSpec, Needs, Prediction, Source
from sq_imputer.errors import BadInput, MissingKey, OutOfMemory, SqImputerError, StoreError
from sq_imputer.registry import ModelCard, cite, get_model, list_models, register_model

if TYPE_CHECKING:
    from sq_imputer import bench, datasets, io, pl, pp, tl
    from sq_imputer.models._base import Predictor
    from sq_imputer.models._folder import load
    from sq_imputer.train import Plan

# Where the lazy names live: importing sq_imputer must not import torch, squidpy or spatialdata.
_NAMESPACES = ("bench", "datasets", "io", "pl", "pp", "tl")
_LAZY = {"Predictor": "sq_imputer.models._base", "load": "sq_imputer.models._folder", "Plan": "sq_imputer.train"}

__all__ = [
    "BadInput",
    "Batch",
    "CropSpec",
    "MissingKey",
    "ModelCard",
    "Needs",
    "OutOfMemory",
    "Plan",
    "Prediction",
    "Predictor",
    "Source",
    "SqImputerError",
    "StoreError",
    "bench",
    "cite",
    "datasets",
    "get_model",
    "io",
    "list_models",
    "load",
    "pl",
    "pp",
    "register_model",
    "tl",
]


def __getattr__(name: str):
    if name in _NAMESPACES:
        return import_module(f"sq_imputer.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'sq_imputer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
