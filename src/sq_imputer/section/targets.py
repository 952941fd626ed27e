"""Targets other than genes: a column, a matrix or another table becomes numbers with names, a row for every shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.section import read
from sq_imputer.target import CLASSES, COMPOSITION, NUMBERS, UNITS, Target

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import Index, Series
    from spatialdata import SpatialData

ROUNDED = 0.01  # by which the sum of proportions may differ from 1


def read_labels(
    sdata: SpatialData, target: Target, ids: Index, keys: dict[str, str], among: np.ndarray | None
) -> tuple[Target, np.ndarray | None]:
    """What is measured of a target at the rows of a section.

    Parameters
    ----------
    sdata
        The object.
    target
        What is asked for.
    ids
        `(n,)` ids of the rows in their element.
    keys
        Where the section is.
    among
        Rows of the table that belong to the section, if a column says which.

    Returns
    -------
    The target with kind, names and unit, and `(n, names)` float32, NaN in rows without a value; None where the object
    does not have it, as of a section that is only predicted.

    Raises
    ------
    BadInput
        If it is not what its kind says.
    """
    table_key = target.name if target.slot == "table" else keys["table_key"]
    if keys["shapes_key"] not in read.annotated(sdata, table_key):
        return target, None
    table = sdata.tables[table_key]
    rows, where = read.rows_of(table, ids, keys["shapes_key"], table_key, None if target.slot == "table" else among)
    found = {"obs": _column, "obsm": _matrix, "table": _table}[target.slot](table, rows, target)
    if found is None:
        return target, None
    target, values = found
    whole = np.full((len(ids), len(target.names)), np.nan, dtype=np.float32)
    whole[where] = values
    if target.kind == COMPOSITION:
        _check_composition(whole, target)
    return replace(target, unit=target.unit or UNITS[target.kind]), whole


def columns_of(names: Sequence[str], target: Target, values: np.ndarray | None, where: str) -> np.ndarray:
    """Values `(n, len(names))` of some columns; a class or part that a section lacks is 0 there.

    Where a row has something of a class or a part that is not named, what is named does not sum to 1, and the row
    counts as not measured.
    """
    if values is None:
        raise MissingKey(f"{where} has no {described(target)}, which a model is to be fitted on. Pass target=.")
    known = {name: column for column, name in enumerate(target.names)}
    lost = [name for name in names if name not in known]
    if target.link == "identity" and (lost or len(set(names)) < len(names)):
        raise MissingKey(
            f"{listed(lost or names)} not in {described(target)} of {where}, each once; it has {listed(target.names)}. "
            "Pass genes= names of its columns, or none for all."
        )
    found = np.zeros((len(values), len(names)), dtype=np.float32)
    for column, name in enumerate(names):
        if name in known:
            found[:, column] = values[:, known[name]]
    whole = np.isfinite(values).all(axis=1)
    if target.link == "softmax":
        whole &= np.abs(np.nansum(found, axis=1) - 1) <= ROUNDED
    found[~whole] = np.nan
    return found


def described(target: Target) -> str:
    """A target in words."""
    return f"tables['{target.name}']" if target.slot == "table" else f"{target.slot}['{target.name}']"


def there(sdata: SpatialData, target: Target, table_key: str | None) -> str:
    """What an object has in the place of a target, for messages."""
    if target.slot == "table":
        return f"tables {listed(sdata.tables)}"
    table = sdata.tables.get(table_key) if table_key else None
    return "no such table" if table is None else f"{target.slot} {listed(getattr(table, target.slot), 20)}"


def _column(table: AnnData, rows: np.ndarray, target: Target) -> tuple[Target, np.ndarray] | None:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    if target.name not in table.obs:
        return None
    column = table.obs[target.name].iloc[rows]
    if target.kind == COMPOSITION:
        raise BadInput(f"obs['{target.name}'] is one column, and no composition; pass 'obsm:NAME' with its parts.")
    numbers = is_numeric_dtype(column) and not is_bool_dtype(column)
    if numbers and target.kind != CLASSES:
        values = column.to_numpy(dtype=np.float32, na_value=np.nan)[:, None]
        return replace(target, kind=NUMBERS, names=(target.name,)), np.where(np.isfinite(values), values, np.nan)
    if target.kind == NUMBERS:
        raise BadInput(f"obs['{target.name}'] holds {column.dtype}, and no numbers. Leave out kind=, or make it one.")
    names, codes = _classes(column)
    values = np.full((len(codes), len(names)), np.nan, dtype=np.float32)
    known = codes >= 0
    values[known] = np.eye(len(names), dtype=np.float32)[codes[known]]
    return replace(target, kind=CLASSES, names=names), values


def _classes(column: Series) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes that a section has, and the number of that of every row; -1 where there is none."""
    import pandas as pd

    text = column.astype("category")
    text = text.cat.remove_unused_categories()
    names = [str(name) for name in text.cat.categories]
    codes = text.cat.codes.to_numpy().astype(np.int64)
    kept = [number for number, name in enumerate(names) if name.strip()]  # an empty text is no class
    place = np.full(len(names) + 1, -1)
    place[kept] = np.arange(len(kept))
    unique = pd.unique(np.array([names[number] for number in kept], dtype=object))
    if len(unique) < len(kept):
        raise BadInput(f"obs['{column.name}'] has classes of one name: {listed(names)}. Rename them.")
    return tuple(unique), place[codes]


