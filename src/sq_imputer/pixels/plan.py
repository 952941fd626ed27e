"""Where crops lie in the image and in which order to read them: numpy only, no pixels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.places import APART_UM

if TYPE_CHECKING:
    from sq_imputer.contract import CropSpec
    from sq_imputer.pixels.levels import Place
    from sq_imputer.pixels.pyramid import Pyramid

FAR = 2.0**40  # pixels; beyond any image, well inside int64
RUN_BYTES = 3 << 20  # decoded at a time by one thread
SAME = 1 / 512  # pixels that the side of a crop may differ by to be at the resolution of a level
GROUP_BYTES = 64 << 20  # held at a time where rows are shuffled or handed to dask


@dataclass(frozen=True)
class Windows:
    """The square of whole pixels that each crop is made of, and how it is turned into the crop.

    Parameters
    ----------
    level
        Pyramid level that is read.
    side
        Side of the window, in pixels of that level; the same for all.
    start
        `(n, 2)` first row and column of each window; windows may leave the image.
    sign
        Whether the crop runs along (+1) or against (-1) the image's y and x.
    swap
        Whether the crop's x axis runs along the image's y axis.
    offset
        `(n, 2)` position `(x, y)` inside the window, seen in the crop's axes: the crop's corner if `box` is set, its
        center if `matrix` is. None where the window is the crop.
    box
        Width and height of the crop in pixels of the level, to be resized.
    matrix
        `(2, 2)` step in pixels of the level for one pixel of the crop along x (first column) and y, to be resampled.
    """

    level: int
    side: int
    start: np.ndarray
    sign: tuple[int, int] = (1, 1)
    swap: bool = False
    offset: np.ndarray | None = None
    box: tuple[float, float] | None = None
    matrix: np.ndarray | None = None

    def keep_resolution(self, size: int) -> bool:
        """Whether crops of this size have the resolution of the level, so that pixels are moved, but not resized."""
        return self.box is not None and max(abs(side - size) for side in self.box) <= SAME

    def as_image(self, crop: np.ndarray) -> np.ndarray:
        """View of a `(3, side, side)` crop in the axes of the image, so that image pixels can be pasted into it."""
        down, right = self.sign[::-1] if self.swap else self.sign
        crop = crop[:, ::down, ::right]
        return crop.transpose(0, 2, 1) if self.swap else crop


def pick_level(pyramid: Pyramid, spec: CropSpec, mpp: float) -> int:
    """The coarsest level that is not coarser than the crop and shows where it lies; the finest if none does."""
    sides = [spec.extent_um / mpp / max(pyramid.scale(level)) for level in range(len(pyramid.levels))]
    wanted = max((level for level, side in enumerate(sides) if round(side) >= spec.size_px), default=0)
    level = next(level for level in range(wanted, -1, -1) if pyramid.place(level) is not None)
    if level < wanted:
        warnings.warn(
            f"level {wanted} of {pyramid.name} does not show where it lies in the finest: level {level} is read "
            "instead, which takes longer. Make the levels anew from a size that is a multiple of their factors.",
            UserWarning,
            stacklevel=2,
        )
    return level


def place(pyramid: Pyramid, centers_px: np.ndarray, spec: CropSpec, mpp: float, axes: np.ndarray) -> Windows:
    """Windows of crops around centers.

    Positions are rounded in the direction of the crop's axes, so that a flipped or turned image with the matching axes
    gives the same pixels.

    Parameters
    ----------
    pyramid
        The image.
    centers_px
        `(n, 2)` centers `(x, y)` in pixels of the finest level.
    spec
        The crop.
    mpp
        µm per pixel of the finest level.
    axes
        `(2, 2)` orthonormal; columns are the crop's x and y directions.
    """
    level = pick_level(pyramid, spec, mpp)
    lies = pyramid.place(level)
    scale, center = np.array(lies.scale), on_level(centers_px, lies)
    side = spec.extent_um / mpp / scale
    straight = right_angled(axes)
    if straight is None:
        return _turned(level, center, side, axes, spec.size_px)
    swap = bool(straight[0, 0] == 0)
    sign = (int(straight[1].sum()), int(straight[0].sum()))
    # half a pixel of a coarser level is many of the finest: there, what does not lie on whole pixels is resampled
    if level == 0 and (np.rint(side) == spec.size_px).all():
        # whole and half pixels are what centers lie on: the edge of rounding is not there, but out of their reach
        first = np.floor(_corner(sign * center, spec.size_px) + 0.5 + APART_UM / mpp / scale + 1 / 1024)
        return Windows(level, spec.size_px, _start(first, sign, spec.size_px), sign, swap)
    margin, window = resampled(side.max(), spec.size_px)
    corner = _corner(sign * center, side)
    first = np.floor(corner) - margin
    inside, box = (corner - first, side) if swap else ((corner - first)[:, ::-1], side[::-1])
    return Windows(level, window, _start(first, sign, window), sign, swap, inside, box=tuple(box.tolist()))


def on_level(centers_px: np.ndarray, lies: Place) -> np.ndarray:
    """Centers `(n, 2)` (x, y) in pixels of the finest level, as (y, x) in pixels of a level that lies there."""
    return np.clip((centers_px[:, ::-1] - lies.origin) / np.array(lies.scale), -FAR, FAR)


def right_angled(axes: np.ndarray) -> np.ndarray | None:
    """Axes that run along those of the image, exactly; None if they are turned."""
    straight = np.rint(axes)
    return straight if np.abs(axes - straight).max() <= 1e-3 else None


def resampled(side: float, size: int) -> tuple[int, int]:
    """Pixels that the antialiasing filter reaches around a square of `side`, resized to `size`; side of its window."""
    margin = ceil(max(side / size, 1)) + 1
    return margin, ceil(side) + 1 + 2 * margin


def _corner(center: np.ndarray, side: np.ndarray | int) -> np.ndarray:
    # multiples of 1/1024 px are exact, so mirrored coordinates give mirrored windows
    return np.rint((center - side / 2) * 1024) / 1024


def _start(first: np.ndarray, sign: tuple[int, int], window: int) -> np.ndarray:
    return np.where(np.array(sign) > 0, first, -first - window).astype(np.int64)


def _turned(level: int, center: np.ndarray, side: np.ndarray, axes: np.ndarray, size_px: int) -> Windows:
    reach = np.abs(axes[::-1]).sum(axis=1) * side / 2  # half the bounding box, (y, x)
    window = 2 * ceil(reach.max()) + 5
    first = np.floor(center) - window // 2
    matrix = axes * side[::-1, None] / size_px
    return Windows(level, window, first.astype(np.int64), offset=(center - first)[:, ::-1], matrix=matrix)


@dataclass(frozen=True)
class Touched:
    """First and last tile `(y, x)` of each row's window, both included; `last` is -1 if the window misses the image."""

    first: np.ndarray
    last: np.ndarray

    @classmethod
    def by(cls, start: np.ndarray, side: int | np.ndarray, edges: tuple[np.ndarray, np.ndarray]) -> Touched:
        """Tiles under windows of one side, or of `(n, 2)` sides, given the edges of the tiles along y and x."""
        ends = np.array([edge[-1] for edge in edges])
        low, high = np.clip(start, 0, ends), np.clip(start + side, 0, ends)
        first, last = (
            np.stack([np.searchsorted(edge, at[:, k], side="right") - 1 for k, edge in enumerate(edges)], axis=1)
            for at in (low, high - 1)
        )
        missed = (low >= high).any(axis=1)
        first[missed], last[missed] = 0, -1
        return cls(first, last)

    def __getitem__(self, rows: np.ndarray) -> Touched:
        return Touched(self.first[rows], self.last[rows])

    def pairs(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Every row and every tile (number in row-major order) that it touches."""
        span = self.last - self.first + 1
        high, wide = span.max(axis=0, initial=0)
        rows, tiles = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for y in range(high):
            for x in range(wide):
                rows.append(np.flatnonzero((y < span[:, 0]) & (x < span[:, 1])))
                tiles.append((self.first[rows[-1], 0] + y) * columns + self.first[rows[-1], 1] + x)
        return np.concatenate(rows), np.concatenate(tiles)


@dataclass(frozen=True)
class Step:
    """Tiles to decode, rows that are then complete, and what becomes of the tiles afterwards.

    Parameters
    ----------
    runs
        Numbers of tiles, in portions for one thread.
    rows
        Positions of the rows to hand out.
    trim
        Numbers of tiles of which only the rows of pixels from some y on are still needed, with that y.
    drop
        Numbers of tiles that are not needed any more.
    """

    runs: list[list[int]]
    rows: np.ndarray
    trim: list[tuple[int, int]]
    drop: list[int]


def in_order(touched: Touched, start: np.ndarray, columns: int, tile_bytes: int) -> Iterator[Step]:
    """Steps through all tiles, row-major, each decoded once; rows come out with the last of their tiles.

    A tile is kept until its last row is out. Once no row of its own line of tiles is left, only the strip at its bottom
    that rows of the next line reach into is kept, so that memory holds a few tiles and one strip across the image,
    however many rows there are.
    """
    rows, tiles = touched.pairs(columns)
    needed, tile = np.unique(tiles, return_inverse=True)
    portion = max(1, RUN_BYTES // tile_bytes)
    step_of_tile = np.arange(len(needed)) // portion
    last = touched.last @ (columns, 1)
    seen = last >= 0
    step_of_row = np.zeros(len(last), np.int64)
    step_of_row[seen] = np.searchsorted(needed, last[seen]) // portion

    below = touched.last[rows, 0] > needed[tile] // columns
    gone, strip = step_of_tile.copy(), step_of_tile.copy()
    np.maximum.at(gone, tile, step_of_row[rows])
    np.maximum.at(strip, tile[~below], step_of_row[rows[~below]])
    keep = np.full(len(needed), np.iinfo(np.int64).max)
    np.minimum.at(keep, tile[below], start[rows[below], 0])

    steps = max(1, -(-len(needed) // portion))
    out = _split(step_of_row, steps)
    drop = _split(gone, steps)
    trim = _split(np.where(strip < gone, strip, -1), steps)
    for k in range(steps):
        run = needed[k * portion : (k + 1) * portion].tolist()
        trims = list(zip(needed[trim[k]].tolist(), keep[trim[k]].tolist(), strict=True))
        yield Step([run] if run else [], out[k], trims, needed[drop[k]].tolist())


def _split(group: np.ndarray, groups: int) -> list[np.ndarray]:
    """Positions by group number, in order; negative groups are left out."""
    order = np.argsort(group, kind="stable")
    edges = np.searchsorted(group[order], np.arange(groups + 1))
    return [order[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def in_groups(
    touched: Touched, columns: int, tile_bytes: int, generator: np.random.Generator | None = None
) -> Iterator[Step]:
    """Steps through square groups of tiles, independent of each other; with a generator, groups and rows are shuffled.

    Rows belong to the group in which their window begins; tiles of the next groups that they reach into are decoded
    there again, which is the price of independence.
    """
    side = max(1, int((GROUP_BYTES / tile_bytes) ** 0.5))
    group = touched.first // side @ (columns, 1)
    numbers, group = np.unique(group, return_inverse=True)
    members = _split(group, len(numbers))
    portion = max(1, RUN_BYTES // tile_bytes)
    for k in range(len(members)) if generator is None else generator.permutation(len(members)):
        rows = members[k] if generator is None else generator.permutation(members[k])
        tiles = np.unique(touched[rows].pairs(columns)[1]).tolist()
        yield Step([tiles[i : i + portion] for i in range(0, len(tiles), portion)], rows, [], tiles)
