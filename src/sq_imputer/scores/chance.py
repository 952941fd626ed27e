"""Whether a gene is predicted beyond chance, where chance keeps the patterns of both sides.

Neighbors on the tissue are alike, so that two maps that have nothing to do with each other correlate by more than
shuffled ones do. What was measured is therefore displaced over the section as a torus
(:func:`sq_imputer.scores.smoothness.displaced`): its pattern stays, and lies on another part of the prediction.
"""

from __future__ import annotations

import numpy as np

from sq_imputer.scores.metrics import centered, log_depth, pearson_given
from sq_imputer.scores.smoothness import displaced
from sq_imputer.scores.splits import spatial_blocks

LEAST_DRAWS = 20


def displaced_skill(y, p, depth, xy_um, *, n: int = 200, seed: int = 0) -> np.ndarray:
    """Pearson given depth of measured `(n, G)` and predicted, as it is after each of some displacements, `(n, G)`.

    Depth is taken out of both before. NaN, all rows, where no displacement keeps a third of the spots.
    """
    rng, given = np.random.default_rng(seed), log_depth(depth, len(y))
    y, p, xy = centered(y, given), centered(p, given), np.asarray(xy_um, dtype=float)
    found = np.full((n, y.shape[1]), np.nan)
    for draw in found:
        move = displaced(xy, rng)
        if move is None:
            break
        source, kept = move
        a, b = y[source][kept], p[kept]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            draw[:] = (a * b).sum(axis=0) / size
    return found


def drawn_skill(y, p, depth, xy_um, *, n: int = 200, blocks: int = 10, seed: int = 0) -> np.ndarray:
    """The same score, `(n, G)`, of spatial blocks drawn with replacement."""
    labels, rng = spatial_blocks(xy_um, min(blocks, len(y))), np.random.default_rng(seed)
    members = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    drawn = (np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))]) for _ in range(n))
    return np.stack([pearson_given(y[rows], p[rows], depth[rows]) for rows in drawn])


def p_values(skill: np.ndarray, null: np.ndarray) -> np.ndarray:
    """One-sided p-values `(G,)` of scores `(G,)` among draws `(n, G)`: t with n - 1 degrees of freedom.

    So that they go below 1 / n, which correction over genes needs. NaN where there are fewer than 20 draws.
    """
    from scipy.stats import t

    n = np.isfinite(null).sum(axis=0)
    mean = np.where(n > 0, np.nansum(null, axis=0) / np.maximum(n, 1), np.nan)
    spread = np.sqrt(np.nansum((null - mean) ** 2, axis=0) / np.maximum(n - 1, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = t.sf((skill - mean) / (spread * np.sqrt(1 + 1 / np.maximum(n, 1))), np.maximum(n - 1, 1))
    return np.where((n >= LEAST_DRAWS) & (spread > 0), p, np.nan)


def corrected(p: np.ndarray) -> np.ndarray:
    """False discovery rates `(G,)` by Benjamini and Hochberg, 1995; NaN are left out."""
    from scipy.stats import false_discovery_control

    found, known = np.full(len(p), np.nan), np.isfinite(p)
    if known.any():
        found[known] = false_discovery_control(p[known])
    return found
