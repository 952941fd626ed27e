"""Where each level of a pyramid truly lies, found from its pixels: what is recorded is often the ratio of sizes alone.

SpatialData drops the first pixels of a size that is no multiple of the factor and says nothing of it, and a cropped
pyramid keeps blocks that reach past the crop. So a level is compared with the next finer one at a few places: means of
the finer pixels under it, at every shift that comes into question, tell where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np

CHUNK = 512  # pixels along the shorter side of the coarsest level that is written, about
WINDOW = 48  # pixels of the coarser level along a side of a place that is compared
GRID = 6  # places looked at along an axis; compared are those with most texture, one of each quarter of the image
REACH = 24  # finer pixels; most that a level is sought away from where it says
NOISE = 0.1  # variance that rounding to 8 bits leaves
UNLIKE = 0.4  # share of a place's variance; what differs by more is no copy of the finer level


@dataclass(frozen=True)
class Place:
    """Pixel `i` of a level covers `origin + scale * [i, i + 1)` of the finest level; both are (y, x)."""

    scale: tuple[float, float]
    origin: tuple[float, float] = (0.0, 0.0)


def halvings(shape: tuple[int, int]) -> int:
    """How often an image is to be halved until its shorter side is about one chunk of 512 pixels; at least once."""
    return max(1, round(np.log2(min(shape) / CHUNK)))


def settled(shapes: Sequence[tuple[int, int]]) -> bool:
    """Whether the sizes alone say where all levels lie: each half of the one before, or the same along an axis.

    A crop would show: it keeps a block more where it begins in the middle of one. Of other factors it need not.
    """
    pairs = zip(shapes[:-1], shapes[1:], strict=True)
    return all(fine in (coarse, 2 * coarse) for pair in pairs for fine, coarse in zip(*pair, strict=True))


def find(levels: Sequence[da.Array], channels: tuple[int, ...]) -> list[Place | None]:
    """Places of all levels; None for those that do not show where they lie, and for all that are coarser."""
    shapes = [level.shape[1:] for level in levels]
    first = Place((1.0, 1.0))
    if settled(shapes):
        return [Place((shapes[0][0] / high, shapes[0][1] / wide)) for high, wide in shapes]
    found: list[Place | None] = [first]
    for fine, coarse in zip(levels[:-1], levels[1:], strict=True):
        below = found[-1]
        step = None if below is None else between(fine, coarse, channels)
        if step is None:
            return found + [None] * (len(levels) - len(found))
        scale, origin = (np.array(pair) for pair in (below.scale, below.origin))
        placed = scale * step.scale, origin + scale * step.origin
        found.append(Place(*(tuple(pair.tolist()) for pair in placed)))
    return found


def between(fine: da.Array, coarse: da.Array, channels: tuple[int, ...]) -> Place | None:
    """Where a level lies in pixels of the next finer one; None if its pixels do not tell."""
    ratio = np.array(fine.shape[1:]) / coarse.shape[1:]
    whole = np.rint(ratio)
    reach = np.minimum(2 * whole + 2, REACH)
    steps = [whole] if (np.abs(ratio - whole) * coarse.shape[1:] <= reach).all() else []
    steps += [] if (ratio == whole).all() else [ratio]
    shifts = [np.arange(-r, r + 0.25, 0.5 if s < 6 else 1.0) for r, s in zip(reach, whole, strict=True)]
    places = _textured(coarse, channels)
    total = sum(seen.var() for _, seen in places)
    if not total:
        return None
    errors = [_differences(fine, channels, places, step, shifts) for step in steps]
    best = min(range(len(steps)), key=lambda k: errors[k].min())
    at = np.unravel_index(errors[best].argmin(), errors[best].shape)
    least = errors[best][at]
    alike = np.argwhere(errors[best] <= 1.2 * least + NOISE * len(places))
    spread = [np.abs(shift[alike[:, k]] - shift[at[k]]).max() for k, shift in enumerate(shifts)]
    if not least <= UNLIKE * total or (spread > 0.3 * steps[best] + 0.01).any():
        return None
    origin = tuple(float(shift[i]) for shift, i in zip(shifts, at, strict=True))
    return Place(tuple(steps[best].tolist()), origin)


def _textured(level: da.Array, channels: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Corners and pixels of the places where each quarter changes most, along that axis along which it changes less."""
    spans = [np.unique(np.linspace(0, max(n - WINDOW, 0), GRID).astype(int)) for n in level.shape[1:]]
    corners = [np.array([y, x]) for y in spans[0] for x in spans[1]]
    pixels = _read(level, channels, [(corner, corner + WINDOW) for corner in corners])
    middle = (np.array(level.shape[1:]) - WINDOW) / 2
    most: dict[tuple, tuple] = {}
    for corner, gray in zip(corners, pixels, strict=True):
        change = (
            0.0 if gray is None or min(gray.shape) < 2 else min(np.abs(np.diff(gray, axis=k)).mean() for k in (0, 1))
        )
        quarter = tuple(corner > middle)
        if change > most.get(quarter, (0.0,))[0]:
            most[quarter] = (change, corner, gray)
    return [(corner, gray) for _, corner, gray in most.values()]


