from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.places import lattice
from sq_imputer.section import read
from sq_imputer.section.frame import Frame, read_frame
from sq_imputer.section.image import find_image
from sq_imputer.section.keys import verb
from sq_imputer.section.outlined import on_outlined
from sq_imputer.section.points import annotated_on
from sq_imputer.section.tissue import covers, tissue
from sq_imputer.store import write

if TYPE_CHECKING:
    from spatialdata import SpatialData

MOST_POINTS = 1e8
LEAST_COVERED = 0.8  # share of the measured spots that a grid covers


@verb
def grid(
    sdata: SpatialData,
    *,
    spacing_um: float = 100.0,
    diameter_um: float = 55.0,
    square: bool = False,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    mpp: float | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    tissue_key: str | None = None,
    key_added: str = "grid",
    overwrite: bool = False,
) -> None:
    """Add circles on a hexagonal or square lattice over the tissue, to predict where nothing was measured.

    Tissue is told from glass, and from what the scanner did not see, as :func:`sq_imputer.pp.tissue` does, or is what
    `tissue_key` says. The circles have the transformations of the image. What share of the measured spots lies on that
    tissue is logged; below 80 % it is a warning.

    Parameters
    ----------
    sdata
        The object; `shapes[key_added]` is written.
    spacing_um
        Distance between neighboring centers, in µm.
    diameter_um
        Diameter of the circles, in µm.
    square
        A square lattice, on which crops of `spacing_um` lie edge to edge (`pp.embed` with `tokens=`).
    image_key
        The image; may be left out if there is one.
    coordinate_system
        Along whose axes the lattice lies.
    mpp, technology, table_key
        µm per pixel, as :func:`sq_imputer.pp.pixel_size` finds it.
    tissue_key
        Labels (all but 0) or shapes that outline the tissue; found in the image if left out.
    key_added
        Name of the shapes element.
    overwrite
        Replace an element of this name.

    Raises
    ------
    BadInput
        If no tissue is found, or the name is taken.

    Warns
    -----
    UserWarning
        If fewer than 80 % of the measured spots lie on the tissue.

    Examples
    --------
    >>> sqi.pp.grid(sdata, spacing_um=100)
    """
    image_key = find_image(sdata, image_key)
    read.check_table_key(sdata, table_key)
    for name, value in (("spacing_um", spacing_um), ("diameter_um", diameter_um)):
        check_number(name, value)
        if not value > 0:
            raise BadInput(f"{name} is {value}; expected a positive length in µm.")
    write.check_free(sdata, "shapes", key_added, overwrite)
    places = {"mpp": mpp, "technology": technology, "table_key": table_key}
    frame = read_frame(sdata, image_key, coordinate_system, **places)
    points = np.prod(np.ptp(frame.box_um, axis=0) / spacing_um)
    if points > MOST_POINTS:
        raise BadInput(
            f"a lattice of {spacing_um:g} µm would have {points:.2g} points on {frame.pyramid.name}; at most "
            f"{MOST_POINTS:.2g} are made. Pass a larger spacing_um."
        )
    first = frame.box_um[0] + spacing_um * np.array([0.5 if square else 1.0, 0.5])
    _, xy_um = lattice(frame.box_um, spacing_um, first, square=square)
    xy_um = xy_um[frame.holds(xy_um)]
    spots = np.concatenate([np.empty((0, 2)), *annotated_on(sdata, image_key, frame, table_key).values()])
    spots = spots[frame.holds(spots)]
    on, known = _on_tissue(sdata, image_key, frame, tissue_key, xy_um, spots)
    if not on.any():
        raise BadInput(f"no point of a lattice of {spacing_um:g} µm lies on tissue; pass a smaller spacing_um.")
    _tell(known, tissue_key)
    circles = _circles(sdata, image_key, frame.to_px(xy_um[on]), diameter_um / frame.pixel.mpp)
    write.write_element(sdata, "shapes", key_added, circles, overwrite=overwrite)


def _on_tissue(
    sdata: SpatialData, image_key: str, frame: Frame, tissue_key: str | None, *points_um: np.ndarray
) -> list[np.ndarray]:
    """Which of some points lie on the tissue, for each set of them."""
    if tissue_key is not None:
        return [on_outlined(sdata, tissue_key, image_key, frame, xy_um) for xy_um in points_um]
    mask, extent = tissue(frame)
    return [covers(mask, extent, xy_um) for xy_um in points_um]


def _tell(on: np.ndarray, tissue_key: str | None) -> None:
    """Log what share of the measured spots lies on the tissue, and warn if it is small."""
    if not len(on):
        return
    where = "the tissue that was found" if tissue_key is None else f"'{tissue_key}'"
    text = f"{on.sum()} of {len(on)} measured spots ({on.mean():.0%}) lie on {where}"
    logging.getLogger(__name__).info(text)
    if on.mean() < LEAST_COVERED:
        warnings.warn(
            f"{text}, and so do the circles. Look at pp.tissue(sdata), or pass tissue_key=, labels or shapes that you "
            "drew.",
            UserWarning,
            stacklevel=4,
        )


def _circles(sdata: SpatialData, image_key: str | None, centers_px: np.ndarray, diameter_px: float):
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    image = sdata.images[find_image(sdata, image_key)]
    return ShapesModel.parse(
        centers_px, geometry=0, radius=diameter_px / 2, transformations=get_transformation(image, get_all=True)
    )
