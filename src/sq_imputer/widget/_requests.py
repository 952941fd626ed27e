"""What a person chose in the window, and a prediction made of it that is written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.frame import Frame
    from sq_imputer.widget._lattice import Region

KEY = "imputed"
MOST_GRID = 200_000  # points of a grid in a drawn region
COVER = 1.05  # circles of a grid touch


@dataclass(frozen=True)
class Request:
    """A prediction as it is asked for.

    Parameters
    ----------
    model
        Name, folder, or fitted predictor.
    genes
        Names, or how many; None for what `tl.predict` takes.
    shapes_key
        Shapes to predict; of a drawn region the name of its new grid.
    region
        A drawn region (:func:`sq_imputer.widget._lattice.region_of`), whose points are predicted.
    reference
        Sections to fit on.
    key_added, layer_added
        Names of the table and the layer.
    overwrite
        Replace a layer, or a table, of these names.
    device, seed
        Where to run, and of all that is random.
    further
        Other arguments of :func:`sq_imputer.tl.predict`.
    """

    model: Any
    genes: Sequence[str] | int | None = None
    shapes_key: str | None = None
    region: Region | None = None
    reference: Sequence[SpatialData] = ()
    key_added: str = KEY
    layer_added: str | None = None
    overwrite: bool = False
    device: str = "auto"
    seed: int = 0
    further: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict:
        """Of :func:`sq_imputer.tl.predict`, beside the object and the model."""
        return {
            "genes": self.genes,
            "shapes_key": self.shapes_key,
            "reference": list(self.reference) or None,
            "key_added": self.key_added,
            "layer_added": self.layer_added,
            "overwrite": self.overwrite,
            "device": self.device,
            "seed": self.seed,
            **self.further,
        }


def carry_out(sdata: SpatialData, request: Request, frame: Frame, keys: Mapping[str, Any]) -> None:
    """Predict what was asked for, and write it; `keys` say which image and table of the object are meant.

    A grid in a drawn region is predicted in a copy of the object's list of elements first: an error, or a cancelled
    call, leaves neither grid nor table behind.

    Raises
    ------
    BadInput, MissingKey, StoreError, OutOfMemory
        As :func:`sq_imputer.tl.predict`; or the name of the grid is taken. Nothing has been written then.
    Cancelled
        If it was ended from outside.
    """
    from sq_imputer.tl import predict

    if request.region is None:
        predict(sdata, request.model, **{**keys, **request.arguments})
        return
    from sq_imputer.store import write

    name, key = request.shapes_key, request.key_added
    if not name:
        raise BadInput("a drawn region becomes a grid of circles, which needs a name. Give it one.")
    for kind, one in (("shapes", name), ("tables", key)):
        write.check_free(sdata, kind, one, request.overwrite)
    circles = grid_of(sdata, request.region, keys["image_key"], frame)
    staged = with_shapes(sdata, name, circles, without=key)
    predict(staged, request.model, **{**keys, **request.arguments})
    write.write_element(sdata, "shapes", name, circles, overwrite=request.overwrite)
    write.write_element(sdata, "tables", key, staged.tables[key], overwrite=request.overwrite)


def grid_of(sdata: SpatialData, region: Region, image_key: str, frame: Frame):
    """Circles at the points of a region, with the transformations of the image."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    on = frame.holds(region.xy_um)
    if not on.any():
        raise BadInput(f"the region lies outside image '{image_key}'. Draw one on the image.")
    place = get_transformation(sdata.images[image_key], get_all=True)
    radius = COVER * region.spacing_um / 2 / frame.pixel.mpp
    px = frame.to_px(region.xy_um[on])
    return ShapesModel.parse(px, geometry=0, radius=np.full(len(px), radius), transformations=place)


def with_shapes(sdata: SpatialData, name: str, shapes, without: str | None = None) -> SpatialData:
    """An object in memory of the same elements, and new shapes; without one table."""
    from spatialdata import SpatialData

    tables = {key: table for key, table in sdata.tables.items() if key != without}
    kinds = {kind: dict(getattr(sdata, kind)) for kind in ("images", "labels", "points", "shapes")}
    kinds["shapes"][name] = shapes
    return SpatialData(**kinds, tables=tables, attrs=dict(sdata.attrs))
