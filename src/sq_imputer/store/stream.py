"""Tables whose matrices are too large for memory: written to the store as they are made, and read from there later.

The arrays come row block by row block into a folder beside the store, what else a table has after them, and the whole
is put in by one commit, as any other result.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.store import commit as stores
from sq_imputer.store import write as writer
from sq_imputer.store.disk import flush
from sq_imputer.store.parts import apply, parts_of, stored_parts, write_parts
from sq_imputer.store.rows import Filler, create_matrix

if TYPE_CHECKING:
    import pandas as pd
    import zarr
    from anndata import AnnData
    from spatialdata import SpatialData


class Sheet:
    """Arrays of a table that is being written.

    Parameters
    ----------
    group
        Of the table, where it is completed.
    scratch
        A folder for what is needed meanwhile; it goes away with the writing.
    n
        Rows of the table.
    """

    def __init__(self, group: zarr.Group, scratch: Path, n: int) -> None:
        self.group, self.scratch, self.n = group, scratch, n
        self.names: list[str] = []
        self._fillers: dict[str, Filler] = {}

    def put(self, path: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Write some rows of the array "layers/stem", or of another; all of them are of one shape and type."""
        if path not in self._fillers:
            self._fillers[path] = Filler(self._made(path, values.shape[1:], values.dtype))
        self._fillers[path].add(rows, values)

    def blank(self, path: str, width: tuple[int, ...], dtype, value: float) -> None:
        """Say that rows of an array that are never put are `value`, before any is; they take no room."""
        self._fillers[path] = Filler(self._made(path, width, dtype, value))

    def link(self, path: str, other: str) -> None:
        """An array that is the same as another, by links to its files: it takes no room."""
        self.close()
        root = Path(self.group.store.root, self.group.path)
        flush(root / other)  # what has two names is not flushed later
        for folder, _, files in os.walk(root / other):
            target = root / path / Path(folder).relative_to(root / other)
            target.mkdir(parents=True, exist_ok=True)
            for file in files:
                os.link(Path(folder, file), target / file)
        self.names.append(path)

    def close(self) -> None:
        """Write what still waits for its chunk."""
        for filler in self._fillers.values():
            filler.close()

    def _made(self, path: str, width: tuple[int, ...], dtype, blank=None) -> zarr.Array:
        from anndata.io import write_elem

        slot = path.partition("/")[0]
        if slot != path and slot not in self.group:
            write_elem(self.group, slot, {})
        self.names.append(path)
        if path in self.group:
            del self.group[path]
        return create_matrix(self.group, path, (self.n, *width), dtype, blank)


Fill = Callable[[Sheet], Mapping]


def stream_into(sdata: SpatialData, key: str, fill: Fill, *, x: str, nbytes: int = 0) -> None:
    """Add arrays to a table of a backed object while they are made; in memory they are lazy afterwards.

    Parameters
    ----------
    sdata, key
        The object, and the name of its table, which is in the store.
    fill
        Puts arrays into a sheet; returns what else there is, as :func:`sq_imputer.store.write.put_layers` takes it:
        `obs`, `var`, `uns`.
    x
        The layer that `X` is the same as.
    nbytes
        What it may take.

    Raises
    ------
    StoreError
        If the store cannot be written. What was made is lost then: it was not in memory.
    """
    table, added = sdata.tables[key], {}

    def write(group: zarr.Group) -> list[str]:
        sheet = Sheet(group, _scratch(group), table.n_obs)
        found = fill(sheet)
        sheet.link("X", f"layers/{x}")
        known = {name: found.get(name) for name in ("obs", "var", "uns")}
        parts = parts_of(table, {}, obsm=None, x=None, **known)
        added.update(parts)
        return [*sheet.names, *write_parts(group, stored_parts(table, parts, *known.values()))]

    before = {f"{slot}/{name}" for slot in ("layers", "obsm") for name in getattr(table, slot)}
    writer.commit_parts(sdata, key, write, nbytes)
    lazy = open_lazily(Path(sdata.path) / "tables" / key)
    arrays = {f"{slot}/{name}": v for slot in ("layers", "obsm") for name, v in getattr(lazy, slot).items()}
    is_new = {path for path in arrays if path not in before or path.endswith(f"/{x}") or f"/{x}_" in path}
    apply(table, {**added, **{path: arrays[path] for path in is_new}, "X": lazy.X})


