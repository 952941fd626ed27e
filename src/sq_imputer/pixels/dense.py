"""Windows that share pixels: the image is cut into blocks on a grid, each described once for all its windows.

The grid has the resolution of the windows and is centered on the image, so that it is the same for every window, every
selection of rows, and for the mirrored image. A window lies on it to a fraction of a pixel. How large the blocks are
follows from how dense the windows lie, and changes no number: what a place is described by hangs on the pixels around
it, which every block brings along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.plan import Windows, on_level, pick_level, resampled

if TYPE_CHECKING:
    from sq_imputer.contract import CropSpec
    from sq_imputer.pixels.levels import Place
    from sq_imputer.pixels.pyramid import Pyramid

STRIDES = (32, 128, 256, 512, 1024)  # pixels from block to block; the first is as good as a block for every window
MOST_PIXELS = 2_000_000  # of a block, with what it brings along
NATIVE = 0.8  # of the resolution that is asked for: from here on an image is read as it is
LEAST_STEP = 0.25  # pixels of the image per pixel of the grid: nothing is blown up more than four times
BATCH_PIXELS = 600_000  # described at once, if blocks are smaller


@dataclass(frozen=True)
class Grid:
    """Pixels of one size on an image, counted from its middle.

    Parameters
    ----------
    level, lies
        Pyramid level that is read, and where it lies.
    step
        Pixels of that level per pixel of the grid, `(y, x)`.
    origin
        Where pixel 0 begins, in pixels of the level.
    swap
        Whether y and x are exchanged as blocks are read, so that an image on its side is resampled as if upright.
    """

    level: int
    lies: Place
    step: np.ndarray
    origin: np.ndarray
    swap: bool = False

    @classmethod
    def of(cls, pyramid: Pyramid, spec: CropSpec, mpp: float, swap: bool = False) -> Grid:
        """The grid of windows like `spec`."""
        level = pick_level(pyramid, spec, mpp)
        lies = pyramid.place(level)
        scale = np.array(lies.scale)
        side = spec.extent_um / mpp / scale
        whole = level == 0 and (np.rint(side) == spec.size_px).all()
        # Multiples of 1/128 are exact: a pixel is the same whatever block it is read in.
        # Odd windows lie between two of these: of µm per pixel the last bit must not decide.
        step = np.floor(np.maximum(side / spec.size_px, LEAST_STEP) * 128 + 0.5 + 1 / 1024) / 128
        step = np.ones(2) if whole or ((NATIVE < step) & (step < 1)).all() else step
        middle = (np.array(pyramid.shape) / 2 - lies.origin) / scale
        origin = np.floor(middle) if (step == 1).all() else np.rint(middle * 128) / 128
        return cls(level, lies, step, origin, swap)

    def windows(self, centers_px: np.ndarray, side_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Where windows begin `(n, 2)`, as (y, x), and their sides `(2,)`, in pixels of the grid."""
        side = side_px / np.array(self.lies.scale) / self.step
        return (on_level(centers_px, self.lies) - self.origin) / self.step - side / 2, side

    def read(self, first: np.ndarray, size: int) -> Windows:
        """Squares of the grid whose first pixels `(n, 2)` are given."""
        corner = self.origin + first * self.step
        if (self.step == 1).all():
            return Windows(self.level, size, corner.astype(np.int64), swap=self.swap)
        margin, window = resampled(size * self.step.max(), size)
        start = np.floor(corner) - margin
        inside, box = corner - start, size * self.step
        if not self.swap:
            inside, box = inside[:, ::-1], box[::-1]
        place = {"swap": self.swap, "offset": inside, "box": tuple(box.tolist())}
        return Windows(self.level, window, start.astype(np.int64), **place)


class Some(NamedTuple):
    """Blocks, and the windows on them.

    Parameters
    ----------
    rows
        `(n,)` numbers of the windows.
    image
        `(n,)` block of each.
    low, high
        `(n, 2)` where each begins and ends, in pixels of the block, as (y, x).
    pixels
        `(B, 3, S, S)` uint8.
    """

    rows: np.ndarray
    image: np.ndarray
    low: np.ndarray
    high: np.ndarray
    pixels: np.ndarray


