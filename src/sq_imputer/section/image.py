"""The image of a section: which one it is, and its levels and channels as arrays that no pixel is read of."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.read import affine, apply, check_object, systems

if TYPE_CHECKING:
    from spatialdata import SpatialData
    from xarray import DataArray

SAME_PLACE = 0.02  # share of the side by which images of one place may differ: scaled ones have whole pixels
FINER = 1.5  # times more pixels along a side, for one of them to be clearly the finest


def find_image(sdata: SpatialData, image_key: str | None, shapes_key: str | None = None) -> str:
    """The name of the image: as given, or the only one that is not a map of `tl.explain`.

    Of several, those count that share a coordinate system with the shapes; if these show the same place at different
    resolutions, as Visium's hires and lowres images do, the finest is taken, with a warning that says so.
    """
    check_object(sdata)
    names = list(sdata.images)
    if image_key is not None:
        if image_key not in names:
            raise MissingKey(f"no image '{image_key}'; sdata has {listed(names)}. Pass image_key=.")
        return image_key
    tissue = [name for name in names if not _is_map(sdata, name)]
    if len(tissue) > 1 and shapes_key is not None:
        near = set(systems(sdata[shapes_key]))
        tissue = [name for name in tissue if near & set(systems(sdata.images[name]))] or tissue
    finest = _finest(sdata, tissue) if len(tissue) > 1 else next(iter(tissue), None)
    if finest is None:
        found = f"{len(tissue)} images: {listed(tissue)}" if tissue else "no image"
        raise MissingKey(f"image_key is not given and sdata has {found}. Pass image_key=, one of them.")
    if len(tissue) > 1:
        others = listed(name for name in tissue if name != finest)
        warnings.warn(
            f"image_key is not given; '{finest}' is taken, the finest of the images of this place (others: {others}). "
            f"Pass image_key='{finest}' to say so.",
            UserWarning,
            stacklevel=3,
        )
    return finest


def _finest(sdata: SpatialData, names: list[str]) -> str | None:
    """The image of most pixels, if all cover the same box of one coordinate system and it has clearly more."""
    common = set.intersection(*(set(systems(sdata.images[name])) for name in names))
    if not common:
        return None
    system = "global" if "global" in common else min(common)
    boxes, sides = [], []
    for name in names:
        level = _levels(sdata.images[name])[0]
        if level.dims != ("c", "y", "x") or level.sizes["c"] not in (3, 4):
            return None
        height, width = level.sizes["y"], level.sizes["x"]
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=float)
        corners = apply(affine(sdata.images[name], system), corners)
        boxes.append(np.concatenate([corners.min(axis=0), corners.max(axis=0)]))
        sides.append(max(height, width))
    order = np.argsort(sides)[::-1]
    span = np.ptp(boxes[order[0]].reshape(2, 2), axis=0).max()
    alike = all(np.abs(box - boxes[order[0]]).max() < SAME_PLACE * span for box in boxes)
    return names[order[0]] if alike and sides[order[0]] > FINER * sides[order[1]] else None


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
