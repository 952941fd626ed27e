"""What is expressed of genes, one row a gene: a table of numbers, or what the rows of an AnnData have together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed, named
from sq_imputer.genes.positions import COLUMNS
from sq_imputer.genes.reference import IDS
from sq_imputer.genes.units import LOG1P_CP10K, to_unit

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

AS_GIVEN = "as given"


class Expressed(NamedTuple):
    """Genes and what is expressed of them.

    Parameters
    ----------
    names, ids
        `(n,)` names and, where the table has them, ids.
    about
        The table of the genes, which may have positions.
    contexts
        Names of the columns of `values`.
    values
        `(n, C)` float32, NaN where nothing was measured; None where nothing is asked for.
    unit
        Of the values.
    """

    names: list[str]
    ids: list[str]
    about: DataFrame
    contexts: tuple[str, ...]
    values: np.ndarray | None
    unit: str


def expressed(
    table: AnnData | DataFrame, target: str | Sequence[str] | None, layer: str | None, unit: str | None
) -> Expressed:
    """What a table says of its genes: the columns of a DataFrame, or what the rows of an AnnData have together.

    Counts of an AnnData are summed over its rows, or over those of each label of the column `target` of `obs`, and
    given as `log1p_cp10k` of the sum; other values are averaged.
    """
    found = _of_anndata(table, target, layer, unit) if hasattr(table, "var_names") else _of_frame(table, target, unit)
    twice = sorted({name for name in found.names if found.names.count(name) > 1}) if _repeats(found.names) else []
    if twice:
        raise BadInput(f"the table has genes twice: {listed(twice)}; expected each once. Call var_names_make_unique().")
    return found


def _repeats(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def _of_frame(table: DataFrame, target: str | Sequence[str] | None, unit: str | None) -> Expressed:
    if not hasattr(table, "select_dtypes"):
        raise BadInput(
            f"table is a {type(table).__name__}; expected a DataFrame whose index names genes, or an AnnData."
        )
    numbers = [column for column in table.select_dtypes("number") if column not in COLUMNS]
    columns = numbers if target is None else named("target", target)
    missing = [column for column in columns if column not in table]
    if missing or (target is None and not columns):
        told = f"no column {listed(missing)} to predict; the table has {listed(table)}"
        raise MissingKey(f"{told}. Pass target=, or target=() for windows alone.")
    values = table[columns].to_numpy(dtype=np.float32) if columns else None
    return Expressed([str(name) for name in table.index], [], table, tuple(map(str, columns)), values, unit or AS_GIVEN)


def _of_anndata(table: AnnData, target, layer: str | None, unit: str | None) -> Expressed:
    from scipy.sparse import csr_matrix

    if layer is not None and layer not in table.layers:
        raise MissingKey(f"no layer '{layer}'; the AnnData has {listed(table.layers)}. Pass layer=, or None for X.")
    if target is not None and target not in table.obs:
        told = f"no '{target}' in obs; it has {listed(table.obs)}"
        raise MissingKey(f"{told}. Pass target=, or None for all rows together.")
    values = table.X if layer is None else table.layers[layer]
    if values is None:
        raise MissingKey(f"the AnnData has no X; its layers are {listed(table.layers)}. Pass layer=.")
    values = csr_matrix(values).astype(np.float64)
    if not np.isfinite(values.data).all():
        raise BadInput("the AnnData holds NaN or infinite values; drop or fill them first.")
    labels = np.full(table.n_obs, "expression") if target is None else table.obs[target].astype(object).to_numpy()
    rows = np.flatnonzero([label == label and label is not None for label in labels])  # NaN is no label
    contexts, number = np.unique(labels[rows].astype(str), return_inverse=True)
    belongs = csr_matrix((np.ones(len(rows)), (number, rows)), shape=(len(contexts), table.n_obs))
    sums = belongs @ values
    if _counts(values.data):
        depth = np.asarray(sums.sum(axis=1)).ravel()
        found, said = to_unit(sums, depth, LOG1P_CP10K), LOG1P_CP10K
    else:
        found, said = (sums.toarray() / np.bincount(number)[:, None]).astype(np.float32), f"mean of {layer or 'X'}"
    ids = [str(one) for one in table.var[IDS]] if IDS in table.var else []
    names = [str(name) for name in table.var_names]
    return Expressed(names, ids, table.var, tuple(map(str, contexts)), found.T, unit or said)


def _counts(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (values == np.round(values)).all())


def matrix_of(values, n: int, what: str) -> np.ndarray:
    """Numbers `(n, columns)` float32; one column may come as `(n,)`."""
    try:
        found = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{what} is not made of numbers: {error}") from error
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != n or np.isinf(found).any():
        raise BadInput(f"{what} is {found.shape} of {n} windows, or infinite somewhere; expected one row per window.")
    return found


def numbers_of(extra: DataFrame | None, names: list[str]) -> np.ndarray | None:
    """Further numbers of genes, in their order."""
    if extra is None:
        return None
    if not hasattr(extra, "reindex"):
        raise BadInput(f"extra is a {type(extra).__name__}; expected a table whose index names the genes.")
    missing = [name for name in names if name not in extra.index]
    if missing:
        raise BadInput(f"extra lacks {len(missing)} of {len(names)} genes: {listed(missing)}. Add or leave them out.")
    return extra.loc[names].to_numpy(dtype=np.float32)
