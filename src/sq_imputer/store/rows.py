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


def create_matrix(group: zarr.Group, path: str, shape: tuple[int, ...], dtype, blank=None) -> zarr.Array:
    """A matrix as AnnData stores one, in chunks of whole rows; what is never written there reads as `blank`."""
    chunks = (min(CHUNK_ROWS, max(shape[0], 1)), *(max(side, 1) for side in shape[1:]))
    array = group.create_array(path, shape=shape, dtype=dtype, chunks=chunks, fill_value=blank)
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
    filler = Filler(array)
    for rows, values in batches:
        filler.add(rows, values)
    filler.close()


class Filler:
    """An array that is written by row batches; rows of a chunk are kept until it is whole or too many chunks wait."""

    def __init__(self, array: zarr.Array) -> None:
        self.array, self._waiting = array, {}

    def add(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write the values of these rows, now or later."""
        n, height = self.array.shape[0], self.array.chunks[0]
        chunk_of = rows // height
        for chunk in np.unique(chunk_of).tolist():
            mine = chunk_of == chunk
            self._waiting.setdefault(chunk, []).append((rows[mine], values[mine]))
            if sum(len(rows) for rows, _ in self._waiting[chunk]) >= min(height, n - chunk * height):
                _flush(self.array, self._waiting.pop(chunk))
        while len(self._waiting) > OPEN_CHUNKS:
            _flush(self.array, self._waiting.pop(next(iter(self._waiting))))

    def close(self) -> None:
        """Write what still waits."""
        for pieces in self._waiting.values():
            _flush(self.array, pieces)
        self._waiting.clear()


def _flush(array: zarr.Array, pieces: list) -> None:
    rows = np.concatenate([rows for rows, _ in pieces])
    values = np.concatenate([values for _, values in pieces]).astype(array.dtype, copy=False)
    order = np.argsort(rows)
    rows, values = rows[order], values[order]
    if (np.diff(rows) == 1).all():
        array[rows[0] : rows[-1] + 1] = values
    else:
        array.set_orthogonal_selection((rows, *[slice(None)] * (values.ndim - 1)), values)
