from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.pixels.levels import halvings
from sq_imputer.pixels.straight import straight
from sq_imputer.section import read
from sq_imputer.section.image import find_image, read_pyramid
from sq_imputer.section.keys import verb
from sq_imputer.store import write

if TYPE_CHECKING:
    from spatialdata import SpatialData

MOST_SIDE = 2**21  # pixels: more is a wrong pixel_size


@verb
def straighten(
    sdata: SpatialData,
    image_key: str | None = None,
    *,
    coordinate_system: str | None = None,
    pixel_size: float | None = None,
    key_added: str | None = None,
    overwrite: bool = False,
) -> None:
    """Add a copy of a stretched, sheared or anisotropic image whose pixels are square, for crops to be cut from.

    Every point of the tissue stays where it is in all coordinate systems. The pixels of the new image lie along the
    axes of the one that is straightened, and cover the extent that the old image has there. Samples are bilinear where
    they are finer than the old pixels, and means over all that a pixel covers where they are coarser, so that nothing
    is aliased; blocks are computed when they are read, or streamed into the store of a backed object. What lies outside
    the old image is white.

    Parameters
    ----------
    sdata
        The object; `images[key_added]` is written, uint8 (r, g, b) with levels that are halves of each other.
    image_key
        The image; may be left out if there is one.
    coordinate_system
        Where the new image is to be straight; where it is not yet, if that is one.
    pixel_size
        Side of a new pixel, in units of that system. If left out, that of the old pixels along their finest direction:
        no detail is lost.
    key_added
        Name of the new image; `<image_key>_straight` if left out.
    overwrite
        Replace an image of this name.

    Raises
    ------
    MissingKey
        If there is no such image or coordinate system.
    BadInput
        If the image is straight there already, its transformation cannot be inverted, or the name is taken.

    Notes
    -----
    The sides are padded with white to a multiple of the factor of the coarsest level, so that every level lies where it
    says: by less than half a percent of the shorter side. In memory the image stays lazy, and every look at it computes
    what it shows; write the object first if it will be read more than once.

    Examples
    --------
    >>> sqi.pp.straighten(sheared, "image")  # an image whose axes are not at right angles
    """
    image_key = find_image(sdata, image_key)
    key_added = read.straight_key(image_key) if key_added is None else key_added
    if pixel_size is not None:
        check_number("pixel_size", pixel_size)
        if not pixel_size > 0:
            raise BadInput(f"pixel_size is {pixel_size}; expected a positive length in the coordinate system.")
    pyramid = read_pyramid(sdata, image_key)
    system = _system(sdata, image_key, coordinate_system)
    to_image, shape = _grid(read.affine(sdata.images[image_key], system), pyramid.shape, pixel_size)
    write.check_free(sdata, "images", key_added, overwrite, nbytes=4 * shape[0] * shape[1])
    levels = [
        straight(pyramid, to_image @ np.diag([2.0**k, 2.0**k, 1]), tuple(n // 2**k for n in shape))
        for k in range(halvings(shape) + 1)
    ]
    systems = {name: read.affine(sdata.images[image_key], name) for name in read.systems(sdata.images[image_key])}
    element = _element(levels, {name: matrix @ to_image for name, matrix in systems.items()})
    write.write_element(sdata, "images", key_added, element, overwrite=overwrite)


def _system(sdata: SpatialData, image_key: str, asked: str | None) -> str:
    """The coordinate system in which an image is to be made straight."""
    names = read.systems(sdata.images[image_key])
    if asked is not None and asked not in names:
        raise MissingKey(f"image '{image_key}' is not in '{asked}'; it is in {listed(names)}. Pass coordinate_system=.")
    bent = []
    for name in [asked] if asked else names:
        sizes, _ = read.stretch(read.affine(sdata.images[image_key], name), f"image '{image_key}' in '{name}'")
        bent += [name] if sizes[0] / sizes[1] > read.STRETCHED else []
    if not bent:
        raise BadInput(f"image '{image_key}' is straight in {listed([asked] if asked else names)}; use it as it is.")
    if len(bent) > 1 and "global" not in bent:
        raise MissingKey(f"image '{image_key}' is stretched in {listed(bent)}. Pass coordinate_system=, one of them.")
    return "global" if "global" in bent else bent[0]


def _grid(
    to_system: np.ndarray, shape: tuple[int, int], pixel_size: float | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """From the new pixels to the old `(3, 3)`, and the new height and width."""
    sizes, _ = read.stretch(to_system, "the image")
    size = sizes.min() if pixel_size is None else pixel_size
    to_new = np.diag([1 / size, 1 / size, 1]) @ to_system
    high, wide = shape
    corners = read.apply(to_new, np.array([[0, 0], [wide, 0], [0, high], [wide, high]], dtype=float))
    to_new[:2, 2] -= corners.min(axis=0)
    sides = np.ceil(np.ptp(corners, axis=0) - 1e-6)
    if not sides.max() <= MOST_SIDE:
        raise BadInput(
            f"pixels of {size:.4g} would make an image of {sides[0]:.4g} x {sides[1]:.4g} px; at most {MOST_SIDE} a "
            "side are made. Pass a larger pixel_size."
        )
    wide, high = np.maximum(sides.astype(int), 1).tolist()
    multiple = 2 ** halvings((high, wide))
    return np.linalg.inv(to_new), tuple(n + -n % multiple for n in (high, wide))


def _element(levels: list, systems: dict[str, np.ndarray]):
    """An image element of these levels, each half of the one before."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine

    image = Image2DModel.parse(
        levels[0],
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * (len(levels) - 1),
        transformations={name: Affine(matrix, read.XY, read.XY) for name, matrix in systems.items()},
    )
    for element, pixels in zip(image.values(), levels, strict=True):
        element["image"].data = pixels  # each from the image itself, not from the level before
    return image