class Dense:
    """Windows of one size, to be described block by block. Reads nothing until iterated.

    Parameters
    ----------
    pyramid
        The image.
    centers_px
        `(n, 2)` centers `(x, y)` in pixels of the finest level.
    spec
        Extent of the windows and, with it, the resolution; an image that is much coarser is blown up four times.
    mpp
        µm per pixel of the finest level.
    block, halo
        Pixels: blocks begin at multiples of the first, and bring along the second around their windows.
    threads, names
        As of :class:`Crops`.
    swap
        Whether the image lies on its side.
    stride
        Pixels from block to block, one of `STRIDES`; the cheapest if left out. The first is a block for every window,
        more or less: `together` is False then.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        centers_px: np.ndarray,
        spec: CropSpec,
        *,
        mpp: float,
        block: int,
        halo: int,
        threads: int = 2,
        names: np.ndarray | None = None,
        swap: bool = False,
        stride: int | None = None,
    ) -> None:
        self.grid = Grid.of(pyramid, spec, mpp, swap)
        self._low, self._side = self.grid.windows(np.asarray(centers_px, dtype=np.float64), spec.extent_um / mpp)
        self._around = block * ceil(self._side.max() / block) + 2 * halo
        self.together = stride != STRIDES[0]
        self.stride = stride or self._cheapest()
        first, self._block_of = np.unique(np.floor(self._low / self.stride), axis=0, return_inverse=True)
        self._block_of = self._block_of.ravel()
        self._first = first * self.stride - halo
        self.size = self.stride + self._around
        called = np.arange(len(self._low)) if names is None else np.asarray(names, dtype=object)
        windows = self.grid.read(self._first, self.size)
        names = [called[rows] for rows in self._members()]
        self._blocks = Crops.on_grid(pyramid, windows, self.size, threads, names)

    def __len__(self) -> int:
        return len(self._low)

    @property
    def described(self) -> int:
        """Pixels that are described in all."""
        return len(self._first) * self.size**2

    def _cheapest(self) -> int:
        return min(STRIDES, key=self._cost)

    def _cost(self, stride: int) -> float:
        """Pixels described with blocks of this stride; infinite if they do not fit."""
        size = stride + self._around
        if stride > STRIDES[0] and size**2 > MOST_PIXELS:
            return np.inf
        return len(np.unique(np.floor(self._low / stride), axis=0)) * size**2

    def _members(self) -> list[np.ndarray]:
        order = np.argsort(self._block_of, kind="stable")
        return np.split(order, np.searchsorted(self._block_of[order], np.arange(1, len(self._first))))

    def groups(self, least: int) -> list[np.ndarray]:
        """Rows in portions of whole blocks, `least` rows or more each but the last, in the order of the image."""
        portions, held, count = [], [], 0
        for rows in self._members():
            held.append(rows)
            count += len(rows)
            if count >= least:
                portions.append(np.concatenate(held))
                held, count = [], 0
        return portions + ([np.concatenate(held)] if held else [])

    def batches(self, rows: np.ndarray) -> Iterator[Some]:
        """Blocks with these rows on them, in chunk order, the next being read meanwhile."""
        wanted, of = np.unique(self._block_of[rows], return_inverse=True)
        order = np.argsort(of, kind="stable")
        members = np.split(rows[order], np.searchsorted(of[order], np.arange(1, len(wanted))))
        for numbers, pixels in self._blocks.batches(max(1, BATCH_PIXELS // self.size**2), rows=wanted):
            on = [members[k] for k in np.searchsorted(wanted, numbers)]
            image = np.repeat(np.arange(len(numbers)), [len(part) for part in on])
            which = np.concatenate(on)
            low = self._low[which] - self._first[numbers[image]]
            high = low + self._side
            if self.grid.swap:
                low, high = low[:, ::-1].copy(), high[:, ::-1].copy()
            yield Some(which, image, low, high, pixels)
