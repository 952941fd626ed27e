"""Counts are the same however a table keeps them."""

from __future__ import annotations

import anndata
import dask.array as da
import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.counts import read_counts, spread


def lazy(values):
    return da.from_array(values, chunks=(3, 2))


def lazy_sparse(values):
    return da.from_array(values, chunks=(3, -1)).map_blocks(csr_matrix)


def big_endian(values):
    return values.astype(">f4")


@pytest.mark.parametrize("form", [np.asarray, csc_matrix, np.int64, np.uint8, lazy, lazy_sparse, big_endian])
def test_counts_are_the_same_however_they_are_stored(planted, form):
    table = planted.table(np.arange(8))
    table.X = form(planted.counts)
    counts = read_counts(table, np.array([6, 1]), None, "table")
    assert (counts.format, counts.dtype) == ("csr", np.float32)
    np.testing.assert_array_equal(counts.toarray(), planted.counts[[6, 1]])


@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_counts_can_lie_in_a_file(planted, tmp_path, form):
    table = planted.table(np.arange(8))
    table.X = form(planted.counts)
    table.write_h5ad(tmp_path / "table.h5ad")
    opened = anndata.read_h5ad(tmp_path / "table.h5ad", backed="r")
    for rows in ([1, 6], np.arange(8)):
        counts = read_counts(opened, np.asarray(rows), None, "table")
        np.testing.assert_array_equal(counts.toarray(), planted.counts[rows])
    opened.file.close()


def test_counts_can_lie_in_a_layer(planted):
    table = planted.table(np.arange(8))
    table.layers["counts"], table.X = planted.counts, np.log1p(planted.counts)
    np.testing.assert_array_equal(read_counts(table, np.arange(8), "counts", "table").toarray(), planted.counts)
    with pytest.raises(MissingKey, match="no layer 'raw' in table 'table'; it has 'counts'. Pass layer="):
        read_counts(table, np.arange(8), "raw", "table")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.log1p, r"48 of 48, such as [\d.]+\).*look log-transformed. Pass layer="),
        (
            lambda x: -x.astype(float),
            r"48 of 48, such as -\d+\), of 6 genes .* in 8 spots .*; expected non-negative integers",
        ),
        (lambda x: np.where(x == 3, np.nan, x), "such as nan"),
        (lambda x: np.where(x == 3, np.inf, x), "such as inf"),
        (lambda x: x + 0.5, r"such as \d.5"),
    ],
)
def test_values_that_are_not_counts_are_refused(planted, change, message):
    table = planted.table(np.arange(8))
    table.X = change(planted.counts)
    with pytest.raises(BadInput, match=f"table 'table', X holds values that are not counts .*{message}"):
        read_counts(table, np.arange(8), None, "table")


def test_a_table_without_values_is_refused(planted):
    table = planted.table(np.arange(8))
    for empty in (table[:, :0].copy(), table.copy()):
        empty.X = None if empty.n_vars else empty.X
        with pytest.raises(BadInput, match="table 'table', X is empty"):
            read_counts(empty, np.arange(8), None, "table")


def test_duplicate_genes_and_spots_are_named(planted):
    for what, index in (("genes", "var_names"), ("spots", "obs_names")):
        table = planted.table(np.arange(8))
        setattr(table, index, [*getattr(table, index)[:-1], getattr(table, index)[0]])
        with pytest.raises(BadInput, match=rf"duplicate {what} \({index}\): '{getattr(table, index)[0]}'"):
            read_counts(table, np.arange(8), None, "table")


def test_counts_are_put_at_their_shapes(planted):
    table = planted.table([5, 2])
    counts, measured = spread(read_counts(table, np.arange(2), None, "table"), np.array([5, 2]), 8)
    assert np.flatnonzero(measured).tolist() == [2, 5]
    np.testing.assert_array_equal(counts.toarray()[[5, 2]], planted.counts[:2])
    assert counts.sum() == planted.counts[:2].sum()
