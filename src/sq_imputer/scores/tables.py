"""Tables of scores: per gene, predictor and section, and their means with bootstrap intervals over independent units.

The columns of every table are the scores of `metrics`, so models and baselines stand in the same rows and are read the
same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.scores.metrics import (
    ROUNDING,
    bootstrap_mean,
    gene_blocks,
    interval,
    log1p_cp10k,
    log_depth,
    mse,
    noise_ceiling,
    pearson,
    pearson_given,
    r2,
    spearman,
)

if TYPE_CHECKING:
    from pandas import DataFrame

METRICS = ("pearson", "pearson_given_depth", "spearman", "mse", "r2")


def _all_scores(y: np.ndarray, p: np.ndarray, rows: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
    """Scores over some rows, some genes at a time: of a million rows no whole matrix is copied."""
    functions = (pearson, lambda y, p: pearson_given(y, p, depth), spearman, mse, r2)
    parts = []
    for block in gene_blocks(len(rows), y.shape[1]):
        sides = y[:, block][rows], p[:, block][rows]
        parts.append([score(*sides) for score in functions])
    return {name: np.concatenate(part) for name, part in zip(METRICS, zip(*parts, strict=True), strict=True)}


def score_table(
    measured,
    predicted: Mapping[str, np.ndarray],
    genes: Sequence[str],
    *,
    depth,
    section=None,
    counts=None,
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray] = log1p_cp10k,
    seed: int = 0,
) -> DataFrame:
    """One row per predictor, section and gene.

    Columns: gene, predictor, section, the five `METRICS`, n_spots, and, with `counts`, ceiling.

    Correlations run over the spots of one section, so differences between sections earn nothing. A spot whose measured
    row is all NaN was not measured and is not scored; n_spots says how many were.

    Parameters
    ----------
    measured
        `(n, G)`.
    predicted
        Name to `(n, G)`, in the unit of `measured`: models and baselines alike.
    genes
        `(G,)` names of the columns.
    depth
        `(n,)` total counts over the full library.
    section
        `(n,)` labels; one section if not given.
    counts
        `(n, G)` raw counts, sparse or dense, for the column `ceiling` (see `noise_ceiling`).
    transform
        From `(n, g)` counts and `(n,)` total counts to the unit of `measured`: the ceiling is that of this unit.
    seed
        Of the thinning.

    Raises
    ------
    BadInput
        If shapes or units of rows do not match, a section has fewer than 3 measured spots, or a prediction is missing
        there.
    """
    import pandas as pd

    measured, depth = np.asarray(measured), np.asarray(depth, dtype=float).ravel()
    labels = np.full(len(measured), "all") if section is None else np.asarray(section).astype(str)
    seen = ~np.isnan(measured).all(axis=1)
    if measured.shape != (len(depth), len(genes)) or len(labels) != len(depth):
        raise BadInput(
            f"measured is {measured.shape} with {len(genes)} genes, {len(depth)} depths and {len(labels)} section "
            "labels; give one gene per column, and one depth and label per row."
        )
    if not seen.any():
        raise BadInput(f"none of the {len(measured)} spots is measured; there is nothing to score against.")
    parts = []
    for name in dict.fromkeys(labels[seen]):
        rows = np.flatnonzero(seen & (labels == name))
        if len(rows) < 3:
            raise BadInput(f"section '{name}' has {len(rows)} measured spots; scores need 3 or more. Leave it out.")
        fixed = {"section": name, "n_spots": len(rows)}
        if counts is not None:
            fixed["ceiling"] = noise_ceiling(counts[rows], depth[rows], transform=transform, seed=seed)
        for predictor, values in predicted.items():
            p = _prediction_at(values, measured.shape, rows, f"'{predictor}' in section '{name}'")
            scores = _all_scores(measured, p, rows, depth[rows])
            parts.append(pd.DataFrame({"gene": list(genes), "predictor": predictor, **scores, **fixed}))
    table = pd.concat(parts, ignore_index=True)
    first = ["gene", "predictor", "section"]
    return table[first + [column for column in table.columns if column not in first]]


def _prediction_at(values, shape: tuple[int, int], rows: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != shape:
        raise BadInput(f"prediction {what} is {values.shape}; measured is {shape}. Align its rows and genes.")
    missing = int(np.isnan(values).all(axis=1)[rows].sum())
    if missing:
        raise BadInput(f"prediction {what} is missing at {missing} of {len(rows)} measured spots; predict them too.")
    return values


def _chosen(known: list[str], genes: Sequence[str] | None, top: int | None) -> list[str]:
    if top is not None and (genes is None or not 0 < top <= len(genes)):
        found = "genes is not given" if genes is None else f"genes holds {len(genes)}"
        raise BadInput(f"top={top} and {found}; pass genes= in an order chosen on training data, at least `top` long.")
    chosen, scored = known if genes is None else list(genes)[:top], set(known)
    unknown = [gene for gene in chosen if gene not in scored]
    if unknown:
        raise MissingKey(f"no scores of {listed(unknown)}; the table has {listed(known)}. Pass other genes=.")
    return chosen


def _row(predictor: str, metric: str, interval: tuple, n_units: int, genes: Sequence[str], bad: Sequence[str]) -> dict:
    mean, low, high = interval
    return {
        "predictor": predictor,
        "metric": metric,
        "mean": mean,
        "low": low,
        "high": high,
        "n_units": n_units,
        "n_genes": len(genes),
        "n_nan": len(bad),
        "nan_genes": ", ".join(bad),
    }


def aggregate(
    table: DataFrame,
    *,
    genes: Sequence[str] | None = None,
    top: int | None = None,
    by: str = "section",
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> DataFrame:
    """Mean over genes, then over units, with its bootstrap interval: one row per predictor and metric.

    Columns: predictor, metric, mean, low, high, n_units, n_genes, n_nan, nan_genes. A gene without a score in some
    unit is left out of that unit's mean, counted in `n_nan` and named in `nan_genes` (joined by ", "). A single unit
    has no interval; see `aggregate_blocks`.

    Parameters
    ----------
    table
        As `score_table` makes it.
    genes
        Average over these; all if not given.
    top
        Average over the first `top` of `genes`, which then are in an order chosen on training data.
    by
        Column whose values are the independent units: `"section"`, or one that you add, such as `"patient"`.
    n
        Bootstrap draws.
    level
        Coverage of the interval.
    seed
        Of the draws.

    Raises
    ------
    BadInput
        If `top` has no order to count in or exceeds it.
    MissingKey
        If `by` is not a column or a gene is not in the table.
    """
    import pandas as pd

    if by not in table:
        raise MissingKey(f"no column '{by}'; the score table has {listed(table.columns, 12)}. Pass by=.")
    chosen = _chosen(list(dict.fromkeys(table["gene"])), genes, top)
    table = table[table["gene"].isin(chosen)]
    rows = []
    for predictor, part in table.groupby("predictor", sort=False):
        for metric in [name for name in (*METRICS, "ceiling") if name in part]:
            units = part.groupby(by, sort=False)[metric].mean()
            mean = bootstrap_mean(units, n=n, level=level, seed=seed)
            bad = part.loc[part[metric].isna(), "gene"]
            rows.append(_row(predictor, metric, mean, int(units.notna().sum()), chosen, list(dict.fromkeys(bad))))
    return pd.DataFrame(rows)


def aggregate_blocks(
    measured,
    predicted: Mapping[str, np.ndarray],
    genes: Sequence[str],
    *,
    depth,
    blocks,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> DataFrame:
    """Mean over genes on one section, with its interval over spatial blocks: rows and columns as `aggregate`.

    Whole blocks of spots are drawn with replacement and every score is computed anew on the pooled spots, so neighbors
    are not taken for independent. Spearman, which would need ranks anew, has no row. The interval covers other spots
    of this section, not other sections or patients.

    Parameters
    ----------
    measured
        `(n, G)` of one section; spots that are all NaN are left out.
    predicted
        Name to `(n, G)`.
    genes
        `(G,)` names of the columns.
    depth
        `(n,)` total counts.
    blocks
        `(n,)` labels, as from `splits.spatial_blocks`.
    n
        Bootstrap draws.
    level
        Coverage of the interval.
    seed
        Of the draws; the same blocks are drawn for every predictor.

    Raises
    ------
    BadInput
        If shapes do not match, or a prediction is missing at a measured spot.
    """
    import pandas as pd

    measured = np.asarray(measured)
    rows = np.flatnonzero(~np.isnan(measured).all(axis=1))
    given = log_depth(np.asarray(depth)[rows], len(rows))
    labels = np.unique(np.asarray(blocks)[rows], return_inverse=True)[1]
    n_blocks = int(labels.max()) + 1
    draws = np.random.default_rng(seed).multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=n)
    weights = np.vstack([np.ones(n_blocks), draws])  # the first row is the section as it is
    out = []
    for predictor, values in predicted.items():
        p = _prediction_at(values, measured.shape, rows, f"'{predictor}'")[rows]
        for metric, (means, bad) in _resampled(measured[rows], p, given, labels, weights).items():
            spread = interval(means[1:], level) if n_blocks > 1 else (float("nan"), float("nan"))
            names = [genes[i] for i in np.flatnonzero(bad)]
            out.append(_row(predictor, metric, (float(means[0]), *spread), n_blocks, genes, names))
    return pd.DataFrame(out)


def _resampled(y, p, given, labels, weights) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each metric, its mean over genes at each row of `weights` (draws × blocks), and the genes without a score."""
    from scipy.sparse import csr_array

    n_genes, given = y.shape[1], (given - given.mean())[:, None]
    members = csr_array((np.ones(len(y)), (labels, np.arange(len(y)))), shape=(weights.shape[1], len(y)))
    size = weights @ members.sum(axis=1)

    def mean(values: np.ndarray) -> np.ndarray:
        return weights @ (members @ values) / size[:, None]

    metrics = [name for name in METRICS if name != "spearman"]
    total, count = ({name: np.zeros(len(weights)) for name in metrics} for _ in range(2))
    bad = {name: np.zeros(n_genes, dtype=bool) for name in metrics}
    for block in gene_blocks(max(len(y), len(weights)), n_genes):
        scores = _scores_from_moments(y[:, block].astype(float), p[:, block].astype(float), given, mean)
        for name in metrics:
            total[name] += np.nansum(scores[name], axis=1)
            count[name] += (~np.isnan(scores[name])).sum(axis=1)
            bad[name][block] = np.isnan(scores[name][0])
    return {name: (total[name] / np.where(count[name] > 0, count[name], np.nan), bad[name]) for name in metrics}


