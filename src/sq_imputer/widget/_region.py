"""What a region says: the mean of every gene with an interval, beside what was measured there.

The errors of points that lie side by side go the same way, so the interval of a mean is not that of a point divided by
the root of their number. Ours: where measured spots were predicted out of fold, the mean error of every patch of tissue
of the same area is known; the interval is what those mean errors leave in 95 of 100 patches. Elsewhere it is as wide as
if the errors of all points agreed, which is never too narrow where the standard deviation of one point is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.scores.metrics import interval

if TYPE_CHECKING:
    from pandas import DataFrame

LEVEL = 0.95
Z = 1.959964  # of a normal distribution, by which 95 % lie within
FEWEST_APART = 8  # patches of this area that lie beside each other on the tissue: fewer say nothing of their spread
FULL = 0.6  # of the spots that a patch should hold: others hang over the border
PATCHES, ERRORS, NONE = "errors of like patches", "if all errors agreed", "not known"


class Known(NamedTuple):
    """Spots of the section where a gene was measured and predicted out of fold, in one unit.

    Parameters
    ----------
    xy_um
        `(n, 2)` places.
    measured
        `(n, G)`; NaN where not measured.
    predicted
        `(n, G)` out of fold; None where the prediction has seen the spots.
    """

    xy_um: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray | None


def patch_errors(xy_um: np.ndarray, residual: np.ndarray, area_um2: float) -> np.ndarray | None:
    """Mean residual `(P, G)` in a disk of this area around every spot; None if too few of them lie apart.

    Parameters
    ----------
    xy_um
        `(n, 2)` places of spots.
    residual
        `(n, G)` measured minus predicted, without NaN.
    area_um2
        Area of the region in question.
    """
    from scipy.spatial import cKDTree

    if len(xy_um) < FEWEST_APART:
        return None
    tree, radius = cKDTree(xy_um), float(np.sqrt(area_um2 / np.pi))
    around = tree.query_ball_point(xy_um, radius)
    sizes = np.array([len(one) for one in around])
    usual = float(np.percentile(sizes, 90))
    if len(xy_um) / usual < FEWEST_APART:
        return None
    return np.stack([residual[one].mean(axis=0) for one in around if len(one) >= FULL * usual])


def means(
    genes: list[str], predicted: np.ndarray, std: np.ndarray | None, area_um2: float, known: Known | None, inside
) -> DataFrame:
    """One row per gene: mean of the prediction with its 95 % interval, and of what was measured inside.

    Parameters
    ----------
    genes
        Their names.
    predicted, std
        `(n, G)` of the points of the region.
    area_um2
        Area of the region.
    known
        Measured spots of the section, if there are any.
    inside
        Which of these `(n,)` lie in the region.

    Returns
    -------
    Columns `predicted`, `low`, `high`, `interval` (what it was taken from), `varies` (standard deviation between the
    points), `measured`, `spots` (how many were measured inside).
    """
    import pandas as pd

    mean = predicted.mean(axis=0)
    low, high, source = _intervals(mean, std, area_um2, known)
    found = {"predicted": mean, "low": low, "high": high, "interval": source, "varies": predicted.std(axis=0)}
    measured, spots = np.full(len(genes), np.nan), np.zeros(len(genes), dtype=int)
    if known is not None and np.any(inside):
        values = known.measured[inside]
        there = np.isfinite(values)
        spots = there.sum(axis=0)
        measured = np.where(there, values, 0).sum(axis=0) / np.where(spots > 0, spots, np.nan)
    return pd.DataFrame({**found, "measured": measured, "spots": spots}, index=pd.Index(genes, name="gene"))


def _intervals(
    mean: np.ndarray, std: np.ndarray | None, area_um2: float, known: Known | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Ends of the interval of every gene, and what they are taken from."""
    n = len(mean)
    low, high, source = np.full(n, np.nan), np.full(n, np.nan), [NONE] * n
    if std is not None:
        half = Z * std.mean(axis=0)
        low, high, source = mean - half, mean + half, [ERRORS] * n
    if known is None or known.predicted is None:
        return low, high, source
    residual = known.measured - known.predicted
    for k in range(n):
        rows = np.isfinite(residual[:, k])
        errors = patch_errors(known.xy_um[rows], residual[rows, k, None], area_um2)
        if errors is not None:
            below, above = interval(errors[:, 0], LEVEL)
            low[k], high[k], source[k] = mean[k] + below, mean[k] + above, PATCHES
    return low, high, source
