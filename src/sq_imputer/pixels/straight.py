"""A stretched, sheared or turned image resampled onto square pixels: lazily, block by block, without aliasing."""

from __future__ import annotations

import dask.array as da
import numpy as np
from dask.base import tokenize
from PIL import Image

from sq_imputer.pixels.chunks import Tiles
from sq_imputer.pixels.pyramid import Pyramid

BLOCK = 1024  # pixels along a side of what is computed at a time
WINDOW = 2048  # pixels along a side that are read for a part of it, about
WHITE = 255  # outside the image, as crops have it


def straight(pyramid: Pyramid, matrix: np.ndarray, shape: tuple[int, int]) -> da.Array:
    """An image as it is seen on another grid of pixels. Lazy.

    Where the new pixels are finer than the old ones, samples are bilinear; where they are coarser, each is a mean over
    what it covers, taken from the coarsest level that is not coarser than it.

    Parameters
    ----------
    pyramid
        The image.
    matrix
        `(3, 3)` affine from new pixels (x, y) to pixels of the finest level; pixel `i` covers `[i, i + 1)`.
    shape
        Height and width of what is seen.

    Returns
    -------
    `(3, y, x)` uint8 in blocks of 1024 pixels, white outside the image. A block reads what lies under it alone.
    """
    sides = [tuple(min(BLOCK, n - start) for start in range(0, n, BLOCK)) for n in shape]
    sampler = _Sampler(pyramid, matrix)
    name = f"straight-{tokenize(sampler, shape)}"
    meta = np.empty((0, 0, 0), np.uint8)
    return da.map_blocks(sampler, chunks=((3,), *sides), dtype=np.uint8, meta=meta, name=name)


class _Sampler:
    """Computes blocks of the new image: each is asked for by its place alone, so that any scheduler can spread them."""

    def __init__(self, pyramid: Pyramid, matrix: np.ndarray) -> None:
        self.level, matrix = _level(pyramid, matrix)
        self.tiles = Tiles(pyramid, self.level)
        across = 1 / np.linalg.norm(np.linalg.inv(matrix[:2, :2]), axis=0)  # of a new pixel, along x and y of the old
        self.shrink = np.maximum(1, np.floor(across + 1e-6)).astype(int)  # old pixels that are averaged first
        self.matrix = np.diag([*(1 / self.shrink), 1]) @ matrix
        steps = np.linalg.norm(self.matrix[:2, :2], axis=0)
        self.samples = np.where(steps < 1.01, 1, np.ceil(2 * steps)).astype(int)  # per new pixel, along its x and y
        self.part = max(1, int(WINDOW / max(1, *np.abs(matrix[:2, :2]).sum(axis=1), *self.samples)))
        self._token = tokenize(pyramid.levels[self.level].name, pyramid.channels, pyramid.alpha, matrix)

    def __dask_tokenize__(self) -> str:
        return self._token

    def __call__(self, block_info) -> np.ndarray:
        """The pixels `(3, h, w)` of one block."""
        (y0, y1), (x0, x1) = block_info[None]["array-location"][1:]
        out = np.empty((3, y1 - y0, x1 - x0), np.uint8)
        for top in range(y0, y1, self.part):
            for left in range(x0, x1, self.part):
                part = out[:, top - y0 : top - y0 + self.part, left - x0 : left - x0 + self.part]
                self._fill(part, np.array([left, top]))
        return out

    def _fill(self, out: np.ndarray, corner: np.ndarray) -> None:
        high, wide = out.shape[1:]
        linear, (kx, ky) = self.matrix[:2, :2], self.samples.tolist()
        start = linear @ corner + self.matrix[:2, 2]
        ends = np.array([[0, 0], [wide, 0], [0, high], [wide, high]]) @ linear.T
        low = np.floor(start + ends.min(axis=0)).astype(int) - 1
        side = np.ceil(start + ends.max(axis=0)).astype(int) + 1 - low
        window = self._window(low * self.shrink, side * self.shrink)
        (step, (x, y)), shrink = (linear / [kx, ky], start - low), tuple(self.shrink.tolist())
        affine = (step[0, 0], step[0, 1], x, step[1, 0], step[1, 1], y)
        for plane, into in zip(window, out, strict=True):
            seen = Image.fromarray(plane).reduce(shrink)
            seen = seen.transform((wide * kx, high * ky), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
            into[...] = seen.reduce((kx, ky))

    def _window(self, corner: np.ndarray, side: np.ndarray) -> np.ndarray:
        """Pixels `(3, h, w)` of the level from a corner (x, y) on, white outside the image."""
        (x, y), (wide, high) = corner.tolist(), side.tolist()
        out = np.full((3, high, wide), WHITE, np.uint8)
        spans = []
        for edge, start, length in zip(self.tiles.edges, (y, x), (high, wide), strict=True):
            below, above = max(start, 0), min(start + length, int(edge[-1]))
            if below >= above:
                return out
            first, last = np.searchsorted(edge, [below, above - 1], side="right") - 1
            spans.append(range(first, last + 1))
        for i in spans[0]:
            for j in spans[1]:  # one at a time: a window may touch many chunks
                [(top, left, tile)] = self.tiles.read([(i, j)]).values()
                y0, y1 = max(y, top), min(y + high, top + tile.shape[1])
                x0, x1 = max(x, left), min(x + wide, left + tile.shape[2])
                out[:, y0 - y : y1 - y, x0 - x : x1 - x] = tile[:, y0 - top : y1 - top, x0 - left : x1 - left]
        return out


def _level(pyramid: Pyramid, matrix: np.ndarray) -> tuple[int, np.ndarray]:
    """The coarsest level that is not coarser than the new pixels in any direction, and `matrix` to its pixels."""
    for number in reversed(range(len(pyramid.levels))):
        place = pyramid.place(number)
        if place is None:
            continue
        (sy, sx), (oy, ox) = place.scale, place.origin
        to_level = np.linalg.inv([[sx, 0, ox], [0, sy, oy], [0, 0, 1]]) @ matrix
        if number == 0 or np.linalg.svd(to_level[:2, :2])[1].min() > 0.999:
            return number, to_level
    raise AssertionError("the finest level has a place")
