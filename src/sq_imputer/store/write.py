"""The only writer into SpatialData: results go into memory and, on a backed object, to its store at once.

Every write to disk is one commit of `store/commit.py`: an error, Ctrl-C or a kill leaves the store as it was or with
all of the new element. If only the disk is at fault, the result is kept in memory. Nothing but the named element is
ever touched, and images are never rewritten for the sake of a table.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, StoreError, listed
from sq_imputer.store import commit as stores
from sq_imputer.store.disk import check_writable
from sq_imputer.store.parts import (
    apply,
    check_stored_names,
    list_columns,
    nbytes_of,
    parts_of,
    stored_parts,
    write_parts,
)
from sq_imputer.store.parts import new_table as new_table
from sq_imputer.store.rows import create_matrix, every_row, fill

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

Kind = Literal["tables", "shapes", "images", "labels"]


MOST_BYTES = 200  # of a name: file systems take 255, and slots have an ending


def is_word(name, *reserved: str) -> bool:
    """Whether an element, or what lies in one, can have this name."""
    right = isinstance(name, str) and re.fullmatch(r"(?!__)[\w.-]+", name) and len(name.encode()) <= MOST_BYTES
    return bool(right) and name not in (".", "..", *reserved)


def check_name(sdata: SpatialData, kind: Kind, key: str, overwrite: bool = False, argument: str = "key_added") -> None:
    """Check that a name, which a verb takes as `argument`, is one for an element, and not taken by another.

    Raises
    ------
    BadInput
        If it is not, or taken.
    """
    if isinstance(key, str) and len(key.encode()) > MOST_BYTES:
        found = f"the name '{key[:20]}...' has {len(key.encode())} bytes"
        raise BadInput(f"{found}; file systems need {MOST_BYTES} or fewer.")
    if not is_word(key):
        raise BadInput(
            f"{key!r} is not a name for an element: letters, digits, '_', '-' and '.' only, and no '__' in front. "
            f"Pass another {argument}."
        )
    for other_kind, other in _names(sdata):
        if other != key and other.lower() == key.lower():
            raise BadInput(f"'{key}' and the existing '{other}' differ in case only. Pass another {argument}.")
        if other == key and other_kind != kind:
            raise BadInput(f"'{key}' names one of the {other_kind} already. Pass another {argument}.")
    taken = sorted(name for name_kind, name in _names(sdata) if name_kind == kind)
    if key in taken and not overwrite:
        raise BadInput(
            f"'{key}' is taken; {kind} in use: {listed(taken, 10)}. "
            f"Pass overwrite=True to replace it, or another {argument}."
        )


def check_free(
    sdata: SpatialData, kind: Kind, key: str, overwrite: bool = False, nbytes: int = 0, argument: str = "key_added"
) -> None:
    """Check that an element can be written under a name, before anything is computed for it.

    `argument` is what the verb calls the name; `nbytes` is what it may need: more than is free on the disk of a
    backed object is refused.

    Raises
    ------
    BadInput
        If the name is not a valid element name or is taken, or the store is not one that is written to.
    StoreError
        If there is no permission to write into the store of a backed object, or no room.
    """
    check_name(sdata, kind, key, overwrite, argument)
    if sdata.is_backed():
        check_writable(_store(sdata), f"{kind}/{key}", nbytes)


def write_element(sdata: SpatialData, kind: Kind, key: str, element, *, overwrite: bool = False) -> None:
    """Put an element into the object and, if it is backed, into its store.

    An image written to a store is lazy afterwards: it reads from the store.

    Raises
    ------
    BadInput, StoreError
        See `check_free`. If the store cannot be written, the element is in the object nevertheless.
    """
    check_free(sdata, kind, key, overwrite)
    if sdata.is_backed():
        from spatialdata import read_zarr

        replaces = overwrite and (_store(sdata) / kind / key).is_dir()
        with kept(sdata, kind, key, lambda: assign(sdata, kind, key, element)):
            _write_whole(sdata, kind, key, element, replaces)
        if kind == "images":  # its graph may read the files that were just replaced
            element = read_zarr(_store(sdata), selection=("images",)).images[key]
    assign(sdata, kind, key, element)


def put_layers(
    sdata: SpatialData,
    key: str,
    layers: Mapping[str, np.ndarray],
    *,
    obs: DataFrame | None = None,
    var: DataFrame | None = None,
    obsm: Mapping[str, np.ndarray] | None = None,
    varm: Mapping[str, np.ndarray] | None = None,
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
    obsm, varm
        `(n, D)` and `(G, D)` matrices by name.
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
    StoreError
        If the store cannot be written. The results are in the object nevertheless.
    """
    table = _table(sdata, key)
    parts = parts_of(table, layers, obs, var, obsm, uns, x, varm)
    if sdata.is_backed():
        with kept(sdata, "tables", key, lambda: apply(table, parts)):
            if _is_stored(sdata, key):
                stored = stored_parts(table, parts, obs, var, uns)
                commit_parts(sdata, key, lambda group: write_parts(group, stored), nbytes_of(parts.values()))
            else:
                whole = table.copy()
                apply(whole, parts)
                _write_whole(sdata, "tables", key, whole, False)
    apply(table, parts)


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
    StoreError
        If the store cannot be written. What was streamed is lost then: it was not in memory.
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
    from anndata.io import write_elem

    def write(group: zarr.Group) -> list[str]:
        write_elem(group, "layers", {})
        fill(create_matrix(group, f"layers/{name}", table.shape, dtype), batches)
        return [f"layers/{name}"]

    commit_parts(sdata, key, write, table.n_obs * table.n_vars * np.dtype(dtype).itemsize)
    table.layers[name] = da.from_zarr(zarr.open_array(_store(sdata) / "tables" / key / "layers" / name, mode="r"))


