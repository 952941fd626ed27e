r"""How smooth a gene is among spots that look alike: what an image can say of it, before any model.

Spots are joined to those whose features of the image are nearest to theirs. On this graph with adjacency :math:`W`,
degrees :math:`d` and Laplacian :math:`L = D - W`, a gene :math:`y`, centered by degree, has the quotient

.. math::

    R(y) = \frac{y^\top L\, y}{y^\top D\, y} = 1 - \frac{y^\top W y}{\sum_i d_i y_i^2}

which is about 1 for noise and falls towards 0 where spots that look alike express alike. Neighbors on the tissue look
alike, and express alike whatever the image shows; so the quotient is compared with that of the same gene displaced over
the section as a torus, which keeps its pattern and parts it from the image:

.. math::

    \mathrm{eps}(y) = -\log R(y) + \frac{1}{S} \sum_s \log R(y \circ s)

0 is what the place alone gives. Spots that a displacement takes off the tissue are left out of its quotient.
"""

from __future__ import annotations

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.scores.metrics import centered, gene_blocks, log_depth

COLUMNS = ("image_eps", "image_eps_given_depth")
AT_MOST = 5000  # spots: more are sampled, as a graph of these tells
COMPONENTS = 30  # of the features
N_DISPLACED = 30
LEAST_KEPT = 1 / 3  # of the spots, after a displacement
TRIES = 20  # displacements that are drawn for one that keeps so many


def feature_graph(features: np.ndarray, n_neighbors: int = 15):
    """Spots that look alike: a symmetric sparse `(n, n)` matrix, 1 where one is among the nearest of the other.

    Parameters
    ----------
    features
        `(n, F)` of the image; each is scaled to unit variance, and their leading components are compared.
    n_neighbors
        How many are nearest; fewer where there are fewer spots.

    Raises
    ------
    BadInput
        If there are fewer than 3 spots.
    """
    from sklearn.neighbors import kneighbors_graph

    if len(features) < 3:
        raise BadInput(f"there are {len(features)} spots; a graph of their features needs 3 or more.")
    x = np.asarray(features, dtype=float) - np.mean(features, axis=0, dtype=float)
    spread = x.std(axis=0)
    x = x[:, spread > 1e-9] / spread[spread > 1e-9]
    n_neighbors = min(n_neighbors, len(x) - 1)
    if x.shape[1] > COMPONENTS:
        x = x @ np.linalg.eigh(x.T @ x)[1][:, -COMPONENTS:]
    if not x.shape[1]:
        x = np.zeros((len(x), 1))
    graph = kneighbors_graph(x, n_neighbors)
    return graph.maximum(graph.T)


def sampled(n: int, seed: int) -> np.ndarray:
    """Rows that are looked at: all, or 5000 of more, ascending."""
    return np.arange(n) if n <= AT_MOST else np.sort(np.random.default_rng(seed).choice(n, AT_MOST, replace=False))


def image_eps(y, features: np.ndarray, xy_um: np.ndarray, depth, *, seed: int = 0) -> dict[str, np.ndarray]:
    """How much smoother genes are among spots that look alike than the same genes displaced.

    Parameters
    ----------
    y
        `(n, G)` measured expression, without NaN.
    features
        `(n, F)` features of the image at the spots.
    xy_um
        `(n, 2)` places of the spots.
    depth
        `(n,)` total counts.
    seed
        Of the displacements.

    Returns
    -------
    `image_eps`, `(G,)`: 0 where the image tells no more than the place, larger where it tells more; and
    `image_eps_given_depth`, the same of what is left of the genes once log depth is known. NaN for a gene that does
    not vary, or where no displacement keeps a third of the spots.

    Raises
    ------
    BadInput
        If shapes do not match, there are fewer than 3 spots, or a depth is not positive.
    """
    y, features, xy = np.asarray(y), np.asarray(features), np.asarray(xy_um, dtype=float)
    if y.ndim != 2 or not len(y) == len(features) == len(xy):
        raise BadInput(f"y is {y.shape}, features {features.shape}, places {xy.shape}; expected a row per spot in all.")
    given, graph, rng = log_depth(depth, len(y)), feature_graph(features), np.random.default_rng(seed)
    moves = [move for move in (displaced(xy, rng) for _ in range(N_DISPLACED)) if move is not None]
    parts = [
        [_eps(centered(y[:, block], known), graph, moves) for block in gene_blocks(len(y), y.shape[1])]
        for known in (None, given)
    ]
    return dict(zip(COLUMNS, map(np.concatenate, parts), strict=True))


def _eps(y: np.ndarray, graph, moves: list) -> np.ndarray:
    if not moves:
        return np.full(y.shape[1], np.nan)
    displaced = [_log_quotient(y[source], kept, graph) for source, kept in moves]
    return np.mean(displaced, axis=0) - _log_quotient(y, np.ones(len(y), dtype=bool), graph)


def _log_quotient(y: np.ndarray, kept: np.ndarray, graph) -> np.ndarray:
    """Logarithm of R of genes `(n, G)` on the part of a graph that is kept."""
    degree = np.where(kept, graph @ kept.astype(float), 0.0)[:, None]
    y = np.where(kept[:, None], y - (degree * y).sum(axis=0) / degree.sum(), 0.0)
    whole = (degree * y**2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.maximum(1 - (y * (graph @ y)).sum(axis=0) / whole, 1e-6))


def displaced(xy: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """From which spot every spot takes its expression when the section is displaced as a torus, and which can.

    By a fourth of the section or more along one axis at least; a spot can where one lies within the distance of
    neighbors of the place that is displaced to it. None if no displacement keeps enough of them.
    """
    from scipy.spatial import cKDTree

    low, size = xy.min(axis=0), np.maximum(np.ptp(xy, axis=0), 1e-9)
    tree = cKDTree(xy)
    reach = np.median(tree.query(xy, k=2)[0][:, 1])
    for _ in range(TRIES):
        step = rng.random(2)
        if np.abs(step - np.round(step)).max() < 0.25:
            continue
        distance, source = tree.query(low + (xy - low + step * (size + reach)) % (size + reach))
        kept = distance <= reach
        if kept.mean() >= LEAST_KEPT:
            return source, kept
    return None
