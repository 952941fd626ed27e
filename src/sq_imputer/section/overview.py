"""A whole image at a glance: a small picture in the axes of its coordinate system, and where the tissue is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.pixels.crops import Crops
from sq_imputer.section import read
from sq_imputer.section.image import find_image, read_pyramid
from sq_imputer.section.pixel_size import PixelSize, pixel_size

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.pixels.pyramid import Pyramid

TISSUE_UM = 16.0  # resolution at which tissue is told from glass
SMALLEST_UM = 150.0  # islands and holes smaller than this square are dust


@dataclass(frozen=True, eq=False)
class Frame:
    """An image and its place, without any shapes.

    Parameters
    ----------
    pyramid
        The image, lazily.
    pixel
        µm per pixel and where it came from.
    to_um
        `(3, 3)` from pixels of the finest level to µm along the axes of the coordinate system.
    coordinate_system
        Its name.
    """

    pyramid: Pyramid
    pixel: PixelSize
    to_um: np.ndarray
    coordinate_system: str

    @property
    def axes(self) -> np.ndarray:
        """`(2, 2)` directions of the coordinate system's x and y in the image."""
        return read.similarity(self.to_um, self.pyramid.name)[1].T

    def crops(self, centers_px: np.ndarray, spec: CropSpec, *, threads: int = 2, names=None) -> Crops:
        """Crops around points, along the axes of the coordinate system. Lazy."""
        known = {"mpp": self.pixel.mpp, "axes": self.axes, "names": names}
        return Crops(self.pyramid, centers_px, spec, threads=threads, **known)

    @property
    def box_um(self) -> np.ndarray:
        """`(2, 2)` lowest and highest (x, y) of the image."""
        height, width = self.pyramid.shape
        corners = read.apply(self.to_um, np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=float))
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def to_px(self, xy_um: np.ndarray) -> np.ndarray:
        """Points `(n, 2)` in µm as pixels of the finest level."""
        return read.apply(np.linalg.inv(self.to_um), xy_um)

    def holds(self, xy_um: np.ndarray) -> np.ndarray:
        """`(n,)` which points in µm lie on the image."""
        px = self.to_px(xy_um)
        height, width = self.pyramid.shape
        return ((px >= 0) & (px < [width, height])).all(axis=1)


def read_frame(
    sdata: SpatialData,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    *,
    mpp: float | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    shapes_key: str | None = None,
) -> Frame:
    """The place of an image; its µm per pixel is asked of `shapes_key` first. Reads no pixel."""
    image_key = find_image(sdata, image_key)
    names = read.systems(sdata.images[image_key])
    if coordinate_system is not None and coordinate_system not in names:
        raise MissingKey(
            f"image '{image_key}' is not in '{coordinate_system}'; it is in {listed(names)}. Pass coordinate_system=."
        )
    name = coordinate_system or ("global" if "global" in names else names[0])
    known = {"mpp": mpp, "technology": technology, "table_key": table_key, "shapes_key": shapes_key}
    pixel = pixel_size(sdata, image_key, coordinate_system=coordinate_system, **known)
    to_cs = read.affine(sdata.images[image_key], name)
    scale, _ = read.similarity(to_cs, f"image '{image_key}' in '{name}'")
    return Frame(read_pyramid(sdata, image_key), pixel, np.diag([pixel.mpp / scale] * 2 + [1]) @ to_cs, name)


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


def tissue(frame: Frame, max_px: int = 2000) -> tuple[np.ndarray, tuple]:
    """Where the tissue is: Otsu's threshold on how much a pixel differs from the glass, without dust and pinholes.

    Returns
    -------
    `(H, W)` bool, and its extent as of :func:`picture`.

    Raises
    ------
    BadInput
        If no tissue is found.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt
    from skimage.filters import gaussian, threshold_otsu
    from skimage.morphology import closing, disk, remove_small_holes, remove_small_objects

    name, otherwise = frame.pyramid.name, "Pass shapes to predict at instead of a grid."
    rgb, extent = picture(frame, max_px, least_um=TISSUE_UM)
    um = (extent[1] - extent[0]) / rgb.shape[1]
    inside = _inside(frame, rgb.shape[:2], extent)
    whole = binary_erosion(inside)  # the rim is mixed with the white around the image: take the color next to it
    if not whole.any():
        raise BadInput(f"{name} is too small ({inside.sum() * um * um:.3g} µm²) to tell tissue from glass. {otherwise}")
    rgb = rgb[tuple(distance_transform_edt(~whole, return_distances=False, return_indices=True))]
    smooth = gaussian(rgb, sigma=max(1.0, TISSUE_UM / um), channel_axis=-1)
    unlike = np.linalg.norm(smooth - _glass(smooth[inside]), axis=-1)
    if np.ptp(unlike[inside]) < 0.02:
        raise BadInput(f"{name} is of one color: no tissue was found. {otherwise}")
    mask = closing((unlike > threshold_otsu(unlike[inside])) & inside, disk(2))
    least = int((SMALLEST_UM / um) ** 2) + 1
    mask = remove_small_objects(remove_small_holes(mask, max_size=least), max_size=least) & inside
    if not mask.any():
        raise BadInput(f"no tissue was found in {name}, only specks below {SMALLEST_UM:g} µm. {otherwise}")
    return mask, extent


def _inside(frame: Frame, shape: tuple[int, int], extent: tuple) -> np.ndarray:
    """Which pixels of a picture lie on the image; a turned image does not fill its box."""
    x = extent[0] + (np.arange(shape[1]) + 0.5) * (extent[1] - extent[0]) / shape[1]
    y = extent[3] + (np.arange(shape[0]) + 0.5) * (extent[2] - extent[3]) / shape[0]
    return frame.holds(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)).reshape(shape)


def _glass(rgb: np.ndarray) -> np.ndarray:
    """The color of the empty slide: the most frequent one among the brighter half of the pixels `(n, 3)`."""
    light = rgb[rgb.sum(axis=1) >= np.median(rgb.sum(axis=1))]
    code = np.floor(light * 32).astype(int) @ np.array([33 * 33, 33, 1])
    values, counts = np.unique(code, return_counts=True)
    return light[code == values[counts.argmax()]].mean(axis=0)