def check_new(path: str | Path, nbytes: int = 0) -> Path:
    """Check that a new store can be made at a path, before anything is computed for it. The path in full.

    Raises
    ------
    BadInput
        If the path exists, or the folder it is in does not.
    StoreError
        If there is no permission to write there, or no room for `nbytes`.
    """
    path = Path(path).resolve()
    if path.exists():
        raise BadInput(f"'{path}' exists, and nothing is written over it. Pass another path.")
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder '{path.parent}' to hold '{path.name}'. Make it first.")
    check_writable(path, nbytes=nbytes)
    return path


def write_new(sdata: SpatialData, path: str | Path) -> None:
    """Write an object as a new store, all of it or nothing. The object itself stays where it was.

    Raises
    ------
    BadInput, StoreError
        See `check_new`.
    """
    path = check_new(path)
    nbytes = nbytes_of(element for _, _, element in sdata.gen_elements())
    with writing(sdata.shapes.values()):
        stores.create(path, lambda folder: sdata.write(folder, update_sdata_path=False), nbytes)


def _store(sdata: SpatialData) -> Path:
    store = Path(sdata.path).resolve()
    if not (store / "zarr.json").is_file():
        raise BadInput(
            f"'{store}' is not a local store of zarr format 3, the only kind that is written to. "
            "Save the object once with sdata.write('<new folder>.zarr') and go on with that."
        )
    return store


def _write_whole(sdata: SpatialData, kind: Kind, key: str, element, replaces: bool) -> None:
    """Commit a whole element."""
    from spatialdata import SpatialData

    def write(folder: Path) -> None:
        new = SpatialData(**{kind: {key: element}})
        new.write(folder, update_sdata_path=False, consolidate_metadata=False)

    with writing([element] if kind == "shapes" else ()):
        commit_whole(sdata, kind, key, write, replaces=replaces, nbytes=nbytes_of([element]))


def commit_whole(
    sdata: SpatialData, kind: Kind, key: str, write: Callable[[Path], None], *, replaces: bool, nbytes: int
) -> None:
    """Commit an element that `write` makes in a folder; one that another process has put there is not replaced."""
    store = _store(sdata)

    def check() -> None:
        if not replaces and (store / kind / key).exists():
            raise StoreError(f"another process has written {kind}['{key}'] to '{store}' meanwhile.")

    with writing():
        stores.commit(store, f"{kind}/{key}", write, check=check, nbytes=nbytes)


def commit_parts(sdata: SpatialData, key: str, write: Callable[[zarr.Group], Iterable[str]], nbytes: int) -> None:
    """Commit parts of a stored table; what others have added to it meanwhile stays."""
    import zarr

    store, path, table, names = _store(sdata), f"tables/{key}", sdata.tables[key], []

    def stage(folder: Path) -> list[str]:
        names.extend(write(zarr.open_group(folder / path, mode="w", zarr_format=3)))
        return names

    def check() -> None:
        try:
            check_stored_names(store / path, table, key)
        except (BadInput, FileNotFoundError) as error:
            raise StoreError(f"another process has replaced or removed tables['{key}'] of '{store}'.") from error

    check_stored_names(store / path, table, key)
    with writing():
        stores.commit(store, path, stage, check=check, finish=lambda folder: list_columns(folder, names), nbytes=nbytes)


@contextmanager
def kept(sdata: SpatialData, kind: Kind, key: str, keep: Callable[[], None]) -> Iterator[None]:
    """Keep a result in memory if the store cannot be written, and say where it is."""
    try:
        yield
    except StoreError as error:
        keep()
        raise StoreError(f"{error} The result is in memory, as sdata.{kind}['{key}'].") from error


@contextmanager
def writing(shapes: Iterable = ()) -> Iterator[None]:
    """Keep SpatialData from warning of what is in order, and from what an error of its own would leave behind.

    A table's shapes are in the store, not among what is staged, and anndata has a note on every array. The
    transformations of shapes are taken off while they are written, and an error would leave them off.
    """
    attributes = [(frame.attrs, dict(frame.attrs)) for frame in shapes]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The table is annotating|zarr v3 autosharding")
            yield
    finally:
        for attrs, kept in attributes:
            attrs.update(kept)


def _names(sdata: SpatialData) -> Iterator[tuple[str, str]]:
    for kind in stores.KINDS:
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


def assign(sdata: SpatialData, kind: Kind, key: str, element) -> None:
    """Put an element into the object in memory alone."""
    with warnings.catch_warnings():  # replacing was asked for
        warnings.filterwarnings("ignore", message=r".*already exists\. Overwriting", category=UserWarning)
        getattr(sdata, kind)[key] = element
