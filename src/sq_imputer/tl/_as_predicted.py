"""Rows and genes of a layer, and what was measured when it was predicted: of a million rows as few copies as can be."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sq_imputer.scores.moments import chunks

AT_ONCE = 2**22  # values that are read or compared at once


def taken(layer, rows: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Some rows and columns of a matrix, in memory or lazy; no copy of one in memory where these are all, in order."""
    if isinstance(layer, np.ndarray):
        whole = _are_all(rows, layer.shape[0]) and _are_all(columns, layer.shape[1])
        return layer if whole else layer[np.ix_(rows, columns)]
    found = np.empty((len(rows), len(columns)), dtype=layer.dtype)
    for part in chunks(np.arange(len(found)), _at_once(found)):
        found[part] = np.asarray(layer[rows[part]])[:, columns]
    return found


def _are_all(places: Sequence[int], n: int) -> bool:
    return len(places) == n and np.array_equal(places, np.arange(n))


def _at_once(matrix: np.ndarray) -> int:
    """Rows that are read or compared together."""
    return max(1, AT_ONCE // max(matrix.shape[1], 1))


def as_predicted(now: np.ndarray, layer, rows: np.ndarray, columns: Sequence[int], table_key: str) -> np.ndarray:
    """What was measured when it was predicted: counts that were filtered since have another depth, so another value.

    Parameters
    ----------
    now
        `(n, G)` expression of the counts as they are.
    layer
        What was measured then, of more rows and genes.
    rows, columns
        Where those of `now` are in it.
    table_key
        Whose counts these are, for the warning.

    Warns
    -----
    UserWarning
        If any has changed.
    """
    found, changed = now, 0
    for part in chunks(np.arange(len(now)), _at_once(now)):
        then = np.asarray(layer[rows[part]])[:, columns]
        known = np.isfinite(then)
        other = known & ~np.isclose(then, now[part], rtol=1e-4, atol=1e-5)
        if other.any():
            found = now.copy() if found is now else found
            changed += int(other.any(axis=1).sum())
        if found is not now:
            found[part] = np.where(known, then, now[part])
    if changed:
        warnings.warn(
            f"the counts of table '{table_key}' have changed since the prediction (expression differs "
            f"at {changed} of {len(now)} spots): scored against layers['measured']. Ceiling and "
            "baselines are of the present counts; restore what was there, or predict again.",
            UserWarning,
            stacklevel=4,
        )
    return found
