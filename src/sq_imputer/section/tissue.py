"""Where the tissue is in a picture: told from glass, and from what the scanner did not see.

Stains take one color out of the light more than another; glass, shadows, printed frames and black do not. So what
tells tissue is its tint (the part of its optical density in which the channels differ) beside that of the glass around
it and, where it is pale, its texture. Nothing is compared with the rest of the picture: a crop without glass is all
tissue, one without tissue has none, and a dark half does not hide a pale one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.section.overview import picture

if TYPE_CHECKING:
    from sq_imputer.section.frame import Frame

TISSUE_UM = 16.0  # resolution at which tissue is told from glass
BLACK = 30  # no channel is brighter where the scanner saw nothing
SMALLEST_UM = 150.0  # islands and holes smaller than this square are dust
FIELD_UM = 600.0  # the tint of the glass is followed over this distance
STRONG, WEAK = 0.08, 0.025  # tint beyond the glass's (optical density) of tissue, and of pale tissue that has texture
TEXTURE, SMOOTH = 0.018, 0.008  # spread of the optical density within 100 µm: at least of pale tissue, at most of glass
TINTED, BRIGHT = (0.11, 0.16), 0.2  # most tint of glass, and of bright glass
STAINED = 0.4  # share of an island that is strongly stained; printed frames are textured, and hardly stained
LEAST_GLASS = 0.003  # share of the picture; below, smooth pale places are lumina


def tissue(frame: Frame, max_px: int = 2000) -> tuple[np.ndarray, tuple]:
    """Where the tissue of an image is, at 16 µm per pixel or at most `max_px` along its longer side.

    Returns
    -------
    `(H, W)` bool, and its extent as of :func:`sq_imputer.section.overview.picture`.

    Raises
    ------
    BadInput
        If no tissue is found.
    """
    name, otherwise = frame.pyramid.name, "Pass shapes to predict at instead of a grid, or tissue_key=."
    rgb, extent = picture(frame, max_px, least_um=TISSUE_UM)
    um = (extent[1] - extent[0]) / rgb.shape[1]
    inside = _inside(frame, rgb.shape[:2], extent)
    if min(inside.shape) < 3 or inside.sum() < 9:
        raise BadInput(f"{name} is too small ({inside.sum() * um * um:.3g} µm²) to tell tissue from glass. {otherwise}")
    mask = find(rgb, inside, um)
    if not mask.any():
        raise BadInput(
            f"{name} shows glass, black, and specks below {SMALLEST_UM:g} µm alone: no tissue was found. {otherwise}"
        )
    return mask, extent


def covers(mask: np.ndarray, extent: tuple, xy_um: np.ndarray) -> np.ndarray:
    """`(n,)` which points `(n, 2)` in µm lie on a mask of this extent."""
    left, right, bottom, top = extent
    size = np.array([right - left, bottom - top]) / mask.shape[::-1]
    column, row = np.floor((xy_um - [left, top]) / size).astype(int).T
    on = (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
    on[on] = mask[row[on], column[on]]
    return on


def _inside(frame: Frame, shape: tuple[int, int], extent: tuple) -> np.ndarray:
    """Which pixels of a picture lie on the image; a turned image does not fill its box."""
    x = extent[0] + (np.arange(shape[1]) + 0.5) * (extent[1] - extent[0]) / shape[1]
    y = extent[3] + (np.arange(shape[0]) + 0.5) * (extent[2] - extent[3]) / shape[0]
    return frame.holds(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).reshape(shape)


def blank(rgb: np.ndarray, um: float) -> np.ndarray:
    """Pixels `(H, W)` where the scanner saw nothing: black, and more than a speck."""
    from skimage.morphology import remove_small_objects

    return remove_small_objects(rgb.max(axis=-1) < BLACK, max_size=_pixels(2 * SMALLEST_UM, um))


def find(rgb: np.ndarray, inside: np.ndarray, um: float) -> np.ndarray:
    """Pixels `(H, W)` that show tissue.

    Parameters
    ----------
    rgb
        `(H, W, 3)` uint8.
    inside
        `(H, W)` pixels that lie on the image; some must.
    um
        µm per pixel; 10 to 30 are best.
    """
    from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, label, maximum_filter
    from skimage.morphology import closing, disk, reconstruction, remove_small_holes, remove_small_objects

    black = blank(rgb, um)
    seen = inside & ~black
    # the rim is mixed with what lies beyond: take the color next to it
    whole = binary_erosion(inside) & ~binary_dilation(black, iterations=2)
    whole = whole if whole.any() else seen
    if not whole.any():
        return whole
    rgb = rgb[tuple(distance_transform_edt(~whole, return_distances=False, return_indices=True))]
    tint, texture = _unlike_glass(rgb, whole, um)
    strong = tint > STRONG
    side = max(3, round(112 / um))
    # the window of the texture reaches over borders
    rough = binary_erosion(texture > TEXTURE, iterations=max(1, side // 4), border_value=1)
    weak = strong | ((tint > WEAK) & rough)
    mask = reconstruction((strong & weak).astype(np.uint8), weak.astype(np.uint8)).astype(bool)
    mask = closing(mask & seen, disk(2)) & seen
    # what was blurred over a border has not a third of the tint of what lies behind it
    rim = mask & ~binary_erosion(mask, iterations=2, border_value=1)
    mask &= ~(rim & (tint < maximum_filter(tint, 5) / 3))
    least = _pixels(SMALLEST_UM, um)
    filled = remove_small_holes(np.pad(mask, 1), max_size=least)[1:-1, 1:-1]  # what is open to the border is no hole
    mask = remove_small_objects(filled & seen, max_size=least)
    part, _ = label(mask)
    share = np.bincount(part[mask & strong], minlength=part.max() + 1) / np.maximum(np.bincount(part.ravel()), 1)
    return mask & (share[part] > STAINED)


def _unlike_glass(rgb: np.ndarray, whole: np.ndarray, um: float) -> tuple[np.ndarray, np.ndarray]:
    """How much the tint `(H, W)` of every pixel is beyond that of the glass around it, and its texture `(H, W)`."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    density = -np.log((rgb.astype(np.float32) + 1) / 256)
    density = gaussian_filter(density, (max(1.0, 16 / um), max(1.0, 16 / um), 0))
    mean = density.mean(axis=-1)
    side = max(3, round(112 / um))
    texture = np.sqrt(np.maximum(uniform_filter(mean**2, side) - uniform_filter(mean, side) ** 2, 0))
    tint = density - mean[..., None]
    own = np.linalg.norm(tint, axis=-1)
    if own[whole].max() < WEAK:  # a picture without color: shades are all there is
        return mean - np.quantile(mean[whole], 0.02), texture
    glass = whole & (texture < SMOOTH) & ((own < TINTED[0]) | ((own < TINTED[1]) & (mean < BRIGHT)))
    if glass.sum() < LEAST_GLASS * whole.sum():
        return np.full(whole.shape, np.inf), texture
    typical = np.median(tint[glass], axis=0)
    reach = (FIELD_UM / um, FIELD_UM / um)
    weight = gaussian_filter(glass.astype(np.float32), reach) + 1e-3
    around = gaussian_filter(np.where(glass[..., None], tint - typical, 0), (*reach, 0)) / weight[..., None]
    return np.linalg.norm(tint - typical - around, axis=-1), texture


def _pixels(side_um: float, um: float) -> int:
    return int((side_um / um) ** 2) + 1
