"""The image of a section: which one it is, and its levels and channels as arrays that no pixel is read of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.read import check_object

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray


def find_image(sdata: SpatialData, image_key: str | None) -> str:
    """The name of the image: as given, or the only one that is not a map of `tl.explain`."""
    check_object(sdata)
    names = list(sdata.images)
    if image_key is None:
        tissue = [name for name in names if not _is_map(sdata, name)]
        if len(tissue) == 1:
            return tissue[0]
        found = f"{len(tissue)} images: {listed(tissue)}" if tissue else "no image"
        raise MissingKey(f"image_key is not given and sdata has {found}. Pass image_key=, one of them.")
    if image_key not in names:
        raise MissingKey(f"no image '{image_key}'; sdata has {listed(names)}. Pass image_key=.")
    return image_key


def spots_of(key: str) -> str:
    """Name of the table of the spots whose maps the image of this name shows."""
    return f"{key}_spots"


def _is_map(sdata: SpatialData, name: str) -> bool:
    """Whether an image was written by `tl.explain`: its table says so."""
    return spots_of(name) in sdata.tables and name in sdata.tables[spots_of(name)].uns.get("sq_imputer", ())


def read_pyramid(sdata: SpatialData, image_key: str) -> Pyramid:
    """The levels of an image, lazily. Reads no pixel.

    Raises
    ------
    BadInput
        If it is not a color image: its dimensions, size, type of values or channels are others.
    """
    arrays = _levels(sdata.images[image_key])
    first = arrays[0]
    if first.dims != ("c", "y", "x"):
        raise BadInput(
            f"image '{image_key}' has dimensions {first.dims}; expected ('c', 'y', 'x'). Parse it with dims=."
        )
    if 0 in first.shape:
        raise BadInput(
            f"image '{image_key}' is empty ({first.sizes['x']} x {first.sizes['y']} px); expected at least a pixel. "
            "Parse it again, or pass image_key= of another."
        )
    _check_values(image_key, first)
    channels, alpha = _channels(image_key, first)
    levels = tuple(array.data for array in arrays)
    return Pyramid(levels, channels=channels, alpha=alpha, name=f"image '{image_key}'")


def _levels(element) -> list[DataArray]:
    from xarray import DataArray

    if isinstance(element, DataArray):
        return [element]
    levels = [next(iter(element[name].ds.values())) for name in element]
    return sorted(levels, key=lambda level: -level.sizes["y"])


def _check_values(image_key: str, array: DataArray) -> None:
    if array.dtype == np.uint8 or array.dtype.kind == "f":
        return
    if array.dtype.kind == "b":
        hint = "It is a mask, not an image: pass image_key= of the H&E image."
    else:  # whether 4095 or 65535 is white is not said anywhere
        hint = "Divide it by its white and store it as uint8 (skimage.util.img_as_ubyte, if the whole range is used)."
    raise BadInput(f"image '{image_key}' has dtype {array.dtype}; expected uint8, or float in [0, 1]. {hint}")


def _channels(image_key: str, array: DataArray) -> tuple[tuple[int, int, int], int | None]:
    """Positions of red, green, blue and alpha: by name where they are named; three without names are in that order."""
    names = [str(name).lower() for name in array.coords["c"].values]
    rename = f"sdata.set_channel_names('{image_key}', ['r', 'g', 'b'])"
    if len(set(names)) != len(names):
        raise BadInput(
            f"image '{image_key}' has duplicate channel names: {listed(names)}; expected each once. Call {rename}."
        )
    for wanted in (["r", "g", "b", "a"], ["red", "green", "blue", "alpha"]):
        if set(wanted[:3]) <= set(names) <= set(wanted):
            alpha = names.index(wanted[3]) if wanted[3] in names else None
            return (names.index(wanted[0]), names.index(wanted[1]), names.index(wanted[2])), alpha
    unnamed = names == [str(i) for i in range(len(names))]
    if len(names) == 3 and unnamed:
        return (0, 1, 2), None
    if array.sizes["x"] in (3, 4) or len(names) > 16:
        hint = "Is it (y, x, c)? Parse it with dims=('y', 'x', 'c')."
    elif len(names) == 1:
        hint = "It is gray, and models see H&E in color: pass image_key= of an RGB image."
    elif len(names) == 4 and unnamed:
        hint = f"If the fourth is alpha, say so: {rename[:-2]}, 'a'])."
    else:
        hint = f"Models see H&E, not fluorescence: pass image_key= of an RGB image. If it is one, call {rename}."
    raise BadInput(
        f"image '{image_key}' has {len(names)} channels (c = {listed(names)}); expected r, g, b, or these and a. {hint}"
    )
