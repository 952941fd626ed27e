"""An image at several resolutions, as arrays only: no SpatialData, no microns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.pixels.fingerprint import fingerprint, remembered
from sq_imputer.pixels.levels import Place, find

if TYPE_CHECKING:
    import dask.array as da

MOST_FOUND = 256  # images whose levels are remembered
_FOUND: dict[tuple, list[Place | None]] = {}  # by the names of the arrays, which dask makes of what they hold


@dataclass(frozen=True)
class Pyramid:
    """One image at one or more resolutions. Reads nothing.

    Parameters
    ----------
    levels
        Lazy `(c, y, x)` arrays, finest first: uint8, or float in [0, 1].
    channels
        Positions of red, green and blue along `c`.
    alpha
        Position of the opacity channel along `c`, composited over white; None if there is none.
    name
        What messages call it.

    Raises
    ------
    BadInput
        If a level is empty, is not `(c, y, x)`, has another dtype, or lacks one of the channels.
    """

    levels: tuple[da.Array, ...]
    channels: tuple[int, int, int] = (0, 1, 2)
    alpha: int | None = None
    name: str = "the image"

    def __post_init__(self) -> None:
        if not self.levels:
            raise BadInput(f"{self.name} has no pyramid level; pass at least one (c, y, x) array.")
        used = (*self.channels, *(() if self.alpha is None else (self.alpha,)))
        for number, level in enumerate(self.levels):
            if level.ndim != 3 or 0 in level.shape:
                raise BadInput(f"level {number} of {self.name} has shape {level.shape}; expected (c, y, x), none 0.")
            if level.dtype != np.uint8 and level.dtype.kind != "f":
                raise BadInput(
                    f"level {number} of {self.name} is {level.dtype}; uint8, or float in [0, 1], is expected. "
                    "Rescale it before reading crops."
                )
            if min(used) < 0 or max(used) >= level.shape[0]:
                raise BadInput(
                    f"level {number} of {self.name} has {level.shape[0]} channels; channels {used} were asked for."
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the finest level, in pixels."""
        return self.levels[0].shape[1:]

    def scale(self, level: int) -> tuple[float, float]:
        """Finest-level pixels per pixel of this level by their sizes, along y and x; `place` has it exactly."""
        height, width = self.levels[level].shape[1:]
        return self.shape[0] / height, self.shape[1] / width

    def place(self, level: int) -> Place | None:
        """Where a level lies in the finest; None if it cannot be told.

        Reads a few pixels, once, where sizes do not settle it.
        """
        return Place((1.0, 1.0)) if level == 0 else self._places[level]

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the pixels, by a sample that is read once: an image of one name and size may be another."""
        return fingerprint(self.levels, (*self.channels, *(() if self.alpha is None else (self.alpha,))))

    @property
    def _places(self) -> list[Place | None]:
        key = (self.channels, *((level.name, level.shape) for level in self.levels))
        return remembered(_FOUND, MOST_FOUND, key, lambda: find(self.levels, self.channels))