def _matrix(table: AnnData, rows: np.ndarray, target: Target) -> tuple[Target, np.ndarray] | None:
    if target.name not in table.obsm:
        return None
    if target.kind == CLASSES:
        raise BadInput(f"obsm['{target.name}'] is a matrix, and classes are one column: pass 'obs:NAME'.")
    found = table.obsm[target.name]
    if hasattr(found, "columns"):
        names, values = tuple(map(str, found.columns)), found.iloc[rows].to_numpy(dtype=np.float32)
    else:
        values = np.asarray(found[rows].toarray() if hasattr(found, "toarray") else found[rows], dtype=np.float32)
        names = tuple(f"{target.name}_{column}" for column in range(values.shape[1]))
    return _named(target, names, values)


def _table(table: AnnData, rows: np.ndarray, target: Target) -> tuple[Target, np.ndarray] | None:
    if target.kind == CLASSES:
        raise BadInput(f"tables['{target.name}'] is a matrix, and classes are one column: pass 'obs:NAME'.")
    if not target.unit and target.kind != COMPOSITION:
        raise BadInput(f"the unit of tables['{target.name}'] is not known. Pass unit=, such as unit='log1p counts'.")
    if table.X is None or not table.n_vars:
        raise BadInput(f"tables['{target.name}'] has no X; expected numbers of rows x names.")
    values = table.X[rows]
    for way in ("compute", "toarray"):
        values = getattr(values, way)() if hasattr(values, way) else values
    return _named(target, tuple(map(str, table.var_names)), np.asarray(values, dtype=np.float32))


def _named(target: Target, names: tuple[str, ...], values: np.ndarray) -> tuple[Target, np.ndarray]:
    if len(set(names)) < len(names) or not names:
        raise BadInput(f"{described(target)} has names {listed(names)}; expected some, each once.")
    values = np.where(np.isfinite(values), values, np.nan)
    return replace(target, kind=target.kind or NUMBERS, names=names), values


def _check_composition(values: np.ndarray, target: Target) -> None:
    rows = values[np.isfinite(values).all(axis=1)]
    sums = rows.sum(axis=1)
    if (rows < 0).any() or (np.abs(sums - 1) > ROUNDED).any():
        low, high, least = sums.min(), sums.max(), rows.min()
        raise BadInput(
            f"{described(target)} is no composition: values go down to {least:.3g}, and rows sum to {low:.3g} to "
            f"{high:.3g}; expected proportions, not negative, of sum 1. Divide rows by their sums, or pass "
            "kind='numbers'."
        )
