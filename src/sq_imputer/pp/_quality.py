from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.runs.sections import read_sections
from sq_imputer.section.keys import verb
from sq_imputer.section.tissue import tissue

if TYPE_CHECKING:
    from typing import Unpack

    from pandas import DataFrame

    from sq_imputer.runs.sections import Sections
    from sq_imputer.section.keys import SlideKeys
    from sq_imputer.section.slide import Slide

CHANNELS = ("red", "green", "blue")


@verb
def quality(sdata: Sections, *, sections: str | Mapping | None = None, **keys: Unpack[SlideKeys]) -> DataFrame:
    """Say of every section how sharp, bright, stained and compressed its image is, in one table.

    Look at it before sections are fitted on together: a model knows what it saw. :func:`sq_imputer.pl.quality` draws
    it; :func:`sq_imputer.tl.predict` keeps the same numbers of the training sections and says where a section differs.

    Parameters
    ----------
    sdata
        A SpatialData object, a list of them, or a dict of section names to them. They are not changed.
    sections
        The sections of an object that has several, as :func:`sq_imputer.tl.fit` takes them.
    **keys
        Where to find image, shapes and counts, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Returns
    -------
    A row per section, with columns `section`, `mpp` (µm per pixel), `resolved_mpp` (µm per pixel that the image truly
    resolves, by the spectrum of its tissue), `sharpness` (the first over the second: 1 is as sharp as its pixels),
    `white_*` (red, green and blue of the light behind the tissue, 0 to 255), `hematoxylin_*` and `eosin_*` (optical
    densities, of length 1; NaN where little is stained), `tissue` (share of the image; NaN where none is found) and
    `blocks` (how far the edges of JPEG's blocks stand out: 0 is not compressed).

    Raises
    ------
    MissingKey
        If a key is missing.
    BadInput
        If a section cannot be used.

    Examples
    --------
    >>> table = sqi.pp.quality(sections)
    """
    import pandas as pd

    return pd.DataFrame([_row(slide) for slide in read_sections(sdata, keys, within=sections)])


def _row(slide: Slide) -> dict:
    looks = slide.looks
    row = {"section": slide.section, "mpp": looks.mpp, "resolved_mpp": looks.resolved_mpp}
    row["sharpness"] = looks.mpp / looks.resolved_mpp
    for name in ("white", "hematoxylin", "eosin"):
        row |= {f"{name}_{channel}": x for channel, x in zip(CHANNELS, getattr(looks, name), strict=True)}
    return row | {"tissue": _share(slide), "blocks": looks.blocks}


def _share(slide: Slide) -> float:
    try:
        return float(tissue(slide.frame)[0].mean())
    except BadInput:  # none, or too small to tell
        return np.nan
