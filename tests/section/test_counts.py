"""Counts are the same however a table keeps them."""

from __future__ import annotations

import anndata
import dask.array as da
import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section import counts as section_counts
from sq_imputer.section.counts import Counts, read_counts


def lazy(values):
    return da.from_array(values, chunks=(3, 2))


def lazy_sparse(values):
    return da.from_array(values, chunks=(3, -1)).map_blocks(csr_matrix)


def big_endian(values):
    return values.astype(">f4")


def whole(table, layer=None) -> Counts:
    return read_counts(table, np.arange(8), np.arange(8), 8, layer, "table")


@pytest.mark.parametrize("form", [np.asarray, csc_matrix, np.int64, np.uint8, lazy, lazy_sparse, big_endian])
def test_counts_are_the_same_however_they_are_stored(planted, form, monkeypatch):
    table = planted.table(np.arange(8))
    table.X = form(planted.counts)
    for block in (section_counts.BLOCK, 3):
        monkeypatch.setattr(section_counts, "BLOCK", block)
        counts = read_counts(table, np.array([6, 1]), np.array([0, 1]), 2, None, "table")
        some = counts.columns([4, 0])
        assert (some.format, some.dtype) == ("csr", np.float32)
        np.testing.assert_array_equal(some.toarray(), planted.counts[[6, 1]][:, [4, 0]])
        np.testing.assert_array_equal(counts.toarray(), planted.counts[[6, 1]])
        np.testing.assert_array_equal(counts.depth, planted.counts[[6, 1]].sum(axis=1))


@pytest.mark.parametrize("form", [np.asarray, csr_matrix, csc_matrix])
def test_counts_can_lie_in_a_file(planted, tmp_path, form, monkeypatch):
    monkeypatch.setattr(section_counts, "BLOCK", 3)
    table = planted.table(np.arange(8))
    table.X = form(planted.counts)
    table.write_h5ad(tmp_path / "table.h5ad")
    opened = anndata.read_h5ad(tmp_path / "table.h5ad", backed="r")
    for rows in ([1, 6], np.arange(8)):
        counts = read_counts(opened, np.asarray(rows), np.arange(len(rows)), len(rows), None, "table")
        assert not isinstance(counts.values, csr_matrix | np.ndarray)
        np.testing.assert_array_equal(counts.columns([2, 0]).toarray(), planted.counts[rows][:, [2, 0]])
        np.testing.assert_array_equal(counts.toarray(), planted.counts[rows])
    opened.file.close()


def test_counts_can_lie_in_a_layer(planted):
    table = planted.table(np.arange(8))
    table.layers["counts"], table.X = planted.counts, np.log1p(planted.counts)
    np.testing.assert_array_equal(whole(table, "counts").toarray(), planted.counts)
    with pytest.raises(MissingKey, match="no layer 'raw' in table 'table'; it has 'counts'. Pass layer="):
        whole(table, "raw")


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
        whole(table)


def test_a_table_without_values_is_refused(planted):
    table = planted.table(np.arange(8))
    for empty in (table[:, :0].copy(), table.copy()):
        empty.X = None if empty.n_vars else empty.X
        with pytest.raises(BadInput, match="table 'table', X is empty"):
            whole(empty)


def test_duplicate_genes_and_spots_are_named(planted):
    for what, index in (("genes", "var_names"), ("spots", "obs_names")):
        table = planted.table(np.arange(8))
        setattr(table, index, [*getattr(table, index)[:-1], getattr(table, index)[0]])
        with pytest.raises(BadInput, match=rf"duplicate {what} \({index}\): '{getattr(table, index)[0]}'"):
            whole(table)


def test_counts_are_put_at_their_shapes(planted):
    table = planted.table([5, 2])
    counts = read_counts(table, np.arange(2), np.array([5, 2]), 8, None, "table")
    assert np.flatnonzero(counts.depth).tolist() == [2, 5]
    np.testing.assert_array_equal(counts.toarray()[[5, 2]], planted.counts[:2])
    assert counts.toarray().sum() == planted.counts[:2].sum()
    part = counts.take(np.array([2, 0, 5]))
    np.testing.assert_array_equal(part.toarray(), [planted.counts[1], np.zeros(6), planted.counts[0]])
    assert part.depth.tolist() == [planted.counts[1].sum(), 0, planted.counts[0].sum()]


def test_a_lazy_matrix_is_never_read_whole(planted):
    rng = np.random.default_rng(0)
    matrix, most = rng.poisson(1, (50_000, 12)), []

    def seen(block):
        most.append(len(block))
        return csr_matrix(block)

    table = anndata.AnnData(da.from_array(matrix, chunks=(2_000, -1)).map_blocks(seen, meta=csr_matrix((0, 0))))
    counts = read_counts(table, np.arange(50_000), np.arange(50_000), 50_000, None, "table")
    np.testing.assert_array_equal(counts.depth, matrix.sum(axis=1))
    np.testing.assert_array_equal(counts.columns([7]).toarray()[:, 0], matrix[:, 7])
    assert counts.values is table.X
    assert max(len(rows) for rows, _, _ in counts.blocks()) <= section_counts.BLOCK


def test_the_counts_of_a_table_in_memory_are_a_copy(planted):
    table = planted.table(np.arange(8))
    for form in (np.asarray, csr_matrix):
        table.X = form(planted.counts.astype(np.float32))
        counts = whole(table)
        table.X[0] = 0
        np.testing.assert_array_equal(counts.toarray(), planted.counts)
        table.X = form(planted.counts.astype(np.float32))