def _differences(fine, channels, places, step, shifts) -> np.ndarray:
    """`(shifts y, shifts x)` variance of what places differ by from means of the finer pixels, their sum, at each."""
    reach = np.array([shift[-1] for shift in shifts])
    lows = [np.floor(corner * step - reach).astype(int) - 1 for corner, _ in places]
    highs = [np.ceil((corner + seen.shape) * step + reach).astype(int) + 1 for corner, seen in places]
    size = np.array(fine.shape[1:])
    boxes = [(np.clip(low, 0, size - 1), np.clip(high, 1, size)) for low, high in zip(lows, highs, strict=True)]
    grays = _read(fine, channels, boxes)  # at once: a chunk of several places is read once
    found = zip(grays, places, lows, highs, strict=True)
    each = [
        _difference(gray, *place, low, high, size, step, shifts) for gray, place, low, high in found if gray is not None
    ]
    return sum(each, np.zeros([len(shift) for shift in shifts]))


def _difference(gray, corner, seen, low, high, size, step, shifts) -> np.ndarray:
    """The same of one place, of whose finer pixels some may lie beyond the image."""
    before, after = np.maximum(-low, 0), np.maximum(high - size, 0)
    gray = np.pad(gray, list(zip(before, after, strict=True)), mode="edge")
    down, right = (
        _means(corner[k] * step[k] - low[k], step[k], seen.shape[k], shifts[k], gray.shape[k]) for k in (0, 1)
    )
    means = np.einsum("aiw,bjw->abij", down @ gray, right, optimize=True)
    return (means - seen).var(axis=(2, 3))


def _means(start: float, step: float, n: int, shifts: np.ndarray, size: int) -> np.ndarray:
    """`(shifts, n, size)` share of each finer pixel in each coarser one."""
    edges = start + shifts[:, None, None] + step * np.arange(n + 1)[:, None]
    covered = np.clip(edges - np.arange(size), 0, 1)  # of each finer pixel, what lies before an edge
    return np.diff(covered, axis=1) / step


def _read(level: da.Array, channels: tuple[int, ...], boxes) -> list[np.ndarray | None]:
    """Gray values from 0 to 255 in some boxes; None where they cannot be read: who needs those pixels will be told."""
    parts = [level[list(channels), y0:y1, x0:x1] for (y0, x0), (y1, x1) in boxes]
    try:
        arrays = dask.compute(*parts, scheduler="synchronous")
    except Exception:  # noqa: BLE001 of any kind: codecs and stores have no base of their own
        return [_read(level, channels, [box])[0] for box in boxes] if len(boxes) > 1 else [None]
    unit = 255.0 if level.dtype.kind == "f" else 1.0
    grays = [array.mean(axis=0, dtype=np.float64) * unit for array in arrays]
    return [gray if np.isfinite(gray).all() else None for gray in grays]
