"""Named elements of a store, without the others: what a section needs of a store that is too large to be opened."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, listed
from sq_imputer.section.read import regions_of
from sq_imputer.store.commit import KINDS
from sq_imputer.store.stream import open_lazily
from sq_imputer.untrusted import check_store

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

ROWS = 50_000  # of shapes, decoded at a time
LAZY = ("images", "labels", "points")  # kinds whose values stay in the store


def open_for(path: str | Path, keys: Mapping, sections=None) -> SpatialData:
    """What a verb may need of a store: images, labels and tables lazily, and of the shapes those that it names.

    Beside these the shapes that a table annotates, but not those of predictions where shapes are named: a million cells
    that were predicted earlier would be read in vain. With `sections`, or without tables, all of them.
    """
    check_store(path)
    path = Path(path).resolve()
    there = {kind: [p.name for p in sorted((path / kind).glob("*")) if p.is_dir()] for kind in KINDS}
    asked = keys.get("shapes_key")
    named = {asked}
    for table in there["tables"]:
        known = _uns_of(path / "tables" / table)
        predicted = set(known.get("sq_imputer", {})) - {"embeddings"}
        if not (asked and predicted and table != keys.get("table_key")):
            named |= set(regions_of(known))
    every = sections is not None or named == {None}
    shapes = [name for name in there["shapes"] if every or name in named]
    return open_some(path, [*there["images"], *there["labels"], *shapes, *there["tables"]])


def open_some(path: Path, elements: Sequence[str]) -> SpatialData:
    """The named elements of a store: tables and images lazily, shapes as centers and sizes.

    Raises
    ------
    MissingKey
        If the store has no element of a name.
    """
    from spatialdata import SpatialData, read_zarr

    there = {p.name: kind for kind in KINDS if (path / kind).is_dir() for p in (path / kind).iterdir() if p.is_dir()}
    strange = [name for name in elements if name not in there]
    if strange:
        raise MissingKey(f"no element {listed(strange)} in '{path}'; it has {listed(there, 20)}.")
    wanted = {kind: [name for name in elements if there[name] == kind] for kind in KINDS}
    kinds = tuple(kind for kind in LAZY if wanted[kind])
    lazy = read_zarr(path, selection=kinds) if kinds else SpatialData()
    parts = {kind: {name: getattr(lazy, kind)[name] for name in wanted[kind]} for kind in kinds}
    parts["shapes"] = {name: circles(path / "shapes" / name) for name in wanted["shapes"]}
    parts["tables"] = {name: open_lazily(path / "tables" / name) for name in wanted["tables"]}
    sdata = SpatialData(**parts, attrs=lazy.attrs)
    sdata.path = path
    return sdata


def _uns_of(folder: Path) -> dict:
    import zarr
    from anndata.io import read_elem

    group = zarr.open_group(folder, mode="r")
    return read_elem(group["uns"]) if "uns" in group else {}


def circles(folder: Path) -> GeoDataFrame:
    """Stored shapes as circles, decoded some at a time.

    Circles are what they were; polygons become circles around their centers that are as wide as squares of their area.
    """
    import geopandas
    import pandas as pd
    import pyarrow.parquet as parquet
    import shapely

    file = parquet.ParquetFile(folder / "shapes.parquet")
    names = [name for name in (_index_of(file), "geometry", "radius") if name in file.schema_arrow.names]
    index, xy, radius = [], [], []
    for batch in file.iter_batches(ROWS, columns=names):
        frame = batch.to_pandas()
        shapes = shapely.from_wkb(frame["geometry"].to_numpy())
        middle = shapely.centroid(shapes)
        xy.append(np.column_stack([shapely.get_x(middle), shapely.get_y(middle)]))
        stored = frame["radius"].to_numpy() if "radius" in frame else np.sqrt(shapely.area(shapes)) / 2
        radius.append(stored)
        index.append(frame.index)
    points = geopandas.points_from_xy(*np.concatenate(xy).T)
    whole = index[0].append(index[1:])
    if isinstance(index[0], pd.RangeIndex):
        whole = pd.RangeIndex(len(points))
    found = geopandas.GeoDataFrame({"radius": np.concatenate(radius)}, geometry=points, index=whole)
    found.attrs["transform"] = _first(folder, file).attrs["transform"]
    return found


def _index_of(file) -> str:
    """The column that holds the ids, as pandas has noted it."""
    noted = json.loads((file.schema_arrow.metadata or {}).get(b"pandas", b"{}"))
    names = [name for name in noted.get("index_columns", []) if isinstance(name, str)]
    return names[0] if names else ""


def _first(folder: Path, file) -> GeoDataFrame:
    """The first shape, read by SpatialData, which knows how transformations are stored."""
    import pyarrow.parquet as parquet
    from spatialdata import read_zarr

    with tempfile.TemporaryDirectory() as name:
        root, store = Path(name) / "one.zarr", folder.parent.parent
        element = root / "shapes" / folder.name
        element.mkdir(parents=True)
        for part in ("", "shapes", f"shapes/{folder.name}"):
            known = json.loads((store / part / "zarr.json").read_text())
            known.pop("consolidated_metadata", None)  # it lists the others
            (root / part / "zarr.json").write_text(json.dumps(known))
        table = next(file.iter_batches(1))
        with parquet.ParquetWriter(element / "shapes.parquet", table.schema) as writer:
            writer.write_batch(table)
        return read_zarr(root, selection=("shapes",)).shapes[folder.name]
