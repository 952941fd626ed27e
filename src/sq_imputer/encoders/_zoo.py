"""Encoders of `lazyslide-models` (MIT) by name, `zoo:<name>`: the one file that knows how that library is asked.

A model there is a class in a registry that says task, license, commercial use, gate and width. An instance downloads
its weights by itself, has `get_transform()`, which is called with images and may be None, and `encode_image()`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._cards import EncoderCard
from sq_imputer.encoders._own import _sha256, resting
from sq_imputer.errors import BadInput, MissingKey, listed

PREFIX = "zoo:"
PACKAGE = "lazyslide-models"
TILES = ("vision", "multimodal")  # tasks of models that describe one image
SIZE_PX = 224  # of crops, where a model asks for no other
MPP = 0.5  # the library says none


def registry() -> Mapping[str, type]:
    """All models of the library, of any task.

    Raises
    ------
    BadInput
        If the library is not installed.
    """
    try:
        from lazyslide_models import MODEL_REGISTRY
    except ImportError as error:
        raise BadInput(
            f"'zoo:' models are those of {PACKAGE}, which did not import ({error}). Run: pip install "
            "\"sq-imputer[zoo]\". encoder='texture' needs neither."
        ) from error
    return MODEL_REGISTRY


def tasks(model: type) -> set[str]:
    """What a model of the registry is for."""
    found = model.task if isinstance(model.task, list | tuple) else [model.task]
    return {getattr(one, "value", one) for one in found}


def known() -> list[str]:
    """Encoders of single images whose width the library says, as `zoo:<name>`."""
    found = registry().items()
    return sorted(f"{PREFIX}{name}" for name, model in found if tasks(model) & set(TILES) and model.encode_dim)


def model_of(name: str, wanted: tuple[str, ...] = TILES) -> type:
    """The class in the registry of `zoo:<name>`.

    Raises
    ------
    MissingKey
        If there is none, or it is for another task.
    """
    models, key = registry(), name.removeprefix(PREFIX)
    fitting = sorted(k for k, model in models.items() if tasks(model) & set(wanted))
    if key not in models:
        raise MissingKey(f"no model '{name}' in {PACKAGE} {version(PACKAGE)}; there are {listed(fitting, 80)}.")
    if key not in fitting:
        raise MissingKey(
            f"'{name}' is for {listed(sorted(tasks(models[key])))}, not {listed(wanted)}; there are "
            f"{listed(fitting, 80)}."
        )
    return models[key]


def terms(model: type) -> dict[str, Any]:
    """License of a model, whether it allows commercial use (not known: no), and whether the download is gated."""
    said = model.license if isinstance(model.license, list | tuple) else [model.license or "not stated"]
    return {"license": " and ".join(said), "commercial": bool(model.commercial), "gated": bool(model.is_gated)}


def warn_of_terms(name: str, license: str, commercial: bool) -> None:
    """Say, at every use, that a model must not be used commercially."""
    if not commercial:
        said = f"'{name}' is under '{license}', which {PACKAGE} lists as not for commercial use."
        warnings.warn(said, UserWarning, stacklevel=3)


def zoo_card(name: str) -> EncoderCard:
    """The card of `zoo:<name>`, from what the library knows of the model; its weights are not touched.

    Raises
    ------
    BadInput
        If the library is not installed, or does not say how wide the features are.
    MissingKey
        If it has no such encoder.
    """
    model = model_of(name)
    if not model.encode_dim:
        raise BadInput(
            f"{PACKAGE} {version(PACKAGE)} does not say how wide the features of '{name}' are. Pass the model itself: "
            "encoders.from_callable(model.encode_image, name, transform=model.get_transform())."
        )
    asked = getattr(model.input_constraint, "min", None)
    return EncoderCard(
        name=name,
        dim=int(model.encode_dim),
        size_px=asked or SIZE_PX,
        mpp=MPP,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        **terms(model),
        source=model.hf_url or model.github_url or PACKAGE,
        paper=model.paper_url or "",
        note=f"{model.description or ''} By {PACKAGE}, which downloads, loads and normalizes; the library says no "
        f"resolution: {MPP} µm per pixel is this package's choice.".strip(),
    )


def made(name: str, model: type, **arguments) -> Any:
    """An instance, with its weights.

    Raises
    ------
    BadInput
        If the weights, or what the model needs beside the library, cannot be had.
    """
    try:
        return model(**arguments)
    except Exception as error:
        known = terms(model)
        gate = f" Accept the terms at {model.hf_url}, log in (`hf auth login`)." if known["gated"] else ""
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"'{name}' ({known['license']}) could not be had from {PACKAGE} ({type(error).__name__}: {reason}).{gate} "
            "Its weights are downloaded when it is first used, so be online with HF_HUB_OFFLINE unset; or use an "
            "encoder that needs none, 'texture'."
        ) from error


class Zoo(Encoder):
    """A model of the library; it moves to the device of the crops that it is given."""

    def __init__(self, card: EncoderCard, model: Any) -> None:
        super().__init__(card, provenance(card.name, model) | {"license": card.license, "commercial": card.commercial})
        if isinstance(getattr(model, "model", None), nn.Module):
            resting(model.model)
        self.model, self.transform = model, batched(model.get_transform())

    def encode(self, crops: Tensor) -> Tensor:
        """What the model says of the crops, as its own transform makes them."""
        self.model.to(crops.device)
        seen = crops if self.transform is None else self.transform(crops)
        return torch.as_tensor(self.model.encode_image(seen), device=crops.device)


def provenance(name: str, model: Any) -> dict[str, Any]:
    """Version of the library, and hash of the weights, where these are of a module."""
    known = {"name": name, "library": f"{PACKAGE} {version(PACKAGE)}"}
    network = getattr(model, "model", None)
    return known | ({"sha256": _sha256(network)} if isinstance(network, nn.Module) else {})


def batched(transform: Callable | None) -> Callable[[Tensor], Tensor] | None:
    """A transform of uint8 crops `(B, 3, S, S)`.

    Those of torchvision's v2 take whole batches on any device. Others are called as the library itself does: with one
    `(S, S, 3)` array at a time.
    """
    if transform is None or type(transform).__module__.startswith("torchvision.transforms.v2"):
        return transform

    def one_by_one(crops: Tensor) -> Tensor:
        images = crops.permute(0, 2, 3, 1).cpu().numpy()
        return torch.stack([torch.as_tensor(transform(image)) for image in images]).to(crops.device)

    return one_by_one


def build(card: EncoderCard, weights=None, revision=None) -> Zoo:
    """The encoder of a card, whose weights the library downloads.

    Raises
    ------
    BadInput
        If weights or a revision are named, or the weights cannot be had.
    """
    if weights is not None or revision is not None:
        raise BadInput(f"encoder '{card.name}' has its weights from {PACKAGE}; leave out weights= and revision=.")
    warn_of_terms(card.name, card.license, card.commercial)
    return Zoo(card, made(card.name, model_of(card.name)))
