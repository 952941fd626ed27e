from __future__ import annotations

from typing import TYPE_CHECKING

from sq_imputer.contract import CropSpec
from sq_imputer.section.keys import verb
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from typing import Unpack

    from spatialdata import SpatialData

    from sq_imputer.pixels.crops import Crops
    from sq_imputer.section.keys import SlideKeys


@verb
def crops(sdata: SpatialData, spec: CropSpec | None = None, **keys: Unpack[SlideKeys]) -> Crops:
    """Crops of true size around every shape. Lazy, but for a few pixels of odd pyramids (see Notes).

    Parameters
    ----------
    sdata
        The object; it is not changed.
    spec
        Side on the tissue in µm and in pixels; 112 µm in 224 pixels if left out.
    **keys
        Where to find image and shapes, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Returns
    -------
    `len(crops)` crops, uint8 `(3, S, S)` each: index them, iterate `.batches()` in the order that reads every chunk
    once, or go on with `.to_dask()`.

    Notes
    -----
    Where the sizes of the levels of an image do not settle where these lie, a few places of two levels are compared
    when the crops are made, once per image.

    Examples
    --------
    >>> crops = sqi.pp.crops(sdata, sqi.CropSpec(extent_um=112, size_px=224))
    >>> pixels = crops[:8]  # (8, 3, 224, 224), read now
    """
    return Slide.from_sdata(sdata, **keys).crops(CropSpec.of(spec))
