"""What an image shows around any place, in few smooth numbers: for looking it up at many places, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec

if TYPE_CHECKING:
    from sq_imputer.section.frame import Frame

MOST_PX = 2500  # along a side
PER_WINDOW = 12  # pixels across the window of a spot
LEAST_DENSITY = 0.05  # optical density of what is stained at all
DARK = 0.35  # more red is taken out, as by nuclei
WIDER = 3.0  # times: the second window


@dataclass(frozen=True, eq=False)
class Smooth:
    """Maps `(C, H, W)` of an image, as means over windows: `low` is where their corner lies in µm, `um` their pixel."""

    maps: np.ndarray
    low: np.ndarray
    um: float

    def __call__(self, xy_um: np.ndarray) -> np.ndarray:
        """`(n, C)` at places `(n, 2)` in µm, between pixels; beyond the maps what is at their edge."""
        from scipy.ndimage import map_coordinates

        at = ((np.asarray(xy_um) - self.low) / self.um - 0.5).T[::-1]
        return np.stack([map_coordinates(one, at, order=1, mode="nearest") for one in self.maps], axis=1)


def smooth(frame: Frame, low: np.ndarray, high: np.ndarray, window_um: float) -> Smooth:
    """Maps of the square around a box in µm, whose windows are as wide as a spot, and three times as wide.

    Mean and spread of the optical density of red, green and blue, the share that is stained, and the share that is dark
    with hematoxylin. What lies beside the image is white.
    """
    middle, side = (low + high) / 2, float((high - low).max())
    um = max(side / MOST_PX, frame.pixel.mpp, window_um / PER_WINDOW)
    size = max(8, int(np.ceil(side / um)))
    crop = frame.crops(frame.to_px(middle[None]), CropSpec(side, size))[0]
    return Smooth(_maps(crop, window_um / (side / size)), middle - side / 2, side / size)


def _maps(crop: np.ndarray, window_px: float) -> np.ndarray:
    """Maps of pixels `(3, H, W)` uint8."""
    density = -np.log10((crop.astype(np.float32) + 1) / 256)
    stained = (density.mean(axis=0) > LEAST_DENSITY).astype(np.float32)
    dark = (density[0] > DARK).astype(np.float32)
    found = []
    for wide in (window_px, WIDER * window_px):
        for one in density:
            mean, square = _blurred(one, wide), _blurred(one**2, wide)
            found += [mean, np.sqrt(np.maximum(square - mean**2, 0))]
        found += [_blurred(stained, wide), _blurred(dark, wide)]
    return np.stack(found)


def _blurred(values: np.ndarray, window_px: float) -> np.ndarray:
    """Means over discs, nearly: a Gaussian that is as wide as the disc."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, window_px / 4, truncate=3.0, mode="nearest")
