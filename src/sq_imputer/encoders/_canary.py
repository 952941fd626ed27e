"""The canary: one small picture that every encoder is shown. What it gives tells encoder, weights and preprocessing.

The picture (224 x 224 pixels; red, green, blue) is toy tissue in hematoxylin and eosin, and orange ink beside it:
without that, red and blue would be nearly equal on average. What an encoder says of it is kept beside all features that
it makes, and compared wherever two of them would stand side by side: other weights under one name, another
normalization and swapped channels are found, which no name and no hash of a file tells. Devices, batches and half
precision move features as well, by less than :data:`TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sq_imputer.encoders._base import Encoder

TOLERANCE = 0.01  # of the norm of the features: bfloat16 moves those of a vision transformer by about .004


@cache
def picture(size_px: int) -> np.ndarray:
    """`(3, S, S)` uint8: the picture, by its nearest pixels where `S` is not its own size."""
    with np.load(Path(__file__).with_name("canary.npz")) as file:
        whole = file["picture"]
    at = (np.arange(size_px) * whole.shape[1]) // size_px
    return whole[:, at][:, :, at]


def sung(encoder: Encoder) -> list[float]:
    """What an encoder gives of the picture, in six digits."""
    import torch

    crops = torch.from_numpy(picture(encoder.card.size_px)[None])
    return [float(f"{value:.6g}") for value in encoder(crops)[0].tolist()]


def alike(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Whether two encoders said the same of the picture, up to device and precision; what is not known fits all."""
    one, other = _numbers(one), _numbers(other)
    if one is None or other is None:
        return True
    largest = max(np.linalg.norm(one), np.linalg.norm(other))
    return one.shape == other.shape and bool(np.linalg.norm(one - other) <= TOLERANCE * largest)


def in_few(canary: Sequence[float] | None) -> list[float]:
    """Direction and size of what an encoder gave, in numbers to be compared by their difference; none if not known."""
    numbers = _numbers(canary)
    if numbers is None or not (norm := float(np.linalg.norm(numbers))):
        return []
    return [*(numbers / norm).tolist(), float(np.log(norm))]


def told(canary: Sequence[float] | None) -> str:
    """The first numbers, for a message."""
    numbers = _numbers(canary)
    return "nothing is known" if numbers is None else ", ".join(f"{value:.3g}" for value in numbers[:3]) + ", ..."


def _numbers(values: Sequence[float] | None) -> np.ndarray | None:
    """As an array; None for what is no row of numbers, as a record that was read from any file may be."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.ndim == 1 and len(numbers) and np.isfinite(numbers).all() else None
