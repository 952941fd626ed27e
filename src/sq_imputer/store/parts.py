"""Tables: a new one, and results that are added to one, part by part, in memory and among its files in a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.store.provenance import plain
from sq_imputer.store.rows import create_matrix

if TYPE_CHECKING:
    import zarr
    from anndata import AnnData
    from pandas import DataFrame


def new_table(
    x: np.ndarray | None,
    obs_names: Sequence[str],
    genes: Sequence[str],
    *,
    region: str | Sequence[str],
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
        Name of the element, or `(n,)` those of every row.
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
    apply(table, parts_of(table, layers or {}, obs, var, obsm, uns, None))
    regions = [region] * table.n_obs if isinstance(region, str) else list(region)
    table.obs[region_key] = pd.Categorical(regions)
    table.obs[instance_key] = np.asarray(instances)
    region = region if isinstance(region, str) else list(dict.fromkeys(regions))
    return TableModel.parse(table, region=region, region_key=region_key, instance_key=instance_key)


def parts_of(table: AnnData, layers, obs, var, obsm, uns, x, varm=None) -> dict:
    """What changes in the table, by path: "layers/stem", "obs", "uns/sq_imputer", "X". Changes nothing."""
    parts = {}
    for name, values in layers.items():
        if np.shape(values) != table.shape:
            raise BadInput(f"layer '{name}' has shape {np.shape(values)}; the table is {table.shape} (rows, genes).")
        parts[f"layers/{name}"] = np.ascontiguousarray(values, dtype="float32")
    for slot, given, n in (("obsm", obsm, table.n_obs), ("varm", varm, table.n_vars)):
        for name, values in (given or {}).items():
            if len(values) != n:
                raise BadInput(f"{slot} '{name}' has {len(values)} rows; the table has {n}.")
            parts[f"{slot}/{name}"] = np.ascontiguousarray(values)
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


def with_parts(table: AnnData, layers, *, obs=None, var=None, obsm=None, uns=None, x=None) -> AnnData:
    """A copy of a table with results added, as `write.put_layers` takes them."""
    whole = table.copy()
    apply(whole, parts_of(whole, layers, obs, var, obsm, uns, x))
    return whole


def apply(table: AnnData, parts: dict) -> None:
    """Change a table in memory."""
    for path, value in parts.items():
        slot, _, name = path.partition("/")
        if name:
            getattr(table, slot)[name] = value
        else:
            setattr(table, slot, value)


def stored_parts(table: AnnData, parts: dict, obs: DataFrame | None, var: DataFrame | None, uns) -> dict:
    """The same changes as small as the store allows: what others have written beside them is not known here."""
    small = {}
    for path, value in parts.items():
        slot, _, name = path.partition("/")
        added = {"obs": obs, "var": var}.get(path)
        if added is not None:
            small[path] = value[list(added)]
        elif slot == "uns" and isinstance(table.uns.get(name), Mapping) and isinstance(value, Mapping):
            small |= {f"{path}/{item}": value[item] for item in plain(uns)[name]}
        else:
            small[path] = value
    return small


def write_parts(group: zarr.Group, parts: dict) -> list[str]:
    """Write parts below the group of a table. Their paths; what else there is only holds them."""
    from anndata.io import write_elem

    names = []
    for path, value in parts.items():
        slot, _, name = path.rpartition("/")
        if slot:
            _make_dicts(group, slot)
        if path == "X" or slot == "layers":
            create_matrix(group, path, value.shape, value.dtype)[...] = value
        elif path in ("obs", "var"):
            write_elem(group, path, value.rename_axis(index=None))
            del group[f"{path}/_index"]  # the store has it
        else:
            write_elem(group[slot], name, value)
        names += [f"{path}/{column}" for column in value] if path in ("obs", "var") else [path]
    return names


def _make_dicts(group: zarr.Group, path: str) -> None:
    """The group at a path, with those above it, as AnnData stores dicts."""
    from anndata.io import write_elem

    for name in path.split("/"):
        if name not in group:
            write_elem(group, name, {})
        group = group[name]


def list_columns(table: Path, names: Iterable[str]) -> None:
    """Tell the obs and var of a stored table of the columns among some parts that were put there."""
    import zarr

    for axis in ("obs", "var"):
        columns = [name.removeprefix(f"{axis}/") for name in names if name.startswith(f"{axis}/")]
        if columns:
            attributes = zarr.open_group(table / axis, mode="r+").attrs
            attributes["column-order"] = list(dict.fromkeys([*attributes["column-order"], *columns]))


def check_stored_names(path: Path, table: AnnData, key: str) -> None:
    """Check that the rows and columns of a table are those of its copy in the store."""
    import zarr
    from anndata.io import read_elem

    group = zarr.open_group(path, mode="r")
    for axis, names in {"obs": table.obs_names, "var": table.var_names}.items():
        stored = read_elem(group[f"{axis}/{group[axis].attrs['_index']}"])
        if list(stored) != list(names):
            raise BadInput(
                f"table '{key}' has other {axis}_names ({len(names)}) than its copy in the store ({len(stored)}). "
                "Pass another key_added, or read the store again."
            )


def nbytes_of(values: Iterable) -> int:
    """Memory of elements or parts of them: an upper bound, nearly, of what they take on a disk."""
    total = 0
    for value in values:
        if hasattr(value, "obsm"):  # AnnData
            layers = [value.layers[name] for name in value.layers if name is not None]  # None is X
            total += nbytes_of([value.X, value.obs, value.var, *layers, *value.obsm.values()])
        elif hasattr(value, "memory_usage"):  # a frame, perhaps of shapes
            corners = value.geometry.count_coordinates().sum() if hasattr(value, "geom_type") else 0
            total += int(value.memory_usage().sum()) + 16 * int(corners)
        elif hasattr(value, "indptr"):
            total += value.data.nbytes + value.indices.nbytes + value.indptr.nbytes
        else:  # arrays and images
            total += int(getattr(value, "nbytes", 0))
    return total
