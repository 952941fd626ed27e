"""An image and its place, without any shapes: pixels, µm, and the coordinate system."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.errors import MissingKey, listed
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.pixels.straight import straight
from sq_imputer.section import read
from sq_imputer.section.image import find_image, read_pyramid
from sq_imputer.section.pixel_size import PixelSize, pixel_size

if TYPE_CHECKING:
    from spatialdata import SpatialData


SAME = 1.02  # times coarser: pixels of one size


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
    resolution
        µm per pixel: crops show nothing finer. None: whatever the image shows.
    """

    pyramid: Pyramid
    pixel: PixelSize
    to_um: np.ndarray
    coordinate_system: str
    resolution: float | None = None

    @property
    def axes(self) -> np.ndarray:
        """`(2, 2)` directions of the coordinate system's x and y in the image."""
        return read.similarity(self.to_um, self.pyramid.name)[1].T

    def crops(self, centers_px: np.ndarray, spec: CropSpec, *, threads: int = 2, names=None) -> Crops:
        """Crops around points, along the axes of the coordinate system. Lazy."""
        frame, centers_px = self.seen(centers_px, spec)
        known = {"mpp": frame.pixel.mpp, "axes": frame.axes, "names": names}
        return Crops(frame.pyramid, centers_px, spec, threads=threads, **known)

    def seen(self, centers_px: np.ndarray, spec: CropSpec) -> tuple[Frame, np.ndarray]:
        """What crops like `spec` are cut from, and their centers there: this image, or one without what is finer."""
        if not self.coarsens(spec):
            return self, centers_px
        return self._coarse, self._coarse.to_px(read.apply(self.to_um, np.asarray(centers_px, dtype=np.float64)))

    def coarsens(self, spec: CropSpec) -> bool:
        """Whether crops like `spec` would show what is finer than `resolution`, by the sizes of pixels."""
        return self.resolution is not None and self.resolution > SAME * max(spec.mpp, self.pixel.mpp)

    @cached_property
    def _coarse(self) -> Frame:
        """The image in pixels of `resolution`, lazily: means over what each covers, on a grid around the middle."""
        step = self.resolution / self.pixel.mpp
        size = np.array(self.pyramid.shape)
        shape = np.ceil(size / step).astype(int)
        origin = ((size - shape * step) / 2)[::-1]
        matrix = np.array([[step, 0, origin[0]], [0, step, origin[1]], [0, 0, 1]])
        pyramid = Pyramid((straight(self.pyramid, matrix, tuple(shape.tolist())),), name=self.pyramid.name)
        pixel = replace(self.pixel, mpp=self.resolution)
        return Frame(pyramid, pixel, self.to_um @ matrix, self.coordinate_system)

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
    scale, _ = read.similarity_of_image(to_cs, image_key, name)
    return Frame(read_pyramid(sdata, image_key), pixel, np.diag([pixel.mpp / scale] * 2 + [1]) @ to_cs, name)
