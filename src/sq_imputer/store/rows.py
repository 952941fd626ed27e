"""Matrices of a store in chunks of whole rows: predictions come in row batches, and each chunk is compressed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    import zarr

CHUNK_ROWS = 512
OPEN_CHUNKS = 8  # chunks that may wait for their remaining rows


def create_matrix(group: zarr.Group, path: str, shape: tuple[int, int], dtype) -> zarr.Array:
    """An empty matrix as AnnData stores one, in chunks of whole rows."""
    chunks = (min(CHUNK_ROWS, max(shape[0], 1)), max(shape[1], 1))
    array = group.create_array(path, shape=shape, dtype=dtype, chunks=chunks)
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return array


def every_row(batches, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches with their rows as numbers; an error at the end if a row never came."""
    missing = np.ones(n, dtype=bool)
    for rows, values in batches:
        rows = np.arange(n)[rows]
        missing[rows] = False
        yield rows, np.asarray(values)
    if missing.any():
        raise BadInput(f"the batches hold {n - missing.sum()} of {n} rows; first missing: {missing.argmax()}.")


def fill(array: zarr.Array, batches) -> None:
    """Write row batches, keeping the rows of a chunk until it is whole or too many chunks wait."""
    n, height = array.shape[0], array.chunks[0]
    waiting: dict[int, list] = {}
    for rows, values in batches:
        chunk_of = rows // height
        for chunk in np.unique(chunk_of).tolist():
            mine = chunk_of == chunk
            waiting.setdefault(chunk, []).append((rows[mine], values[mine]))
            if sum(len(rows) for rows, _ in waiting[chunk]) >= min(height, n - chunk * height):
                _flush(array, waiting.pop(chunk))
        while len(waiting) > OPEN_CHUNKS:
            _flush(array, waiting.pop(next(iter(waiting))))
    for pieces in waiting.values():
        _flush(array, pieces)


def _flush(array: zarr.Array, pieces: list) -> None:
    rows = np.concatenate([rows for rows, _ in pieces])
    values = np.concatenate([values for _, values in pieces]).astype(array.dtype, copy=False)
    order = np.argsort(rows)
    rows, values = rows[order], values[order]
    if (np.diff(rows) == 1).all():
        array[rows[0] : rows[-1] + 1] = values
    else:
        array.set_orthogonal_selection((rows, slice(None)), values)
