"""One crop from the window of whole pixels around it: moved, resized or turned."""

from __future__ import annotations

from math import ceil

import numpy as np
from PIL import Image

PARTS = 256  # of a pixel that a crop is moved by; 255 of 255 levels times this still is 16 bits


def shift(window: np.ndarray, corner: np.ndarray, out: np.ndarray) -> None:
    """Crop at a fraction of a pixel inside a `(3, h, w)` window, at its own resolution: bilinear.

    The pixels of :func:`resize` to one gray level (two at the sharpest of edges), at a sixth of its time, and those of
    the window where the corner lies on whole pixels.
    """
    size = out.shape[-1]
    (x, right), (y, down) = (divmod(round(value * PARTS), PARTS) for value in corner.tolist())
    for plane, into in zip(window, out, strict=True):
        seen = plane[y : y + size + (down > 0), x : x + size + (right > 0)]
        seen = _between(seen[:, :-1], seen[:, 1:], right) if right else seen
        into[...] = _between(seen[:-1], seen[1:], down) if down else seen


def _between(first: np.ndarray, second: np.ndarray, part: int) -> np.ndarray:
    """uint16 values that lie `part` of 256 parts of the way from the first to the second."""
    mean = np.multiply(first, PARTS - part, dtype=np.uint16)
    mean += np.multiply(second, part, dtype=np.uint16)
    mean += np.uint16(PARTS // 2)
    mean //= np.uint16(PARTS)
    return mean


def resize(window: np.ndarray, corner: np.ndarray, box: tuple[float, float], out: np.ndarray) -> None:
    """Antialiased (triangle filter) resampling of a box inside a `(3, h, w)` window, to a fraction of a pixel.

    Pillow: it takes fractions of a pixel, computes in integers (the same on every machine) and releases the GIL.
    """
    x, y = corner.tolist()
    size = out.shape[:0:-1]
    for plane, into in zip(window, out, strict=True):
        into[...] = Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR, (x, y, x + box[0], y + box[1]))


def turn(window: np.ndarray, center: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """Resampling of a turned square inside a `(3, h, w)` window: bilinear samples, at least one per pixel, averaged."""
    size = out.shape[-1]
    samples = max(1, ceil(np.sqrt(abs(np.linalg.det(matrix))) - 1e-6))  # per side of a pixel of the crop
    step = matrix / samples
    x, y = center - matrix.sum(axis=1) * size / 2
    affine = (step[0, 0], step[0, 1], x, step[1, 0], step[1, 1], y)
    fine = (size * samples, size * samples)
    for plane, into in zip(window, out, strict=True):
        turned = Image.fromarray(plane).transform(fine, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        into[...] = turned.reduce(samples)
