"""Whether image and expression lie on each other, and how far off they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number, listed, named
from sq_imputer.runs.alignment import OFF, UNTOLD, Alignment, align
from sq_imputer.section import read
from sq_imputer.section.keys import verb
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from typing import Unpack

    from spatialdata import SpatialData
    from spatialdata.transformations import Affine

    from sq_imputer.section.keys import SlideKeys

ALSO = ("flip", "rotation", "scale")
MOST_UM = 5000.0


@verb
def alignment(
    sdata: SpatialData,
    *,
    search_um: float = 500.0,
    also: str | Sequence[str] = (),
    apply: bool = False,
    seed: int = 0,
    **keys: Unpack[SlideKeys],
) -> Alignment | Affine:
    """Say whether image and expression lie on each other, and if not, by how much shapes must be moved.

    At every shift, up to `search_um` in x and y, the counts are predicted from the image below them: log depth and the
    leading components of the genes, by ridge on mean, spread and stained share of the optical densities in windows as
    wide as a spot, out of fold in spatial blocks. Where they lie on each other, this works best. First in steps of half
    the distance of spots, then of an eighth around the best place; cells are looked at in squares of 100 µm first.

    Parameters
    ----------
    sdata
        A section with counts. Nothing in it is changed.
    search_um
        Largest shift along x and y that is looked for.
    also
        What else may be wrong: `"flip"` (mirrored, axes swapped, quarter turns), `"rotation"` (up to 12 degrees),
        `"scale"` (from 0.78 to 1.28), one or several.
    apply
        Return the transformation of the shapes instead, for `spatialdata.transformations.set_transformation`.
    seed
        Of displaced sections, draws, and of 5000 rows where there are more.
    **keys
        Where to find image, shapes and counts, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Returns
    -------
    :class:`sq_imputer.runs.alignment.Alignment`: a verdict (`"aligned"`, `"off"`, `"cannot be told"`) with its reason,
    shift, interval, skill against shift, p against displaced sections, and the shift of every part of a section that
    has enough spots; :func:`sq_imputer.pl.alignment` draws it. With `apply=True` the transformation, that of now if the
    section is aligned.

    Raises
    ------
    MissingKey
        If a key is missing.
    BadInput
        If fewer than 30 rows have counts, or `apply=True` and it cannot be told.

    Notes
    -----
    *Aligned*: draws of spatial blocks with replacement put the best shift within a quarter of the distance of spots
    often enough (5 %). *Off*: they do not. *Cannot be told*: 39 sections whose expression is displaced as a torus find
    as good a place (p > .05), the best place lies at the edge, or is uncertain by more than two spots. A turn, mirror
    image or scale is believed where it explains more whichever blocks are drawn.

    It measures where the image tells most of the counts. Transcripts that diffuse one way in permeabilization are off
    by that; a section of one kind of tissue has nothing to be aligned by.

    Examples
    --------
    >>> found = sqi.pp.alignment(sdata, search_um=100)
    >>> found.verdict in ("aligned", "off", "cannot be told")
    True
    """
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    check_number("search_um", search_um, 1, MOST_UM)
    wanted = named("also", also)
    strange = [name for name in wanted if name not in ALSO]
    if strange:
        raise BadInput(f"also names {listed(strange)}; expected some of {listed(ALSO)}.")
    slide = Slide.from_sdata(sdata, **{"outside": "pad", **keys})
    found = align(slide, search_um, wanted, seed)
    found = _placed(sdata, slide, found)
    if not apply:
        return found
    if found.verdict == UNTOLD:
        raise BadInput(f"section '{found.section}' is not moved: {found.reason}. Look at it with apply=False.")
    return found.transformation


def _placed(sdata: SpatialData, slide: Slide, found: Alignment) -> Alignment:
    """With the transformation of the shapes."""
    from spatialdata.transformations import Affine

    system = slide.keys["coordinate_system"]
    own = read.affine(sdata[slide.keys["shapes_key"]], system)
    if found.verdict == OFF:
        to_system = read.affine(sdata.images[slide.keys["image_key"]], system) @ np.linalg.inv(slide.frame.to_um)
        own = to_system @ found.matrix_um @ np.linalg.inv(to_system) @ own
    return replace(found, coordinate_system=system, transformation=Affine(own, read.XY, read.XY))
