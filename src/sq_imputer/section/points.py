"""Places of a section: free ones, where nobody put a shape and nothing was measured, and those of a table's rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.section import read
from sq_imputer.section.seen import unseen
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.frame import Frame


def at_points(slide: Slide, xy_um: np.ndarray, diameter_um: float) -> Slide:
    """A slide of points on the image of another: unmeasured, with features that are scaled as that slide's are.

    Parameters
    ----------
    slide
        The section.
    xy_um
        `(n, 2)` places in µm, along the axes of its coordinate system.
    diameter_um
        Size of every row.

    Raises
    ------
    BadInput
        If there is no point, or one lies outside the image.
    """
    xy_um = np.asarray(xy_um, dtype=np.float64).reshape(-1, 2)
    if not len(xy_um):
        raise BadInput(f"no point of section '{slide.section}' is asked for; expected one or more, in µm.")
    off = ~slide.frame.holds(xy_um)
    if off.any():
        raise BadInput(
            f"{off.sum()} of {len(xy_um)} points lie outside image '{slide.keys['image_key']}', the first at "
            f"{np.round(xy_um[off][0], 1).tolist()} µm. Pass points on the image."
        )
    n = len(xy_um)
    return replace(
        slide,
        centers_px=slide.frame.to_px(xy_um),
        size_um=np.full(n, float(diameter_um)),
        names=np.array([f"point {number}" for number in range(n)], dtype=object),
        instances=np.arange(n),
        measured=np.zeros(n, dtype=bool),
        counts=None,
        var_names=(),
        gene_ids=(),
        array=None,
        expression=None,
        labels=None,
        anchor=slide.anchor or slide,
        made_by={},
        journal=None,
        scratch=None,
        _parent=None,
        **unseen(),
    )


def annotated_on(sdata: SpatialData, image_key: str, frame: Frame, table_key: str | None) -> dict[str, np.ndarray]:
    """Where `(n, 2)`, in µm, the rows of a table lie, by the element that they annotate in this coordinate system."""
    found = {}
    for name in read.annotated(sdata, table_key):
        if frame.coordinate_system not in read.systems(sdata[name]):
            continue
        shapes = read.outlines(sdata, name)
        _, where = read.rows_of(sdata.tables[table_key], shapes.index, name, table_key)
        to_image = read.geometry(sdata, image_key, name, frame.coordinate_system).to_image
        found[name] = read.apply(frame.to_um, read.apply(to_image, read.centers(shapes, name)[where]))
    return found
