"""Blocks of crops around rows: a row is whole once all of its crops have come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec

if TYPE_CHECKING:
    from sq_imputer.pixels.crops import Crops
    from sq_imputer.section.frame import Frame


def block_centers(frame: Frame, centers_px: np.ndarray, spec: CropSpec, k: int) -> np.ndarray:
    """Centers `(n * k * k, 2)` of the k × k block of adjoining crops around every row, row after row."""
    steps = (np.arange(k) - k // 2) * spec.extent_um / frame.pixel.mpp
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) @ frame.axes.T
    return (centers_px[:, None] + offsets).reshape(-1, 2)


def block_crops(frame: Frame, centers_px: np.ndarray, spec: CropSpec, k: int, names=None) -> Crops:
    """The crops of these blocks. Lazy."""
    names = None if names is None else np.repeat(names, k * k)
    return frame.crops(block_centers(frame, centers_px, spec, k), spec, names=names)


def whole_blocks(
    crops: Crops, k: int, batch_size: int, *, rows: np.ndarray, generator: np.random.Generator | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of rows `(B,)` and their blocks `(B, k * k, 3, S, S)`, in one pass over the crops.

    Rows come in the order in which they become whole, so no chunk is read again for the next batch.
    """
    each = k * k
    wanted = (rows[:, None] * each + np.arange(each)).ravel()
    waiting: dict[int, list] = {}
    ready: list[tuple[int, np.ndarray]] = []
    for index, pixels in crops.batches(batch_size, rows=wanted, generator=generator):
        for number, crop in zip(index.tolist(), pixels, strict=True):
            row, place = divmod(number, each)
            came = waiting.setdefault(row, [None] * each)
            came[place] = crop
            if all(part is not None for part in came):
                ready.append((row, np.stack(waiting.pop(row))))
        while len(ready) >= batch_size:
            yield _stacked(ready[:batch_size])
            del ready[:batch_size]
    if ready:
        yield _stacked(ready)


def _stacked(ready: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row for row, _ in ready]), np.stack([block for _, block in ready])
