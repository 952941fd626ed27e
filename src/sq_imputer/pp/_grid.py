from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.section import overview, read
from sq_imputer.section.image import find_image
from sq_imputer.section.keys import verb
from sq_imputer.store import write

if TYPE_CHECKING:
    from spatialdata import SpatialData

MOST_POINTS = 1e8


@verb
def grid(
    sdata: SpatialData,
    *,
    spacing_um: float = 100.0,
    diameter_um: float = 55.0,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    mpp: float | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    key_added: str = "grid",
    overwrite: bool = False,
) -> None:
    """Add circles on a hexagonal lattice over the tissue, to predict where nothing was measured.

    Tissue is what differs in color from the glass (Otsu's threshold at 16 µm per pixel). The circles have the
    transformations of the image.

    Parameters
    ----------
    sdata
        The object; `shapes[key_added]` is written.
    spacing_um
        Distance between neighboring centers, in µm.
    diameter_um
        Diameter of the circles, in µm.
    image_key
        The image; may be left out if there is one.
    coordinate_system
        Along whose axes the lattice lies.
    mpp, technology, table_key
        µm per pixel, as :func:`sq_imputer.pp.pixel_size` finds it.
    key_added
        Name of the shapes element.
    overwrite
        Replace an element of this name.

    Raises
    ------
    BadInput
        If no tissue is found, or the name is taken.
    """
    image_key = find_image(sdata, image_key)
    read.check_table_key(sdata, table_key)
    for name, value in (("spacing_um", spacing_um), ("diameter_um", diameter_um)):
        check_number(name, value)
        if not value > 0:
            raise BadInput(f"{name} is {value}; expected a positive length in µm.")
    write.check_free(sdata, "shapes", key_added, overwrite)
    places = {"mpp": mpp, "technology": technology, "table_key": table_key}
    frame = overview.read_frame(sdata, image_key, coordinate_system, **places)
    points = np.prod(np.ptp(frame.box_um, axis=0) / spacing_um)
    if points > MOST_POINTS:
        raise BadInput(
            f"a lattice of {spacing_um:g} µm would have {points:.2g} points on {frame.pyramid.name}; at most "
            f"{MOST_POINTS:.2g} are made. Pass a larger spacing_um."
        )
    mask, extent = overview.tissue(frame)
    xy_um = lattice(frame.box_um, spacing_um)
    um = (extent[1] - extent[0]) / mask.shape[1]
    column, row = np.floor((xy_um - [extent[0], extent[3]]) / um).astype(int).T
    inside = frame.holds(xy_um) & (column >= 0) & (row >= 0) & (column < mask.shape[1]) & (row < mask.shape[0])
    inside[inside] = mask[row[inside], column[inside]]
    if not inside.any():
        raise BadInput(f"no point of a lattice of {spacing_um:g} µm lies on tissue; pass a smaller spacing_um.")
    centers = frame.to_px(xy_um[inside])
    write.write_element(
        sdata,
        "shapes",
        key_added,
        _circles(sdata, image_key, centers, diameter_um / frame.pixel.mpp),
        overwrite=overwrite,
    )


def lattice(box_um: np.ndarray, spacing_um: float) -> np.ndarray:
    """Points `(n, 2)` of a hexagonal lattice in a box, every point `spacing_um` from its six neighbors."""
    (x0, y0), (x1, y1) = box_um
    ys = np.arange(y0 + spacing_um / 2, y1, spacing_um * np.sqrt(3) / 2)
    rows = []
    for number, y in enumerate(ys):
        xs = np.arange(x0 + spacing_um / (2 if number % 2 else 1), x1, spacing_um)
        rows.append(np.column_stack([xs, np.full(len(xs), y)]))
    return np.concatenate(rows) if rows else np.empty((0, 2))


def _circles(sdata: SpatialData, image_key: str | None, centers_px: np.ndarray, diameter_px: float):
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    image = sdata.images[find_image(sdata, image_key)]
    return ShapesModel.parse(
        centers_px, geometry=0, radius=diameter_px / 2, transformations=get_transformation(image, get_all=True)
    )