def stream_new(sdata: SpatialData, key: str, table: AnnData, fill: Fill, *, x: str, overwrite: bool, nbytes=0) -> None:
    """Write a new table of a backed object while its arrays are made; in memory it is lazy afterwards.

    `table` has rows and columns, and names its shapes, but has no arrays; the rest as :func:`stream_into`.
    """
    from spatialdata import SpatialData

    rows = []

    def make(folder: Path) -> None:
        SpatialData(tables={key: table}).write(folder, update_sdata_path=False, consolidate_metadata=False)
        rows.append(_completed(folder / "tables" / key, table, fill, x))

    writer.commit_whole(sdata, "tables", key, make, replaces=overwrite, nbytes=nbytes)
    writer.assign(sdata, "tables", key, _written(Path(sdata.path) / "tables" / key, rows.pop()))


def stream_elsewhere(sdata: SpatialData, key: str, path: Path, new: SpatialData, fill: Fill, *, x: str) -> None:
    """Write a new store of an object whose table `key` has no arrays yet; in memory `sdata` gets that table, lazy."""
    rows = []

    def make(folder: Path) -> None:
        new.write(folder, update_sdata_path=False)
        rows.append(_completed(folder / "tables" / key, new.tables[key], fill, x))
        stores.consolidate(folder)

    path = writer.check_new(path)
    with writer.writing(new.shapes.values()):
        stores.create(path, make)
    writer.assign(sdata, "tables", key, _written(path / "tables" / key, rows.pop()))


def open_lazily(path: Path) -> AnnData:
    """A stored table whose matrices stay where they are, as dask arrays; `obs`, `var` and `uns` are read."""
    import zarr
    from anndata import AnnData
    from anndata.experimental import read_lazy
    from anndata.io import read_elem

    group = zarr.open_group(path, mode="r")
    with warnings.catch_warnings():  # the listing of metadata is that of the store, which this is a part of
        warnings.filterwarnings("ignore", message="Did not read zarr as consolidated")
        lazy = read_lazy(path)
    heads = {name: read_elem(group[name]) for name in ("obs", "var", "uns") if name in group}
    return AnnData(X=lazy.X, layers=dict(lazy.layers), obsm=dict(lazy.obsm), **heads)


def _written(path: Path, obs: pd.DataFrame) -> AnnData:
    """A table that was written a moment ago, as `open_lazily` has it.

    Its rows are not read again: the names of a million take as much memory as all that predicting them holds.
    """
    import dask.array as da
    import zarr
    from anndata import AnnData
    from anndata.io import read_elem

    group = zarr.open_group(path, mode="r")
    arrays = {
        slot: {name: da.from_zarr(array) for name, array in group[slot].arrays()}
        for slot in ("layers", "obsm")
        if slot in group
    }
    return AnnData(
        X=da.from_zarr(group["X"]), obs=obs, var=read_elem(group["var"]), uns=read_elem(group["uns"]), **arrays
    )


def _completed(folder: Path, table: AnnData, fill: Fill, x: str) -> pd.DataFrame:
    """A stored table without arrays gets them, and what is known after them: of its rows that is returned."""
    import zarr
    from anndata.io import write_elem

    group = zarr.open_group(folder, mode="r+")
    sheet = Sheet(group, _scratch(group), table.n_obs)
    found = fill(sheet)
    if "X" in group:  # AnnData writes that there is none
        del group["X"]
    sheet.link("X", f"layers/{x}")
    known = {name: found.get(name) for name in ("obs", "var", "uns")}
    parts = parts_of(table, {}, obsm=None, x=None, **known)
    for part, value in parts.items():
        slot, _, name = part.rpartition("/")
        write_elem(group[slot] if slot else group, name, value)
    return parts.get("obs", table.obs)


def _scratch(group: zarr.Group) -> Path:
    """A folder beside what is staged, which goes away with it."""
    scratch = stores.staging_of(Path(group.store.root, group.path)) / "scratch"
    scratch.mkdir(exist_ok=True)
    return scratch