def _scores_from_moments(y, p, d, mean: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """The scores as functions of means of products, so that a draw costs no pass over the spots."""
    least_y, least_p = ((ROUNDING * np.abs(side).max(axis=0)) ** 2 for side in (y, p))
    y, p = y - y.mean(axis=0), p - y.mean(axis=0)  # products of small numbers keep their digits
    y_mean, p_mean, d_mean = mean(y), mean(p), mean(d)
    var_y, var_p, var_d = mean(y**2) - y_mean**2, mean(p**2) - p_mean**2, mean(d**2) - d_mean**2
    yp, yd, pd = mean(y * p) - y_mean * p_mean, mean(y * d) - y_mean * d_mean, mean(p * d) - p_mean * d_mean
    error = mean((p - y) ** 2)
    var_y, var_p = np.where(var_y > least_y, var_y, np.nan), np.where(var_p > least_p, var_p, np.nan)
    per_d = np.where(var_d > ROUNDING**2, 1 / np.maximum(var_d, ROUNDING**2), 0)  # constant depth explains nothing
    rest_y, rest_p = var_y - yd**2 * per_d, var_p - pd**2 * per_d
    rest_y, rest_p = np.where(rest_y > least_y, rest_y, np.nan), np.where(rest_p > least_p, rest_p, np.nan)
    return {
        "pearson": yp / np.sqrt(var_y * var_p),
        "pearson_given_depth": (yp - yd * pd * per_d) / np.sqrt(rest_y * rest_p),
        "mse": error,
        "r2": 1 - error / var_y,
    }
