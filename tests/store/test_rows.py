from __future__ import annotations

import numpy as np
import pytest
import zarr

from sq_imputer.errors import BadInput
from sq_imputer.store.rows import CHUNK_ROWS, create_matrix, every_row, fill

N = 1200


@pytest.fixture
def matrix():
    return create_matrix(zarr.group(zarr.storage.MemoryStore()), "layers/stem", (N, 3), "float32")


@pytest.fixture
def writes(monkeypatch):
    """Number of rows of every write into an array."""
    seen, write = [], zarr.Array.set_orthogonal_selection

    def counted(array, rows, values, *args, **kwargs):
        seen.append(len(values))
        return write(array, rows, values, *args, **kwargs)

    monkeypatch.setattr(zarr.Array, "set_orthogonal_selection", counted)  # slices end up there as well
    return seen


def values() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 3)).astype("float32")


def pieces(order: np.ndarray, size: int):
    return ((order[start : start + size], values()[order[start : start + size]]) for start in range(0, N, size))


def test_a_chunk_holds_whole_rows(matrix):
    assert matrix.chunks == (CHUNK_ROWS, 3)
    assert matrix.attrs["encoding-type"] == "array"


@pytest.mark.parametrize("size", [1, 100, 512, 1200])
def test_rows_in_order_are_written_once_per_chunk(matrix, writes, size):
    fill(matrix, pieces(np.arange(N), size))
    assert writes == [512, 512, N - 1024]
    np.testing.assert_array_equal(matrix[:], values())


def test_rows_of_a_few_chunks_may_come_in_any_order(matrix, writes):
    fill(matrix, pieces(np.random.default_rng(1).permutation(N), 50))
    assert sorted(writes) == [N - 1024, 512, 512]
    np.testing.assert_array_equal(matrix[:], values())


def test_not_more_than_some_chunks_wait_in_memory(matrix, writes, monkeypatch):
    monkeypatch.setattr("sq_imputer.store.rows.OPEN_CHUNKS", 1)
    fill(matrix, pieces(np.random.default_rng(1).permutation(N), 50))
    assert len(writes) > 3
    np.testing.assert_array_equal(matrix[:], values())


def test_slices_and_lists_of_rows_become_numbers():
    rows = [rows.tolist() for rows, _ in every_row([(slice(2, 4), [0, 0]), ([0, 1], [0, 0])], 4)]
    assert rows == [[2, 3], [0, 1]]


def test_a_row_that_never_came_is_an_error():
    with pytest.raises(BadInput, match="2 of 4 rows; first missing: 1"):
        list(every_row([([0, 2], np.zeros((2, 3)))], 4))
