"""Counts of a section, read in blocks: of a table in memory, in a file, or lazy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.names import symbols_of

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

BLOCK = 8192  # rows or columns of a matrix that are in memory at once, where it has no chunks of its own


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts `(rows of a section, all genes)`, of which only the blocks and columns that are asked for are in memory.

    Parameters
    ----------
    values
        The matrix: sparse in memory, or as a table holds it in a file or as a dask array.
    rows
        `(m,)` rows of the matrix that are counted.
    where
        `(m,)` the row of the section that each belongs to; other rows of the section have no counts.
    depth
        `(n,)` total counts of every row of the section over all genes.
    """

    values: object
    rows: np.ndarray
    where: np.ndarray
    depth: np.ndarray

    @classmethod
    def of(cls, matrix) -> Counts:
        """Counts of a matrix in memory `(n, genes)`, every row of which is a row of the section."""
        values, every = _as_csr(matrix), np.arange(matrix.shape[0])
        return cls(values, every, every, np.asarray(values.sum(axis=1, dtype=np.float64)).ravel())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the section, and genes."""
        return len(self.depth), self.values.shape[1]

    def blocks(self, columns: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray, csr_matrix]]:
        """One block after the other: rows of the section, columns, and the counts there; of some columns if said."""
        for rows, wanted, block in tiles(self.values, self.rows, columns):
            yield self.where[rows], wanted, block

    def columns(self, columns: Sequence[int]) -> csr_matrix:
        """Counts `(n, len(columns))` of some genes, in this order, as CSR float32."""
        from scipy.sparse import coo_matrix, csr_matrix

        columns = np.asarray(columns, dtype=np.int64)
        kind = np.int32 if max(self.shape) < 2**31 else np.int64  # of a million cells these are most of the memory
        place = np.full(self.shape[1], -1, dtype=kind)
        place[columns] = np.arange(len(columns))
        parts = [(np.empty(0, np.float32), np.empty(0, kind), np.empty(0, kind))]
        for rows, wanted, block in self.blocks(columns):
            block = block.tocoo()
            parts.append((block.data.astype(np.float32), rows.astype(kind)[block.row], place[wanted[block.col]]))
        data, i, j = (np.concatenate(part) for part in zip(*parts, strict=True))
        del parts
        return csr_matrix(coo_matrix((data, (i, j)), shape=(self.shape[0], len(columns))))

    def take(self, rows: np.ndarray) -> Counts:
        """The counts of some rows of the section, in this order."""
        table_row = np.full(self.shape[0], -1, dtype=np.int64)
        table_row[self.where] = self.rows
        mine = table_row[rows]
        counted = np.flatnonzero(mine >= 0)
        return replace(self, rows=mine[counted], where=counted, depth=self.depth[rows])

    def toarray(self) -> np.ndarray:
        """All counts, dense. For small sections."""
        return self.columns(range(self.shape[1])).toarray()


def read_counts(table: AnnData, rows: np.ndarray, where: np.ndarray, n: int, layer: str | None, table_key: str):
    """Counts of table rows, at their rows `where` of a section of `n`. Every value is read once, block by block.

    Of a matrix in memory a copy is kept; one in a file or a dask array is read again when counts are asked for.

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
    name = f"table '{table_key}', {'X' if layer is None else f'layer {layer!r}'}"
    if values is None or table.n_vars == 0:
        raise BadInput(f"{name} is empty; expected counts of spots x genes. Pass layer= one that holds counts.")
    if values.dtype.kind not in "biuf":
        raise BadInput(f"{name} holds values of type {values.dtype}; expected counts. Pass layer= of numbers.")
    depth = np.zeros(n)
    for at, columns, block in tiles(values, rows):
        _check_counts(block, table, rows[at], columns, name)
        depth[where[at]] += np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
    if _in_memory(values):
        values, rows = _as_csr(values[rows]).astype(np.float32), np.arange(len(rows))
    return Counts(values, rows, where, depth)


