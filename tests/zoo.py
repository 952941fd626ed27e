"""A stand-in of lazyslide-models 0.1: its registry and how its models are asked, without weights."""

from __future__ import annotations

import sys
from enum import Enum
from types import ModuleType

import numpy as np
import torch

KNOWN = {
    "license": "MIT",
    "license_url": None,
    "commercial": True,
    "is_gated": False,
    "encode_dim": None,
    "hf_url": None,
    "github_url": None,
    "paper_url": None,
    "description": "A stand-in.",
    "input_constraint": None,
    "vision_encoder": None,
}


class Task(Enum):
    vision = "vision"
    multimodal = "multimodal"
    tile_prediction = "tile_prediction"
    feature_prediction = "feature_prediction"


def listed(task: Task | list[Task], **known):
    """As `lazyslide_models.register` does: what is known of a model becomes attributes of its class."""

    def decorate(cls):
        for name, value in {**KNOWN, **known, "task": task}.items():
            setattr(cls, name, value)
        return cls

    return decorate


class Model:
    """What all of them have."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, self.width)

    def to(self, device):
        self.model.to(device)
        return self

    def get_transform(self):
        return lambda image: torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255

    @torch.inference_mode()
    def encode_image(self, image):
        return self.model(image.mean(dim=(2, 3)) + image.std(dim=(2, 3)))


@listed(Task.vision, encode_dim=6)
class Free(Model):
    width = 6


@listed([Task.multimodal], encode_dim=5, license=["MIT", "CC-BY-NC-ND-4.0"], commercial=False, is_gated=True)
class Bound(Model):
    width = 5

    def get_transform(self):
        return None

    def encode_image(self, image):
        return super().encode_image(image.float()).numpy()


@listed(Task.vision, encode_dim=4, is_gated=True, hf_url="https://huggingface.co/a/b")
class Away(Model):
    def __init__(self) -> None:
        raise OSError("offline\nand more")


@listed(Task.vision, encode_dim=7)
class Wrong(Model):
    width = 6


@listed(Task.vision)
class Unsaid(Model):
    width = 6


MODELS = {"free": Free, "bound": Bound, "away": Away, "wrong": Wrong, "unsaid": Unsaid}


def install(monkeypatch, models: dict[str, type]) -> None:
    """Put the stand-in where the library would be."""
    module = ModuleType("lazyslide_models")
    module.MODEL_REGISTRY = models
    monkeypatch.setitem(sys.modules, "lazyslide_models", module)
    monkeypatch.setattr("sq_imputer.encoders._zoo.version", lambda package: "0.1.0")


def pixels(n: int = 3, size: int = 224) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8))


# Models that come fitted --------------------------------------------------------------------------


@listed(Task.vision, encode_dim=768, license="GPL-3.0", commercial=False)
class CTransPath(Model):
    width = 768


@listed(Task.vision, encode_dim=1536, license="Apache 2.0 with conditions", commercial=False, is_gated=True)
class GigaPath(Model):
    width = 1536


@listed(Task.feature_prediction, license="Apache-2.0")
class Path2Space(Model):
    features_model_name = "ctranspath"

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model, self.genes = torch.nn.Linear(768, 3), ("NUC1", "GLD1", "ELSEWHERE")

    @torch.inference_mode()
    def predict(self, features):
        assert features.shape[1] == 768
        return dict(zip(self.genes, self.model(features).cpu().numpy().T, strict=True))


@listed(Task.feature_prediction, license="Unlicensed", commercial=False)
class STPath(Model):
    features_model_name = "gigapath"
    needs_coords = whole_slide = True
    max_spots = 8000

    def __init__(self, organ_type=None, tech_type=None, genes=None) -> None:
        torch.manual_seed(2)
        self.model, self.organ = torch.nn.Linear(1536, 2), organ_type
        self.gene_names = tuple(genes or ("NUC1", "GLD1"))
        if organ_type == "Moon":
            raise ValueError("Unknown organ 'Moon'.")

    @torch.inference_mode()
    def predict(self, features, coords):
        if len(features) > self.max_spots:
            raise ValueError(f"{len(features)} tiles exceeds max_spots={self.max_spots}.")
        said = self.model(torch.as_tensor(features)).numpy() + coords.mean(axis=0)[0]
        return {gene: said[:, k] for k, gene in enumerate(self.gene_names)}


@listed(Task.tile_prediction, license=["PolyForm-Noncommercial-1.0.0", "CC-BY-NC-SA-4.0"], commercial=False)
class DeepSpotM(Model):
    width = 3

    def __init__(self, source="scgpt") -> None:
        super().__init__()
        self.genes, self.columns, self.source = None, ("NUC1", "GLD1", "STR1"), source

    @torch.inference_mode()
    def predict(self, image):
        said = self.encode_image(image).cpu().numpy()
        which = [("NUC1", "GLD1", "STR1").index(gene) for gene in self.columns]
        return dict(zip(self.columns, said[:, which].T, strict=True))


FITTED = {
    "ctranspath": CTransPath,
    "gigapath": GigaPath,
    "path2space": Path2Space,
    "stpath": STPath,
    "deepspotm": DeepSpotM,
}
