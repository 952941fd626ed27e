"""Mean and spread of many rows that are seen a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

MANY = 4096  # rows at a time: what is copied of them on the way stays small


def chunks(rows: np.ndarray, n: int = MANY) -> Iterator[np.ndarray]:
    """At most n of some rows at a time."""
    return (rows[start : start + n] for start in range(0, len(rows), n))


def mean_and_std(chunks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column in float64, by merging those of chunks (Chan et al. 1983).

    Nothing is squared before its mean is taken off, so that a column that never varies has a spread of 0.

    Parameters
    ----------
    chunks
        `(n, columns)` rows, some at a time; n may differ.

    Returns
    -------
    Two arrays `(columns,)`; NaN if there is no row.
    """
    n, mean, squares = 0, np.nan, np.nan
    for chunk in chunks:
        if not len(chunk):
            continue
        chunk = chunk.astype(np.float64)
        own = chunk.mean(axis=0)
        chunk -= own
        size, own_squares = len(chunk), np.einsum("nc,nc->c", chunk, chunk)
        if not n:
            n, mean, squares = size, own, own_squares
            continue
        apart = own - mean
        squares = squares + own_squares + apart**2 * (n * size / (n + size))
        mean = mean + apart * (size / (n + size))
        n += size
    return mean, np.sqrt(squares / n) if n else squares