def tiles(
    values, rows: np.ndarray, columns: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, csr_matrix]]:
    """A matrix block by block, along its own chunks: numbers among `rows`, columns, and the values there.

    Parameters
    ----------
    values
        Sparse or dense, in memory, in a file as anndata leaves it, or a dask array.
    rows
        Rows that are wanted.
    columns
        Columns that are wanted; all if left out.
    """
    order = np.argsort(rows, kind="stable")
    kept = np.arange(values.shape[1]) if columns is None else np.sort(columns)
    row_edges, column_edges = _edges(values)
    for top, bottom in pairwise(row_edges):
        at = order[np.searchsorted(rows[order], top) : np.searchsorted(rows[order], bottom)]
        if not len(at):
            continue
        for left, right in pairwise(column_edges):
            wanted = kept[(kept >= left) & (kept < right)]
            if not len(wanted):
                continue
            block = _as_csr(values[int(top) : int(bottom), int(left) : int(right)])
            block = block if len(wanted) == right - left else block[:, wanted - left]
            yield at, wanted, block if _whole(rows[at], top, bottom) else block[rows[at] - top]


def _whole(rows: np.ndarray, start: int, stop: int) -> bool:
    return len(rows) == stop - start and bool((np.diff(rows) == 1).all())


def _edges(values) -> tuple[np.ndarray, np.ndarray]:
    """Where the blocks of a matrix begin and end: its chunks, or stripes along the axis that it is stored by."""
    n_rows, n_columns = values.shape
    if hasattr(values, "chunks") and hasattr(values, "dask"):
        return tuple(_gathered(np.cumsum([0, *sizes])) for sizes in values.chunks)
    stripes = [np.arange(0, n, BLOCK).tolist() + [n] for n in (n_rows, n_columns)]
    if getattr(values, "format", "csr") == "csc":
        return np.array([0, n_rows]), np.array(stripes[1])
    return np.array(stripes[0]), np.array([0, n_columns])


def _gathered(edges: np.ndarray) -> np.ndarray:
    """Edges of chunks, small ones taken together: every block costs a little beside its values."""
    kept = [0]
    for before, edge in pairwise(edges):
        if edge - kept[-1] > BLOCK and before > kept[-1]:
            kept.append(before)
    return np.array([*kept, edges[-1]])


def _in_memory(values) -> bool:
    from scipy.sparse import issparse

    return issparse(values) or isinstance(values, np.ndarray)


def _as_csr(values):
    """A matrix in memory, in a file, or lazy as CSR, of a type of numbers that scipy has."""
    from scipy.sparse import csr_matrix, issparse

    for way in ("compute", "to_memory"):  # of dask, and of what anndata leaves in a file
        values = getattr(values, way)() if hasattr(values, way) else values
    values = values if issparse(values) else np.asarray(values)
    kind = np.float32 if values.dtype == np.float16 else values.dtype.newbyteorder("=")
    return csr_matrix(values.astype(kind, copy=False))


def _check_counts(counts, table: AnnData, rows: np.ndarray, columns: np.ndarray, where: str) -> None:
    data = counts.data
    bad = ~np.isfinite(data) | (data < 0) | (data != np.round(data))
    if not bad.any():
        return
    logged = table.uns.get("log1p") is not None or (np.isfinite(data).all() and data.min() >= 0 and data.max() < 25)
    hint = " They look log-transformed." if logged else ""
    raw = "" if table.raw is None else " Or are they in .raw? Make a table of .raw.to_adata(), and pass table_key=."
    spots = np.unique(np.repeat(rows, np.diff(counts.indptr))[bad])
    genes = columns[np.unique(counts.indices[bad])]
    raise BadInput(
        f"{where} holds values that are not counts ({int(bad.sum())} of {data.size}, such as {data[bad][0]:.4g}), of "
        f"{len(genes)} genes ({listed(table.var_names[genes], 3)}) in {len(spots)} spots "
        f"({listed(table.obs_names[spots], 3)}); expected non-negative integers.{hint} Pass layer= with the name of "
        f"the layer that holds the counts.{raw}"
    )


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


def warn_of_no_depth(error: Exception, target: str) -> None:
    """Say why depth is not known of rows whose labels are; a target other than genes needs no counts."""
    warnings.warn(
        f"depth is not known beside target '{target}', and nothing is scored given depth: {error}",
        UserWarning,
        stacklevel=5,
    )
