"""A drawn region as points of a lattice that stays where it is, so that what is known of a point is known again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.places import lattice

SPACINGS_UM = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
MOST_POINTS = 2000  # of a region that is predicted while one waits


@dataclass(frozen=True, eq=False)
class Region:
    """Points in a polygon.

    Parameters
    ----------
    polygon_um
        `(k, 2)` corners in µm, along the axes of the coordinate system.
    nodes
        `(n, 2)` whole numbers of the points: column and row of the lattice.
    xy_um
        `(n, 2)` their places.
    spacing_um
        Distance of neighboring points.
    area_um2
        Area of the polygon.
    """

    polygon_um: np.ndarray
    nodes: np.ndarray
    xy_um: np.ndarray
    spacing_um: float
    area_um2: float

    def holds(self, xy_um: np.ndarray) -> np.ndarray:
        """`(n,)` which places in µm lie inside."""
        import shapely

        return shapely.contains_xy(shapely.Polygon(self.polygon_um), *np.asarray(xy_um, dtype=float).T)


def region_of(polygon_um: np.ndarray, spacing_um: float | None = None, most: int = MOST_POINTS) -> Region:
    """The points of a hexagonal lattice inside a polygon.

    Parameters
    ----------
    polygon_um
        `(k, 2)` corners in µm.
    spacing_um
        Distance of neighboring points; left out, the finest of `SPACINGS_UM` with at most `most` points.
    most
        Most points that are made.

    Raises
    ------
    BadInput
        If the polygon has no area or crosses itself, or would hold more points, or none.
    """
    import shapely

    polygon_um = np.asarray(polygon_um, dtype=float)
    if polygon_um.ndim != 2 or polygon_um.shape[1] != 2 or len(polygon_um) < 3 or not np.isfinite(polygon_um).all():
        raise BadInput(f"a region has corners of shape {polygon_um.shape}; expected (3 or more, 2), in µm. Draw again.")
    shape = shapely.Polygon(polygon_um)
    if not shape.is_valid or not shape.area > 0:
        raise BadInput("the region crosses itself or has no area. Draw it again, as one closed line.")
    if spacing_um is None:
        expected = shape.area / (np.sqrt(3) / 2) / np.square(SPACINGS_UM)
        spacing_um = next((s for s, n in zip(SPACINGS_UM, expected, strict=True) if n <= 0.95 * most), None)
        spacing_um = spacing_um or float(np.sqrt(shape.area / (np.sqrt(3) / 2) / (0.95 * most)))
    if not spacing_um > 0:
        raise BadInput(f"spacing_um is {spacing_um}; expected a positive distance in µm.")
    if shape.area / (np.sqrt(3) / 2 * spacing_um**2) > 2 * most:
        raise BadInput(
            f"a lattice of {spacing_um:g} µm would have more than {most} points in this region of "
            f"{shape.area / 1e6:.3g} mm². Draw a smaller one, or choose a larger spacing."
        )
    nodes, xy_um = lattice(np.stack([polygon_um.min(axis=0), polygon_um.max(axis=0)]), spacing_um)  # from 0, always
    inside = shapely.contains_xy(shape, *xy_um.T)
    if not inside.any():
        raise BadInput(f"no point of a lattice of {spacing_um:g} µm lies in this region. Draw a larger one.")
    return Region(polygon_um, nodes[inside], xy_um[inside], float(spacing_um), float(shape.area))
