"""What an image truly resolves, in µm per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.sharpness import LEAST, pixels_resolved

if TYPE_CHECKING:
    from sq_imputer.section.frame import Frame

TILES = 32  # looked at, of which the half that shows most is measured
SIDES = (256, 128, 64)  # pixels along a tile, the first of which fits four times into the image


def resolved(frame: Frame, centers_px: np.ndarray) -> float:
    """µm per pixel that an image truly resolves around some points: its pixel, or more where it is blurred.

    Reads up to 32 tiles of the finest level. An image that shows nothing there, or is too small, is as its pixels are.

    Parameters
    ----------
    frame
        The image.
    centers_px
        `(n, 2)` x and y in pixels of the finest level, on tissue.
    """
    least, mpp = min(frame.pyramid.shape), frame.pixel.mpp
    side = next((side for side in SIDES if least >= 4 * side), min(SIDES[-1], least))
    if side < LEAST or not len(centers_px):
        return mpp
    high, wide = frame.pyramid.shape
    some = centers_px[np.unique(np.linspace(0, len(centers_px) - 1, TILES).astype(int))]
    centers = np.clip(np.floor(some), side / 2, np.array([wide, high]) - (side + 1) // 2)
    crops = Crops(frame.pyramid, centers, CropSpec(side * mpp, side), mpp=mpp)
    tiles = crops[:].mean(axis=1)
    order = np.argsort(-tiles.var(axis=(1, 2)), kind="stable")
    found = pixels_resolved(tiles[order[: max(1, len(order) // 2)]])
    return mpp * (found or 1.0)
