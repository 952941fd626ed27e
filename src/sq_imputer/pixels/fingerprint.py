"""The identity of an image's pixels, from a few of them: features of other pixels of one name are found by it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import dask
import dask.array as da
import numpy as np

K, V = TypeVar("K", bound=Hashable), TypeVar("V")

SIDE = 64  # pixels along a window
GRID = 4  # windows along an axis
WHOLE = 2**21  # pixels of a coarsest level that is read as a whole, in which a change anywhere in the image shows


def fingerprint(levels: Sequence[da.Array], channels: Sequence[int]) -> str:
    """Hash of some pixels of the finest level, spread over the image, and of the coarsest, all of it if it is small.

    It does not depend on chunks or on how the image is stored. What cannot be read counts as such: whoever needs those
    pixels will be told.

    Parameters
    ----------
    levels
        `(c, y, x)` arrays, finest first.
    channels
        Positions along `c` of what is seen.
    """
    digest = hashlib.sha256()
    for level in dict.fromkeys((0, len(levels) - 1)):
        array, coarsest = levels[level], level == len(levels) - 1
        digest.update(f"{level} {array.shape} {array.dtype}".encode())
        boxes = [(slice(None), slice(None))] if coarsest and array[0].size <= WHOLE else _windows(array.shape[1:])
        for pixels in _read([array[(list(channels), *box)] for box in boxes]):
            digest.update(b"unreadable" if pixels is None else np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()[:16]


def _windows(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Windows at the middles of the cells of a grid over the image."""
    starts = [[int((k + 0.5) / GRID * max(n - SIDE, 0)) for k in range(GRID)] for n in shape]
    return [(slice(y, y + SIDE), slice(x, x + SIDE)) for y in starts[0] for x in starts[1]]


def _read(parts: list[da.Array]) -> list[np.ndarray | None]:
    try:
        return list(dask.compute(*parts, scheduler="synchronous"))  # a chunk of several windows is read once
    except Exception:  # noqa: BLE001 of any kind: codecs and stores have no base of their own
        return [_read([part])[0] for part in parts] if len(parts) > 1 else [None]


def remembered(found: dict[K, V], most: int, key: K, find: Callable[[], V]) -> V:
    """What was found of an image under a key that tells it from others; it is looked for once, of so many at most."""
    if key not in found:
        if len(found) >= most:
            found.clear()
        found[key] = find()
    return found[key]
