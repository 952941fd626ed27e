"""The only writer into SpatialData: results go into memory and, on a backed object, to its store at once.

SpatialData writes elements in place: its `overwrite=True` is always refused on a backed store, and an interrupted write
leaves a name that can be neither written nor deleted. Here every write to disk goes through one function, `commit`: new
files are written beside the store and moved into place, so that an error leaves the store and the object as they were.
Nothing but the named element is ever touched, and images are never rewritten for the sake of a table.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sq_imputer.data.provenance import plain
from sq_imputer.data.rows import create_matrix, every_row, fill
from sq_imputer.errors import BadInput, MissingKey, listed

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

Kind = Literal["tables", "shapes", "images"]

_KINDS = ("images", "labels", "points", "shapes", "tables")


def check_free(sdata: SpatialData, kind: Kind, key: str, overwrite: bool = False) -> None:
    """Check that an element can be written under a name, before anything is computed for it.

    Raises
    ------
    BadInput
        If the name is not a valid element name, is taken, or the store of a backed object cannot be written.
    """
    if not isinstance(key, str) or not re.fullmatch(r"(?!__)[\w.-]+", key) or key in (".", ".."):
        raise BadInput(
            f"{key!r} is not a name for an element: letters, digits, '_', '-' and '.' only, and no '__' in front. "
            "Pass another key_added."
        )
    if len(key.encode()) > 200:
        raise BadInput(f"the name '{key[:20]}...' has {len(key.encode())} bytes; file systems need 200 or fewer.")
    for other_kind, other in _names(sdata):
        if other != key and other.lower() == key.lower():
            raise BadInput(f"'{key}' and the existing '{other}' differ in case only. Pass another key_added.")
        if other == key and other_kind != kind:
            raise BadInput(f"'{key}' names one of the {other_kind} already. Pass another key_added.")
    taken = sorted(name for name_kind, name in _names(sdata) if name_kind == kind)
    if key in taken and not overwrite:
        raise BadInput(
            f"'{key}' is taken; {kind} in use: {listed(taken, 10)}. "
            "Pass overwrite=True to replace it, or another key_added."
        )
    if sdata.is_backed():
        store = _store(sdata)
        if not (os.access(store, os.W_OK) and os.access(store.parent, os.W_OK)):
            raise BadInput(f"no permission to write to '{store}' and its folder; save the object elsewhere first.")


def write_element(sdata: SpatialData, kind: Kind, key: str, element, *, overwrite: bool = False) -> None:
    """Put an element into the object and, if it is backed, into its store.

    An image written to a store is lazy afterwards: it reads from the store.

    Raises
    ------
    BadInput
        See `check_free`.
    """
    check_free(sdata, kind, key, overwrite)
    if sdata.is_backed():
        from spatialdata import SpatialData, read_zarr

        def write(folder: Path) -> list[str]:
            SpatialData(**{kind: {key: element}}).write(folder, update_sdata_path=False)
            return [f"{kind}/{key}"]

        commit(sdata, write)
        if kind == "images":  # its graph may read the files that were just replaced
            element = read_zarr(_store(sdata), selection=("images",)).images[key]
    _assign(sdata, kind, key, element)


def put_layers(
    sdata: SpatialData,
    key: str,
    layers: Mapping[str, np.ndarray],
    *,
    obs: DataFrame | None = None,
    var: DataFrame | None = None,
    obsm: Mapping[str, np.ndarray] | None = None,
    uns: Mapping | None = None,
    x: str | None = None,
) -> None:
    """Add results to an existing table. On a backed object only what is new is written.

    Parameters
    ----------
    sdata
        Object whose `tables[key]` gets the results.
    key
        Name of the table.
    layers
        `(n, G)` matrices by name, stored as float32 in chunks of whole rows.
    obs, var
        Columns to add or replace, indexed like the table.
    obsm
        `(n, D)` matrices by name.
    uns
        Provenance, made storable by `plain`; of a dict of dicts the inner ones are replaced, the others stay.
    x
        Name of the layer that `X` becomes a copy of.

    Raises
    ------
    MissingKey
        If there is no such table or no layer `x`.
    BadInput
        If shapes or names do not match the table, or the table in memory is not the one in the store.
    """
    table = _table(sdata, key)
    parts = _parts(table, layers, obs, var, obsm, uns, x)
    if not sdata.is_backed():
        _apply(table, parts)
    elif not _is_stored(sdata, key):
        table = table.copy()
        _apply(table, parts)
        write_element(sdata, "tables", key, table, overwrite=True)
    else:
        _check_stored_names(sdata, key, table)
        commit(sdata, lambda folder: _write_parts(folder, key, parts))
        _apply(table, parts)


def stream_layer(
    sdata: SpatialData,
    key: str,
    name: str,
    batches: Iterable[tuple[np.ndarray | slice, np.ndarray]],
    dtype: str = "float32",
) -> None:
    """Write a layer of an existing table while it is being predicted.

    On a backed object the values go to the store chunk by chunk and memory stays flat; the layer in memory is then a
    lazy dask array. Otherwise the layer is gathered in memory.

    Parameters
    ----------
    sdata
        Object whose `tables[key]` gets the layer.
    key
        Name of the table.
    name
        Name of the layer.
    batches
        Pairs of row numbers and their `(B, G)` values; together they hold every row, in any order. Rows in order, or
        nearly so, cost one compression per chunk of 512 rows; shuffled rows cost more.
    dtype
        Type of the stored numbers.

    Raises
    ------
    MissingKey
        If there is no such table.
    BadInput
        If the batches leave rows out, or the table in memory is not the one in the store.
    """
    table = _table(sdata, key)
    batches = every_row(batches, table.n_obs)
    if not (sdata.is_backed() and _is_stored(sdata, key)):
        values = np.empty(table.shape, dtype)
        for rows, batch in batches:
            values[rows] = batch
        put_layers(sdata, key, {name: values})
        return

    import dask.array as da
    import zarr

    def write(folder: Path) -> list[str]:
        fill(create_matrix(_group(folder, key), f"layers/{name}", table.shape, dtype), batches)
        return [f"tables/{key}/layers/{name}"]

    _check_stored_names(sdata, key, table)
    commit(sdata, write)
    table.layers[name] = da.from_zarr(zarr.open_array(_store(sdata) / "tables" / key / "layers" / name, mode="r"))


def commit(sdata: SpatialData, write: Callable[[Path], Iterable[str]]) -> None:
    """Bring new files into the store of a backed object, or leave it as it was.

    Every write to a store goes through here.

    Parameters
    ----------
    sdata
        A backed object.
    write
        Called with a folder on the store's file system. It writes groups and arrays below that folder at the paths that
        they shall have in the store, and returns these paths, each of which replaces what the store has there.

    Raises
    ------
    BadInput
        If the store is not a local folder of zarr format 3.
    """
    store = _store(sdata)
    consolidated = sdata.has_consolidated_metadata()
    with tempfile.TemporaryDirectory(prefix=f".{store.name}.", dir=store.parent) as staging, ExitStack() as undo:
        new, old = Path(staging, "new"), Path(staging, "old")
        with warnings.catch_warnings():
            # a table's shapes are in the store, not among what is staged; and anndata has a note on every array
            warnings.filterwarnings("ignore", message="The table is annotating|zarr v3 autosharding")
            paths = list(map(Path, write(new)))
        for path in paths:
            while not (store / path).parent.exists():  # the first table of a store brings the group of tables along
                path = path.parent
            if (store / path).exists():
                _move(store / path, old / path)
                undo.callback(_move, old / path, store / path)
            _move(new / path, store / path)
            undo.callback(_move, store / path, new / path)
        if consolidated:
            sdata.write_consolidated_metadata()
        undo.pop_all()


def new_table(
    x: np.ndarray | None,
    obs_names: Sequence[str],
    genes: Sequence[str],
    *,
    region: str,
    instance_key: str,
    instances: Sequence,
    region_key: str = "region",
    obs: DataFrame | None = None,
    var: DataFrame | None = None,
    layers: Mapping[str, np.ndarray] | None = None,
    obsm: Mapping[str, np.ndarray] | None = None,
    uns: Mapping | None = None,
) -> AnnData:
    """A table that annotates shapes.

    Parameters
    ----------
    x
        `(n, G)` matrix, or None.
    obs_names, genes
        Names of the rows and columns.
    region
        Name of the shapes element.
    instance_key, instances
        Column of `obs` that holds the index of each row's shape, and these indices.
    region_key
        Column of `obs` that holds `region`.
    obs, var
        Further columns, indexed by `obs_names` and `genes`.
    layers, obsm, uns
        As in `put_layers`.

    Raises
    ------
    BadInput
        If lengths or names do not match.
    """
    import pandas as pd
    from anndata import AnnData
    from spatialdata.models import TableModel

    if not len(obs_names) == len(instances):
        raise BadInput(f"the table has {len(obs_names)} rows but {len(instances)} instances in '{region}'.")
    table = AnnData(
        X=None if x is None else np.asarray(x, dtype="float32"),
        obs=pd.DataFrame(index=pd.Index(obs_names, dtype=str)),
        var=pd.DataFrame(index=pd.Index(genes, dtype=str)),
    )
    _apply(table, _parts(table, layers or {}, obs, var, obsm, uns, None))
    table.obs[region_key] = pd.Categorical([region] * table.n_obs)
    table.obs[instance_key] = np.asarray(instances)
    return TableModel.parse(table, region=region, region_key=region_key, instance_key=instance_key)


def _store(sdata: SpatialData) -> Path:
    store = Path(sdata.path)
    if not (store / "zarr.json").is_file():
        raise BadInput(
            f"'{store}' is not a local store of zarr format 3, the only kind that is written to. "
            "Save the object once with sdata.write('<new folder>.zarr') and go on with that."
        )
    return store


def _names(sdata: SpatialData) -> Iterator[tuple[str, str]]:
    for kind in _KINDS:
        stored = []
        if sdata.is_backed() and (folder := _store(sdata) / kind).is_dir():
            stored = [path.name for path in folder.iterdir() if path.is_dir()]
        yield from ((kind, name) for name in {*getattr(sdata, kind), *stored})


def _table(sdata: SpatialData, key: str) -> AnnData:
    if key not in sdata.tables:
        raise MissingKey(f"no table '{key}'; the object has {listed(sdata.tables)}.")
    return sdata.tables[key]


def _is_stored(sdata: SpatialData, key: str) -> bool:
    return (_store(sdata) / "tables" / key).is_dir()


def _assign(sdata: SpatialData, kind: Kind, key: str, element) -> None:
    with warnings.catch_warnings():  # replacing was asked for
        warnings.filterwarnings("ignore", message=r".*already exists\. Overwriting", category=UserWarning)
        getattr(sdata, kind)[key] = element


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)


def _parts(table: AnnData, layers, obs, var, obsm, uns, x) -> dict:
    """What changes in the table, by path: "layers/stem", "obs", "uns/sq_imputer", "X". Changes nothing."""
    parts = {}
    for name, values in layers.items():
        if np.shape(values) != table.shape:
            raise BadInput(f"layer '{name}' has shape {np.shape(values)}; the table is {table.shape} (rows, genes).")
        parts[f"layers/{name}"] = np.ascontiguousarray(values, dtype="float32")
    for name, values in (obsm or {}).items():
        if len(values) != table.n_obs:
            raise BadInput(f"obsm '{name}' has {len(values)} rows; the table has {table.n_obs}.")
        parts[f"obsm/{name}"] = np.ascontiguousarray(values)
    for axis, frame in {"obs": obs, "var": var}.items():
        if frame is not None:
            old = getattr(table, axis)
            if not frame.index.equals(old.index):
                raise BadInput(
                    f"the columns for {axis} are not indexed by the table's {len(old)} {axis}_names, in order."
                )
            parts[axis] = old.assign(**{name: frame[name] for name in frame})
    for name, record in plain(uns or {}).items():
        old = table.uns.get(name)
        parts[f"uns/{name}"] = {**old, **record} if isinstance(old, Mapping) and isinstance(record, Mapping) else record
    if x is not None:
        if x not in layers and x not in table.layers:
            raise MissingKey(f"no layer '{x}' to become X.")
        parts["X"] = parts[f"layers/{x}"].copy() if x in layers else table.layers[x].copy()
    return parts


def _apply(table: AnnData, parts: dict) -> None:
    for path, value in parts.items():
        slot, _, name = path.partition("/")
        if name:
            getattr(table, slot)[name] = value
        else:
            setattr(table, slot, value)


def _write_parts(folder: Path, key: str, parts: dict) -> list[str]:
    from anndata.io import write_elem

    group = _group(folder, key)
    for path, value in parts.items():
        if path == "X" or path.startswith("layers/"):
            create_matrix(group, path, value.shape, value.dtype)[...] = value
        else:
            slot, _, name = path.rpartition("/")
            write_elem(group.require_group(slot) if slot else group, name, value)
    return [f"tables/{key}/{path}" for path in parts]


def _group(folder: Path, key: str) -> zarr.Group:
    import zarr

    return zarr.open_group(folder / "tables" / key, mode="w", zarr_format=3)


def _check_stored_names(sdata: SpatialData, key: str, table: AnnData) -> None:
    import zarr
    from anndata.io import read_elem

    group = zarr.open_group(_store(sdata) / "tables" / key, mode="r")
    for axis, names in {"obs": table.obs_names, "var": table.var_names}.items():
        stored = read_elem(group[f"{axis}/{group[axis].attrs['_index']}"])
        if list(stored) != list(names):
            raise BadInput(
                f"table '{key}' has other {axis}_names ({len(names)}) than its copy in the store ({len(stored)}). "
                "Pass another key_added, or read the store again."
            )
