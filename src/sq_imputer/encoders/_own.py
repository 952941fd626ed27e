"""Encoders that a user brings: a torch module, or a function of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._canary import picture
from sq_imputer.encoders._cards import EncoderCard
from sq_imputer.errors import BadInput


class Own(Encoder):
    """A module, which moves to the device of the crops, or a function, which is given arrays."""

    def __init__(self, card: EncoderCard, function: Callable[[Any], Any], transform: Callable | None) -> None:
        module = isinstance(function, nn.Module)
        known = {"name": card.name, "sha256": _sha256(function)} if module else {"name": card.name}
        super().__init__(card, known)
        self.function, self.transform = function, transform

    def encode(self, crops: Tensor) -> Tensor:
        """What the function gives of uint8 crops, or of what `transform` makes of them."""
        return _ask(self.function, self.transform, crops)


def called(function: Callable[[Any], Any]) -> str:
    """What a function is called, or the class of a module.

    Raises
    ------
    BadInput
        If that tells it from nothing.
    """
    plain = not isinstance(function, nn.Module)
    name = getattr(function, "__name__", type(function).__name__) if plain else type(function).__name__
    if name in ("<lambda>", "partial"):
        raise BadInput(
            f"an encoder that is a {name} has no name by which a saved model could ask for it. Pass a function that is "
            "defined by name, or name it: from_callable(encoder, 'a_name')."
        )
    return name


def card_of(
    function: Callable[[Any], Any], name: str, size_px: int, mpp: float, transform: Callable | None
) -> EncoderCard:
    """The card of a function; its width is found by one call.

    Raises
    ------
    BadInput
        If it is no function, or does not give one row of numbers for every crop.
    """
    if not callable(function) or isinstance(function, type):
        raise BadInput(f"encoder '{name}' is a {type(function).__name__}; expected a torch module or a function.")
    two = torch.from_numpy(np.stack([picture(size_px)] * 2))
    try:
        with torch.no_grad():
            found = _ask(function, transform, two)
    except Exception as error:
        taken = "a uint8 tensor" if isinstance(function, nn.Module) else "a uint8 array"
        raise BadInput(
            f"encoder '{name}' could not be asked ({type(error).__name__}: {error}). It is given {taken} of shape "
            f"(2, 3, {size_px}, {size_px}), which transform= may change beforehand."
        ) from error
    if found.ndim != 2 or len(found) != 2 or not found.shape[1]:
        raise BadInput(
            f"encoder '{name}' gave features of shape {tuple(found.shape)} for 2 crops; expected (2, D): pool them."
        )
    return EncoderCard(
        name=name,
        dim=found.shape[1],
        size_px=size_px,
        mpp=mpp,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        license="not known: brought by the user",
        commercial=False,
        gated=False,
        note="A function of the user; `commercial` is False where unknown, as here.",
    )


def _ask(function: Callable[[Any], Any], transform: Callable | None, crops: Tensor) -> Tensor:
    if isinstance(function, nn.Module):
        function = resting(function.to(crops.device))
        return function(crops if transform is None else transform(crops))
    pixels = crops.cpu().numpy()
    found = function(pixels if transform is None else transform(pixels))
    return torch.as_tensor(np.asarray(found), dtype=torch.float32, device=crops.device)


def resting(module: nn.Module) -> nn.Module:
    """A module in `eval` mode; exported programs (`torch.export`) refuse to be told, and are as they were exported."""
    try:
        return module.eval()
    except NotImplementedError:
        return module


def _sha256(module: nn.Module) -> str:
    """Hash of all weights and buffers with their names."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
