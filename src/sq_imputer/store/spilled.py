"""Rows of numbers in a file, where they are too many for memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Spilled:
    """`(n, D)` numbers in a file, read and written by rows as those of an array are.

    What is mapped counts as memory of the process: so the file is mapped only while rows are read or written.

    Parameters
    ----------
    path
        The file, which is made.
    shape, dtype
        Of the array.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: str = "float32") -> None:
        self.path, self.shape, self.dtype, self.ndim = path, shape, np.dtype(dtype), len(shape)
        with path.open("wb") as file:
            file.truncate(max(int(np.prod(shape)) * self.dtype.itemsize, 1))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        if rows.ndim and len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
            width = self.shape[1] * self.dtype.itemsize
            count = len(rows) * self.shape[1]
            return np.fromfile(self.path, self.dtype, count, offset=int(rows[0]) * width).reshape(-1, self.shape[1])
        return np.array(self._mapped("r")[rows])

    def __setitem__(self, rows, values) -> None:
        self._mapped("r+")[rows] = values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _mapped(self, mode: str) -> np.ndarray:
        return np.memmap(self.path, self.dtype, mode, shape=self.shape)
