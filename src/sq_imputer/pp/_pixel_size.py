from __future__ import annotations

from typing import TYPE_CHECKING

from sq_imputer.section import pixel_size as sizes
from sq_imputer.section import read
from sq_imputer.section.image import find_image
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.pixel_size import PixelSize


@verb
def pixel_size(
    sdata: SpatialData,
    image_key: str | None = None,
    *,
    mpp: float | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    coordinate_system: str | None = None,
) -> PixelSize:
    """µm per pixel of an image's finest level, and where the number came from.

    The first that applies, in this order:

    1. the argument `mpp`;
    2. a transformation of the image to a coordinate system in µm (named `um`, `microns`, `um-P1`, ...);
    3. `microns_per_pixel` in `uns["spatial"]`, or the bin size of Visium HD in the name of its shapes;
    4. the lattice pitch, fitted over `array_row` and `array_col`: of a named technology, or of Visium where scale
       factors or the diameter of the spots say so;
    5. `spot_diameter_fullres` in `uns["spatial"]` (65 µm in Visium, a bin in Visium HD).

    All others are asked as well, compared, and kept in `others`.

    Parameters
    ----------
    sdata
        The object; it is not changed.
    image_key
        The image; may be left out if there is one.
    mpp
        µm per pixel, if known.
    technology
        `"visium"` (pitch 100 µm), `"st"` (200 µm) or `"st2k"` (150 µm).
    table_key
        Table with `array_row` and `array_col`, for the lattice.
    coordinate_system
        Where spots and image meet. May be left out if all common systems say the same.

    Returns
    -------
    `mpp`, `source`, and what `others` say.

    Raises
    ------
    BadInput
        If none applies, or two differ by more than 20 % and no third confirms the first; the message says how to
        settle it.
    MissingKey
        If the coordinate systems that spots and image share disagree, none was named, and nothing else says it.

    Warns
    -----
    UserWarning
        If two sources differ by more than 3 %, or a scale factor is no positive number.

    Examples
    --------
    >>> size = sqi.pp.pixel_size(sdata)
    >>> um_per_pixel, where_from = size.mpp, size.source
    """
    image_key = find_image(sdata, image_key)
    read.check_table_key(sdata, table_key)
    known = {"mpp": mpp, "technology": technology, "table_key": table_key}
    return sizes.pixel_size(sdata, image_key, coordinate_system=coordinate_system, **known)
