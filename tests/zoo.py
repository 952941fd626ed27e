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
