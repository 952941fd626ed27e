"""When two coordinates are one: the tolerance that all who compare, sort or cluster places share.

The same spot written as a circle, as a square, in float32 or in another coordinate system comes back 1e-13 to 1e-4 µm
away. On a lattice whole rows tie, and which of two tied spots comes first must not be said by such a remainder.
Rounding to a grid does not help, as it only moves the ties to the edges of its cells; here the gaps between values tell
them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TOLERANCE_UM = 1e-3
"""Coordinates that moved by less than this, in µm, give the same folds, crops and numbers."""

APART_UM = 2 * TOLERANCE_UM
"""Equal values of which each may have moved by the tolerance are no farther apart than this, in µm."""

N_STRETCHES, N_SUMS = 64, 3  # of a summary
DEVIATIONS = 6.0  # of a sum of as many moves as a stretch has rows


def ranks(values: np.ndarray, apart: float = APART_UM) -> np.ndarray:
    """Rank `(n,)` of every value among the distinct ones: values that are `apart` or less from each other share one.

    Parameters
    ----------
    values
        `(n,)` coordinates or distances, in µm.
    apart
        Widest spread of values that count as one. Values so dense that they run into each other are cut into ranks of
        this width.
    """
    values = np.asarray(values, dtype=float)
    order = np.argsort(values, kind="stable")
    sorted_ = values[order]
    gap = np.diff(sorted_, prepend=-np.inf) > apart
    first = sorted_[np.maximum.accumulate(np.where(gap, np.arange(len(values)), 0))]
    piece = np.floor((sorted_ - first) / apart)
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.cumsum(gap | (np.diff(piece, prepend=0) > 0)) - 1
    return rank


def grades(xy: np.ndarray, apart: float = APART_UM) -> np.ndarray:
    """Ranks `(n, 2)` of places along x and along y."""
    xy = np.asarray(xy, dtype=float)
    return np.column_stack([ranks(xy[:, 0], apart), ranks(xy[:, 1], apart)])


def order(xy: np.ndarray, axis: int = 1) -> np.ndarray:
    """Rows of places `(n, 2)` in order along an axis; where many tie, as on a lattice, the other axis decides."""
    grade = grades(xy)
    return np.lexsort((grade[:, 1 - axis], grade[:, axis]))


def distinct(xy: np.ndarray) -> np.ndarray:
    """One row of each place of `(n, 2)`, the first."""
    return np.sort(np.unique(grades(xy), axis=0, return_index=True)[1])


def summary(xy: np.ndarray) -> list[float]:
    """Places `(n, 2)`, row by row, in few numbers that move as little as the places do: to be kept and compared.

    They are sums over up to 64 stretches of rows, each with three sets of seeded random weights. A hash of rounded
    places would change with the last bit of one that lies at the edge of rounding.
    """
    xy = np.asarray(xy, dtype=float)
    sums = [float(len(xy))]
    for rows in np.array_split(np.arange(len(xy)), min(N_STRETCHES, max(len(xy), 1))):
        weights = np.random.default_rng(len(rows)).normal(size=(N_SUMS, len(rows)))
        sums += (weights @ xy[rows] / max(len(rows), 1) ** 0.5).ravel().tolist()
    return sums


def alike(one, other) -> bool:
    """Whether two summaries are of the same places, each of which may have moved by the tolerance."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or one.dtype.kind not in "iuf" or other.dtype.kind not in "iuf":
        return False
    return bool((np.abs(one - other) <= DEVIATIONS * TOLERANCE_UM).all())


def lattice(
    box: np.ndarray, spacing: float, origin: Sequence[float] = (0.0, 0.0), *, square: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a hexagonal lattice inside a box: every point is `spacing` from its six neighbors.

    Parameters
    ----------
    box
        `(2, 2)` lowest and highest (x, y).
    spacing
        Distance between neighbors, in the unit of the box.
    origin
        A point of the lattice, wherever it lies: two boxes have the same points where they overlap.
    square
        A square lattice instead.

    Returns
    -------
    `(n, 2)` whole numbers, column and row from the origin, and `(n, 2)` places, row by row.
    """
    step = spacing * np.array([1.0, 1.0 if square else np.sqrt(3) / 2])
    low, high = (np.asarray(box, dtype=float) - origin) / step
    rows = np.arange(np.ceil(low[1]), np.floor(high[1]) + 1)
    columns = np.arange(np.floor(low[0]), np.floor(high[0]) + 1)
    column, row = (part.ravel() for part in np.meshgrid(columns, rows))
    x = column if square else column + 0.5 * (row % 2)
    inside = (low[0] <= x) & (x <= high[0])
    nodes = np.column_stack([column, row])[inside].astype(np.int64)
    return nodes, origin + np.column_stack([x, row])[inside] * step
