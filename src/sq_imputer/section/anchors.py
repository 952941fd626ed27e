"""What the features of unmeasured rows are scaled by: the section that they lie in, not themselves alone.

Mean and spread of a section's features take its stain and scanner out. Those of a small region would take out with them
what tells the region from the rest of the section. So rows that cover little of the tissue are scaled as the spots
beside them are, which a table annotates on the same image; where there are none, as points over all of its tissue.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.places import lattice
from sq_imputer.section.points import annotated_on, at_points
from sq_imputer.section.tissue import covers, tissue

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.frame import Frame
    from sq_imputer.section.slide import Slide

POINTS = 400  # at most, that a section is known by: their mean is within a twentieth of a standard deviation
COVERED = 0.5  # share of the tissue from which on rows are scaled by themselves


def anchored(slide: Slide, sdata: SpatialData) -> Slide:
    """The slide, whose features are scaled as those of its section where nothing was measured at its rows.

    Reads an overview of the image if no table annotates other shapes on it.
    """
    if slide.anchor is not None or slide.measured.any():
        return slide
    xy_um = _beside(slide, sdata)
    xy_um = _over_tissue(slide) if xy_um is None else xy_um
    return slide if xy_um is None else replace(slide, anchor=at_points(slide, xy_um, float(slide.size_um.mean())))


def _beside(slide: Slide, sdata: SpatialData) -> np.ndarray | None:
    """Places of the spots on the image that a table annotates, if these are of one element and not of the slide's."""
    where = annotated_on(sdata, slide.keys["image_key"], slide.frame, slide.keys["table_key"])
    if len(where) != 1 or slide.keys["shapes_key"] in where:
        return None
    [xy_um] = where.values()
    on = slide.frame.holds(xy_um)
    return _some(xy_um[on]) if on.any() and on.mean() > COVERED else None


def _over_tissue(slide: Slide) -> np.ndarray | None:
    """Points over the tissue of the image; None if the rows cover it, or nothing tells it from glass."""
    from scipy.spatial import cKDTree

    try:
        mask, extent = tissue(slide.frame)
    except BadInput:
        return None
    xy_um, spacing_um = _spread_over(slide.frame, mask, extent)
    near, _ = cKDTree(slide.xy_um).query(xy_um)
    return _some(xy_um) if len(xy_um) and (near < spacing_um).mean() < COVERED else None


def _spread_over(frame: Frame, mask: np.ndarray, extent: tuple) -> tuple[np.ndarray, float]:
    """About as many points on a mask as a section is known by, and their distance, in µm."""
    left, right, bottom, top = extent
    area = mask.mean() * (right - left) * (bottom - top)
    spacing_um = float(np.sqrt(area / POINTS / (np.sqrt(3) / 2)))
    _, xy_um = lattice(frame.box_um, spacing_um)
    return xy_um[covers(mask, extent, xy_um) & frame.holds(xy_um)], spacing_um


def _some(xy_um: np.ndarray) -> np.ndarray:
    """These points, or as many of them as are enough, all over their order."""
    return xy_um[np.linspace(0, len(xy_um) - 1, min(len(xy_um), POINTS)).astype(int)]
