"""Counts of a table, in memory, in a file or lazy, as sparse rows of a section."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.names import symbols_of

if TYPE_CHECKING:
    from anndata import AnnData


def read_counts(table: AnnData, rows: np.ndarray, layer: str | None, table_key: str):
    """Counts of table rows as CSR `(n, genes)`.

    Raises
    ------
    BadInput
        If genes or spots have duplicate names, or the values are not counts.
    """
    mine = table.obs_names[rows]  # sections of one table may have the same barcodes
    for what, names in (("genes (var_names)", table.var_names), ("spots (obs_names)", mine)):
        if not names.is_unique:
            raise BadInput(
                f"table '{table_key}' has duplicate {what}: {listed(names[names.duplicated()].unique())}. "
                "Call .var_names_make_unique() or .obs_names_make_unique() once you know which is which."
            )
    if layer is not None and layer not in table.layers:
        raise MissingKey(
            f"no layer '{layer}' in table '{table_key}'; it has {listed(k for k in table.layers if k)}. Pass layer=."
        )
    values = table.X if layer is None else table.layers[layer]
    where = f"table '{table_key}', {'X' if layer is None else f'layer {layer!r}'}"
    if values is None or table.n_vars == 0:
        raise BadInput(f"{where} is empty; expected counts of spots x genes. Pass layer= one that holds counts.")
    if values.dtype.kind not in "biuf":
        raise BadInput(f"{where} holds values of type {values.dtype}; expected counts. Pass layer= of numbers.")
    counts = _as_csr(values[rows] if len(rows) != table.n_obs else values)
    _check_counts(counts, table, rows, where)
    return counts.astype(np.float32)


def _as_csr(values):
    """A matrix in memory, in a file, or lazy as CSR, of a type of numbers that scipy has."""
    from scipy.sparse import csr_matrix, issparse

    for way in ("compute", "to_memory"):  # of dask, and of what anndata leaves in a file
        values = getattr(values, way)() if hasattr(values, way) else values
    values = values if issparse(values) else np.asarray(values)
    kind = np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return csr_matrix(values.astype(kind, copy=False))


def _check_counts(counts, table: AnnData, rows: np.ndarray, where: str) -> None:
    data = counts.data
    bad = ~np.isfinite(data) | (data < 0) | (data != np.round(data))
    if not bad.any():
        return
    logged = table.uns.get("log1p") is not None or (np.isfinite(data).all() and data.min() >= 0 and data.max() < 25)
    hint = " They look log-transformed." if logged else ""
    spots = np.unique(np.repeat(rows, np.diff(counts.indptr))[bad])
    genes = np.unique(counts.indices[bad])
    raise BadInput(
        f"{where} holds values that are not counts ({int(bad.sum())} of {data.size}, such as {data[bad][0]:.4g}), of "
        f"{len(genes)} genes ({listed(table.var_names[genes], 3)}) in {len(spots)} spots "
        f"({listed(table.obs_names[spots], 3)}); expected non-negative integers.{hint} Pass layer= with the name of "
        "the layer that holds the counts."
    )


def spread(counts, where: np.ndarray, n: int):
    """Counts of table rows, put at their shapes; other shapes get rows of zeros and are not measured.

    Returns
    -------
    Counts as CSR `(n, genes)`, and `(n,)` whether a row was measured.
    """
    from scipy.sparse import csr_matrix

    measured = np.zeros(n, dtype=bool)
    measured[where] = True
    selector = csr_matrix((np.ones(len(where), np.float32), (where, np.arange(len(where)))), shape=(n, len(where)))
    return csr_matrix(selector @ counts), measured


def names_of_genes(table: AnnData, gene_symbols: str, table_key: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns of a table, and their ids where it has both."""
    ids = tuple(map(str, table.var_names))
    if not gene_symbols:
        kept = table.var["gene_ids"] if "gene_ids" in table.var else ()
        return ids, tuple(map(str, kept))
    if gene_symbols not in table.var:
        raise MissingKey(f"no '{gene_symbols}' in var of table '{table_key}'; it has {listed(table.var, 20)}.")
    return tuple(symbols_of(ids, list(table.var[gene_symbols]))), ids


def warn_of_empty(n_empty: int, n_rows: int, section: str) -> None:
    """Say how many rows have no counts; they are taken as not measured."""
    if n_empty:
        mostly = " Most of them: is the table the raw one, with spots off the tissue?" if n_empty > n_rows / 2 else ""
        warnings.warn(
            f"{n_empty} of {n_rows} rows of section '{section}' have no counts and are taken as not measured.{mostly}",
            UserWarning,
            stacklevel=4,
        )
