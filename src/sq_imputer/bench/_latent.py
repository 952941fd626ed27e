"""What another encoder of expression, such as scVI or DRVI, has left in `obsm`, for the rows of a section."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.keys import verb
from sq_imputer.section.slide import Slide
from sq_imputer.section.targets import there

if TYPE_CHECKING:
    from typing import Unpack

    from spatialdata import SpatialData

    from sq_imputer.section.keys import SlideKeys


@verb
def latent(sdata: SpatialData, name: str, **keys: Unpack[SlideKeys]) -> np.ndarray:
    """Vectors in `obsm` of the table, in the order of the rows of a section, for :meth:`sq_imputer.bench.Pairs.of`.

    The encoder that made them must not have seen the sections that are tested, which cannot be checked here: the
    published splits of HESCAPE were broken in this way.

    Parameters
    ----------
    sdata
        The section.
    name
        In `obsm`, such as `"X_scVI"`.
    **keys
        Where to find image, shapes and table, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Returns
    -------
    `(n, L)` float32, NaN in rows that the table does not have.

    Raises
    ------
    MissingKey
        If the table has no such slot.
    BadInput
        If a row that is in the table has no finite vector.

    Examples
    --------
    >>> vectors = sqi.bench.latent(sdata, "X_texture")
    """
    slide = Slide.from_sdata(sdata, target=f"obsm:{name}", **keys)
    if slide.labels is None:
        raise MissingKey(
            f"no obsm '{name}' of section '{slide.section}'; there are "
            f"{there(sdata, slide.target, slide.keys['table_key'])}. Write it there, such as by scVI."
        )
    known = np.isfinite(slide.labels)
    odd = known.any(axis=1) & ~known.all(axis=1)
    if odd.any() or not known.any():
        raise BadInput(
            f"obsm '{name}' of section '{slide.section}' is not finite in {odd.sum()} rows; compute it anew."
        )
    return slide.labels
