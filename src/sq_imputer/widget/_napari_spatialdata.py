"""What napari-spatialdata keeps in a window and in the metadata of layers: no other file of ours knows it.

Its underscored names may move with any release; `tests/widget/test_docks.py` compares a layer of theirs with one made
here. Written for version 0.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sq_imputer.section import read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from napari import Viewer
    from napari.layers import Image, Points
    from spatialdata import SpatialData

VERSION = "0.7"
VIEW = "View (napari-spatialdata)"  # the title of their dock
_SWAP = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=float)  # napari counts y first


class Opened(NamedTuple):
    """An object that layers of a window are of, an image of it that is shown, and the coordinate system."""

    sdata: SpatialData
    image_key: str | None
    coordinate_system: str | None


def open_window(sdata: SpatialData, image_key: str, coordinate_system: str, show: bool = True) -> Viewer:
    """A new window with the lists and the View widget of napari-spatialdata, and the image in it."""
    import napari
    from napari_spatialdata import Interactive

    viewer = napari.Viewer(title="sq_imputer", show=show)
    window = Interactive(sdata, headless=True)  # takes the newest viewer
    window.switch_coordinate_system(coordinate_system)
    window._sdata_widget.viewer_model.add_sdata_image(sdata, image_key, coordinate_system, multi=False)
    return viewer


def opened(viewer: Viewer) -> Opened | None:
    """What the layers of a window are of, the chosen layer first; None if there is no such layer."""
    layers = [layer for layer in (viewer.layers.selection.active, *viewer.layers) if layer is not None]
    known = [layer for layer in layers if layer.metadata.get("sdata") is not None]
    if not known:
        return None
    sdata = known[0].metadata["sdata"]
    names = [layer.metadata.get("name") for layer in known if layer.metadata["sdata"] is sdata]
    return Opened(
        sdata, next((one for one in names if one in sdata.images), None), known[0].metadata.get("_current_cs")
    )


def image_layer(viewer: Viewer, sdata: SpatialData, image_key: str) -> Image | None:
    """The layer that shows an image, if there is one."""
    for layer in viewer.layers:
        if layer.metadata.get("sdata") is sdata and layer.metadata.get("name") == image_key:
            return layer
    return None


def metadata_of(
    sdata: SpatialData, shapes_key: str, key: str, coordinate_system: str, indices: Sequence
) -> dict[str, Any]:
    """What the layer of circles keeps, with a table as the one that is looked at.

    Layers of cells that are polygons or labels do not name the object: their points are not its geometry, and a change
    of the coordinate system would ask it for radii.
    """
    from spatialdata import get_element_annotators

    adata = _rows_of(sdata, shapes_key, key)
    attrs = sdata.tables[key].uns["spatialdata_attrs"]
    kept = {
        "adata": adata,
        "region_key": attrs["region_key"],
        "instance_key": attrs["instance_key"],
        "table_names": sorted(get_element_annotators(sdata, shapes_key)),
        "_active_in_cs": {coordinate_system},
        "_current_cs": coordinate_system,
        "_n_indices": len(indices),
        "indices": list(indices),
        "_columns_df": None,
    }
    if shapes_key in sdata.shapes and read.are_circles(sdata.shapes[shapes_key]):
        kept |= {"sdata": sdata, "name": shapes_key}
    return kept


def _rows_of(sdata: SpatialData, shapes_key: str, key: str) -> AnnData:
    """The rows of a table that annotate an element."""
    from spatialdata import join_spatialelement_table

    how = {"spatial_element_names": shapes_key, "table_name": key, "how": "left", "match_rows": "left"}
    return join_spatialelement_table(sdata=sdata, **how)[1]


def layer_of(sdata: SpatialData, shapes_key: str, key: str, coordinate_system: str, name: str) -> Points:
    """All rows of an element as points in their true size, placed as napari-spatialdata places circles."""
    from napari.layers import Points

    shapes = read.outlines(sdata, shapes_key)
    element = sdata.shapes[shapes_key] if shapes_key in sdata.shapes else sdata.labels[shapes_key]
    matrix = read.affine(element, coordinate_system)
    grown = float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))  # sizes of points are in the coordinates of the window
    return Points(
        read.centers(shapes, shapes_key)[:, ::-1],
        name=name,
        size=read.sizes(shapes) * grown,
        affine=_SWAP @ matrix @ _SWAP,
        border_width=0,
        antialiasing=0.5,
        metadata=metadata_of(sdata, shapes_key, key, coordinate_system, shapes.index.tolist()),
    )


def tell_tables(viewer: Viewer, sdata: SpatialData) -> None:
    """Let layers of an object know the tables that it has by now, so that the View widget lists them."""
    from spatialdata import get_element_annotators

    for layer in viewer.layers:
        name = layer.metadata.get("name")
        if layer.metadata.get("sdata") is sdata and name in (*sdata.shapes, *sdata.labels):
            layer.metadata["table_names"] = sorted(get_element_annotators(sdata, name)) or None
