"""Sections as scanners of lower resolution would have seen them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, Sequence, get_transformation

import sq_imputer as sqi


def coarser(sdata: SpatialData, mpp: float) -> SpatialData:
    """The object with its image in pixels of `mpp` µm, resampled with antialiasing."""
    key = next(iter(sdata.images))
    element = sdata.images[key]
    found = sqi.pp.pixel_size(sdata, key).mpp
    level = element["scale0"].ds["image"] if hasattr(element, "keys") and "scale0" in element else element
    pixels = np.moveaxis(np.asarray(level.data), 0, -1)
    size = [round(side * found / mpp) for side in pixels.shape[1::-1]]
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    step = Scale([pixels.shape[1] / size[0], pixels.shape[0] / size[1]], axes=("x", "y"))
    old = get_transformation(element, get_all=True)
    places = {name: Sequence([step, one]) for name, one in old.items()}
    image = Image2DModel.parse(np.moveaxis(small, -1, 0), dims=("c", "y", "x"), transformations=places)
    others = {name: one for _, name, one in sdata.gen_elements() if name != key}
    return SpatialData.init_from_elements({key: image, **others}, attrs=dict(sdata.attrs))
