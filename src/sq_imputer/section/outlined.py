"""Tissue that the user outlined: a labels element, or shapes, as a question to points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.section import read
from sq_imputer.section.labels import finest

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.frame import Frame


def on_outlined(sdata: SpatialData, tissue_key: str, image_key: str, frame: Frame, xy_um: np.ndarray) -> np.ndarray:
    """`(n,)` which points `(n, 2)`, in µm of a frame, lie on the tissue of an element.

    Parameters
    ----------
    sdata
        The object.
    tissue_key
        Labels, of which all but 0 are tissue, or shapes, inside of which is tissue.
    image_key
        The image of the frame; it and the element share a coordinate system.
    frame
        The image.
    xy_um
        The points.

    Raises
    ------
    MissingKey
        If there is no such element.
    BadInput
        If it shares no coordinate system with the image.
    """
    names = [*sdata.labels, *sdata.shapes]
    if tissue_key not in names:
        raise MissingKey(
            f"no labels or shapes '{tissue_key}'; sdata has {listed(names)}. Pass tissue_key= one of them, or make one "
            "with pp.tissue."
        )
    element, image = sdata[tissue_key], sdata.images[image_key]
    common = [name for name in read.systems(image) if name in read.systems(element)]
    if not common:
        raise BadInput(
            f"'{tissue_key}' ({listed(read.systems(element))}) and image '{image_key}' ({listed(read.systems(image))}) "
            "share no coordinate system; add one with spatialdata.transformations.set_transformation."
        )
    name = frame.coordinate_system if frame.coordinate_system in common else common[0]
    to_element = np.linalg.inv(read.affine(element, name)) @ read.affine(image, name)
    points = read.apply(to_element, frame.to_px(xy_um))
    return _in_labels(element, points) if tissue_key in sdata.labels else _in_shapes(element, points)


def _in_labels(element, points: np.ndarray) -> np.ndarray:
    """Which points lie on labels other than 0; only the pixels under them are read."""
    import dask.array as da

    values = da.asarray(finest(element).data)
    column, row = np.floor(points).astype(int).T
    on = (column >= 0) & (row >= 0) & (column < values.shape[1]) & (row < values.shape[0])
    on[on] = values.vindex[row[on], column[on]].compute() != 0
    return on


def _in_shapes(shapes, points: np.ndarray) -> np.ndarray:
    import shapely

    areas = shapes.geometry.to_numpy()
    if read.are_circles(shapes):
        areas = shapely.buffer(areas, shapes["radius"].to_numpy(dtype=float))
    on = np.zeros(len(points), dtype=bool)
    on[shapely.STRtree(areas).query(shapely.points(points), predicate="within")[0]] = True
    return on
