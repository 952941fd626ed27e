"""A whole image at a glance: a small picture in the axes of its coordinate system."""

from __future__ import annotations

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.section.frame import Frame


def picture(frame: Frame, max_px: int = 1200, *, least_um: float = 0.0) -> tuple[np.ndarray, tuple]:
    """The image in at most `max_px` pixels along its longer side, from the pyramid level that suits.

    Parameters
    ----------
    frame
        The image.
    max_px
        Most pixels along the longer side.
    least_um
        No finer than this, in µm per pixel.

    Returns
    -------
    `(H, W, 3)` uint8, and its extent (left, right, bottom, top) in µm for `imshow`.
    """
    low, high = frame.box_um
    side = float((high - low).max())
    size = min(max_px, int(np.ceil(side / least_um)) if least_um else max_px)
    size = max(1, min(size, int(np.ceil(side / frame.pixel.mpp))))
    crop = np.moveaxis(frame.crops(frame.to_px((low + high)[None] / 2), CropSpec(side, size))[0], 0, -1)
    um = side / size
    left, top = np.floor((side - (high - low)) / 2 / um).astype(int)
    crop = crop[top : size - top, left : size - left]
    x, y = (low + high) / 2 - (side / 2 - np.array([left, top]) * um)
    return crop, (float(x), float(x + crop.shape[1] * um), float(y + crop.shape[0] * um), float(y))
