"""Spatial clustering of arrays: features and places of spots in, numbers of domains out.

Established: Leiden on a graph of expression neighbors to which spatial neighbors are added, k-means, Gaussian mixtures
of one shared covariance (the EEE of mclust). Ours: the share of the spatial edges is stated as a share of all weight,
and rows are put in spatial order first, so that the order of a table does not decide about its domains.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.device import threads_kept
from sq_imputer.errors import BadInput, check_number
from sq_imputer.places import order as order_of
from sq_imputer.scores.moments import chunks, mean_and_std
from sq_imputer.section.lattice import pitch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

METHODS = ("leiden", "kmeans", "gmm")
N_NEIGHBORS = 15  # of expression, as scanpy has it
MOST_EXACT = 50_000  # rows; of more, neighbors in expression are searched for by an approximation
MOST_BY_LEIDEN = 150_000  # rows; of 100,000 one partition took three minutes
# Spots are neighbors where their Delaunay edge is no longer than this many pitches: the diagonal of a square lattice
# (1.41, and jitter) is in, an edge across a hole or along the border is not.
REACH = 1.6
SHEAR = 1e-4
_RESOLUTIONS = (1e-3, 1e2)


@dataclass(frozen=True)
class Settings:
    """How domains are made; see :func:`sq_imputer.tl.domains`."""

    method: str = "leiden"
    n_domains: int | None = None
    resolution: float | None = None
    n_pcs: int = 20
    spatial_weight: float = 0.3
    smooth: int = 0
    seed: int = 0

    def check(self) -> None:
        """Whether the settings go together."""
        if self.method not in METHODS:
            raise BadInput(f"method is '{self.method}'; expected one of {', '.join(map(repr, METHODS))}.")
        if self.n_domains is not None and self.resolution is not None:
            raise BadInput("n_domains and resolution are both given; the one decides the other. Pass one of them.")
        if self.method != "leiden" and self.n_domains is None:
            raise BadInput(f"method '{self.method}' needs n_domains=, the number of domains; resolution is Leiden's.")
        if self.n_domains is not None:
            check_number("n_domains", self.n_domains, 2, whole=True)
        if self.resolution is not None:
            check_number("resolution", self.resolution)
        if self.resolution == 0:
            raise BadInput(f"resolution is {self.resolution}; expected a positive number, 1 for a start.")
        check_number("spatial_weight", self.spatial_weight, 0, 1)
        for name, least in (("n_pcs", 1), ("smooth", 0), ("seed", 0)):
            check_number(name, getattr(self, name), least, 2**32 - 1 if name == "seed" else math.inf, whole=True)

    def warn_of_time(self, n_rows: int) -> None:
        """Say, before anything is computed, that Leiden is not for so many rows."""
        if self.method == "leiden" and n_rows > MOST_BY_LEIDEN:
            tries = "" if self.n_domains is None else ", and n_domains= tries up to 25 resolutions"
            warnings.warn(
                f"method 'leiden' on {n_rows:,} rows: of 100,000 one partition took three minutes and 2.5 GB{tries}. "
                "Pass method='kmeans' and n_domains=, which takes seconds, or fewer rows.",
                UserWarning,
                stacklevel=4,
            )


def cluster(
    features: Sequence[Sequence[np.ndarray]], xy: Sequence[np.ndarray], settings: Settings
) -> tuple[list[np.ndarray], Settings]:
    """Domains of all sections together.

    Parameters
    ----------
    features
        For every section its blocks, `(n, D)` each; the same blocks and columns in all sections, without NaN.
    xy
        For every section `(n, 2)` places.
    settings
        How; `resolution` is filled in where Leiden was asked for a number of domains.

    Returns
    -------
    For every section `(n,)` numbers of domains, 0 the largest over all sections; and the settings that made them.
    """
    import scipy.sparse as sp

    n_spots = sum(map(len, xy))
    if settings.n_domains is not None and settings.n_domains > n_spots // 2:
        raise BadInput(f"n_domains is {settings.n_domains} for {n_spots} spots; expected {n_spots // 2} or less.")
    given, turn = len(xy), _by_content(features)
    features, xy = [features[k] for k in turn], [xy[k] for k in turn]
    orders = [order_of(places) for places in xy]
    sorted_xy = [np.asarray(places)[order] for places, order in zip(xy, orders, strict=True)]
    spots = _joint(features, orders, settings)
    lattice = sp.block_diag([neighbors(places) for places in sorted_xy], format="csr")
    if settings.method == "leiden":
        with threads_kept():
            labels, settings = _leiden(spots, lattice, settings)
    else:
        labels = _mixture(spots, lattice, settings)
    for _ in range(settings.smooth):
        labels = _majority(labels, lattice)
    found = np.split(by_size(labels), np.cumsum([len(places) for places in sorted_xy])[:-1])
    for numbers, order in zip(found, orders, strict=True):
        numbers[order] = numbers.copy()
    return [found[turn.index(k)] for k in range(given)], settings


def _by_content(features: Sequence[Sequence[np.ndarray]]) -> list[int]:
    """Order of the sections by what they hold, so that neither their order nor their names decide about domains."""
    if len(features) == 1:
        return [0]
    keys = [(len(blocks[0]), *(float(np.abs(block).sum()) for block in blocks)) for blocks in features]
    return sorted(range(len(keys)), key=keys.__getitem__)


def neighbors(xy: np.ndarray) -> csr_matrix:
    """Adjacency `(n, n)`, 0 or 1, of spots beside each other: Delaunay edges of no more than `REACH` pitches."""
    from anndata import AnnData

    with warnings.catch_warnings():  # docrep's, of keywords in squidpy's own documentation
        warnings.simplefilter("ignore", SyntaxWarning)
        import squidpy as sq

    reach = REACH * pitch(xy)
    # the two diagonals of a square tie: a shear far above rounding and far below jitter says which is the edge
    sheared = np.asarray(xy, dtype=float) @ [[1, 0], [SHEAR, 1]]
    spots = AnnData(np.zeros((len(xy), 1), np.float32), obsm={"spatial": sheared})
    with _quiet():
        return sq.gr.spatial_neighbors_delaunay(spots, radius=(0.0, reach), copy=True).connectivities.tocsr()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without squidpy's note on each graph, which goes to the logger of spatialdata."""
    logger = logging.getLogger("spatialdata._logging")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _joint(features: Sequence[Sequence[np.ndarray]], orders: Sequence[np.ndarray], settings: Settings) -> np.ndarray:
    """Principal components `(N, P)` of all sections; every block has the same weight, and its columns no section."""
    from sklearn.decomposition import PCA

    parts = []
    for sections in zip(*features, strict=True):
        n_rows = sum(map(len, sections))
        n_pcs = min(settings.n_pcs, n_rows, sections[0].shape[1])
        if n_rows > MOST_EXACT:
            found = components(sections, orders, n_pcs)
        else:
            values = np.concatenate([_scaled(own[order]) for own, order in zip(sections, orders, strict=True)])
            found = PCA(n_pcs, random_state=settings.seed).fit_transform(values)
        parts.append(found / max(np.sqrt((found**2).sum(axis=1).mean()), 1e-12))
    return np.concatenate(parts, axis=1)


def components(sections: Sequence[np.ndarray], orders: Sequence[np.ndarray], n_pcs: int) -> np.ndarray:
    """Principal components `(N, n_pcs)` of many rows, in these orders, a few thousand at a time.

    What sklearn finds, to rounding, of the same columns of mean 0 and standard deviation 1 within each section.
    """
    moments = [mean_and_std(own[rows] for rows in chunks(order)) for own, order in zip(sections, orders, strict=True)]

    def scaled() -> Iterator[np.ndarray]:
        for own, order, (mean, spread) in zip(sections, orders, moments, strict=True):
            for rows in chunks(order):
                yield np.divide(own[rows] - mean, spread, out=np.zeros((len(rows), len(mean))), where=spread > 1e-9)

    _, vectors = np.linalg.eigh(sum(values.T @ values for values in scaled()))
    axes = vectors[:, ::-1][:, :n_pcs]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_pcs)])
    return np.concatenate([values @ axes for values in scaled()])


def _scaled(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and standard deviation 1 within the section; those that do not vary are 0."""
    values = np.asarray(values, dtype=float)
    values = values - values.mean(axis=0)
    spread = values.std(axis=0)
    return np.divide(values, spread, out=np.zeros_like(values), where=spread > 1e-9)


def _leiden(spots: np.ndarray, lattice: csr_matrix, settings: Settings) -> tuple[np.ndarray, Settings]:
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(spots.astype(np.float32))
    n_neighbors = min(N_NEIGHBORS, len(spots) - 1)
    search = _search(len(spots), n_neighbors, settings.seed)
    sc.pp.neighbors(adata, n_neighbors=n_neighbors, use_rep="X", transformer=search, random_state=settings.seed)
    similar, share = adata.obsp["connectivities"], settings.spatial_weight
    graph = (similar * ((1 - share) / similar.sum()) + lattice * (share / max(lattice.sum(), 1))) * len(spots)

    def at(resolution: float) -> np.ndarray:
        how = {"flavor": "igraph", "n_iterations": -1, "directed": False, "random_state": settings.seed}
        sc.tl.leiden(adata, resolution, adjacency=graph.tocsr(), **how)
        return adata.obs["leiden"].cat.codes.to_numpy().astype(int)

    if settings.n_domains is None:
        settings = replace(settings, resolution=settings.resolution or 1.0)
        return at(settings.resolution), settings
    labels, resolution = _bisect(at, settings.n_domains)
    return _merged(labels, spots, settings.n_domains), replace(settings, resolution=resolution)


def _search(n_spots: int, n_neighbors: int, seed: int):
    """How scanpy finds neighbors in expression: exactly as long as that takes seconds, else as umap does."""
    if n_spots <= MOST_EXACT:
        return "sklearn"
    from pynndescent import PyNNDescentTransformer
    from scipy.sparse import csr_matrix

    class Approximate(PyNNDescentTransformer):
        """Since pynndescent 0.7 its matrix is a csr_array, which scanpy 1.11 does not take."""

        def fit_transform(self, X, y=None):
            return csr_matrix(super().fit_transform(X))

    effort = {"n_trees": min(64, 5 + round(n_spots**0.5 / 20)), "n_iters": max(5, round(math.log2(n_spots)))}
    return Approximate(n_neighbors=n_neighbors, random_state=seed, **effort)


def _bisect(at, wanted: int) -> tuple[np.ndarray, float]:
    """The partition of this many domains, or the coarsest seen that has more."""
    low, high = np.log(_RESOLUTIONS)
    labels, resolution = at(np.exp(high)), np.exp(high)
    for _ in range(25):
        middle = (low + high) / 2
        found = at(np.exp(middle))
        if (found.max() + 1) < wanted:
            low = middle
            continue
        high = middle
        if found.max() <= labels.max():
            labels, resolution = found, np.exp(middle)
        if labels.max() + 1 == wanted:
            break
    return labels, float(resolution)


def _merged(labels: np.ndarray, spots: np.ndarray, wanted: int) -> np.ndarray:
    """The smallest domain joins the one of the nearest mean, until there are as many as wanted."""
    labels = labels.copy()
    while len(names := np.unique(labels)) > wanted:
        means = np.array([spots[labels == name].mean(axis=0) for name in names])
        least = np.argmin([(labels == name).sum() for name in names])
        far = np.linalg.norm(means - means[least], axis=1)
        far[least] = np.inf
        labels[labels == names[least]] = names[far.argmin()]
    return labels


def _mixture(spots: np.ndarray, lattice: csr_matrix, settings: Settings) -> np.ndarray:
    """k-means or a Gaussian mixture of features that are shared with spatial neighbors."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    spots = _blended(spots, lattice, settings.spatial_weight)
    if settings.method == "kmeans":
        return KMeans(settings.n_domains, n_init=10, random_state=settings.seed).fit_predict(spots)
    common = {"covariance_type": "tied", "reg_covar": 1e-5, "n_init": 5, "random_state": settings.seed}
    return GaussianMixture(settings.n_domains, **common).fit_predict(spots)


def _blended(spots: np.ndarray, lattice: csr_matrix, weight: float) -> np.ndarray:
    """Features with a share of the mean of the neighbors in space."""
    degree = np.asarray(lattice.sum(axis=1)).reshape(-1, 1)
    around = np.where(degree > 0, lattice @ spots / np.maximum(degree, 1), spots)
    return (1 - weight) * spots + weight * around


def shared(blocks: Sequence[np.ndarray], xy: np.ndarray, settings: Settings) -> np.ndarray:
    """What k-means clusters of one section `(n, P)`, for who asks for one number of domains after the other."""
    spots = _joint([[block] for block in blocks], [np.arange(len(xy))], settings)
    return _blended(spots, neighbors(xy), settings.spatial_weight)


def _majority(labels: np.ndarray, lattice: csr_matrix) -> np.ndarray:
    """Every spot takes the domain that most of its neighbors and itself have; its own, where that is one of them."""
    own = np.eye(labels.max() + 1)[labels]
    return (lattice @ own + 1.001 * own).argmax(axis=1)


def by_size(labels: np.ndarray) -> np.ndarray:
    """Numbers by size, the largest 0; of equal ones, that of the first spot goes first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=int)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    return rank[inverse]


def outlines(xy: np.ndarray, labels: np.ndarray) -> dict[int, object]:
    """Polygons of domains: the union of the lattice cells of their spots.

    A cell is what is nearer to its spot than to any other, and within three quarters of the pitch: that covers the
    corners of a square cell, and ends at holes and at the border.

    Parameters
    ----------
    xy
        `(n, 2)` centers.
    labels
        `(n,)` numbers of domains; the cells of negative ones belong to none.
    """
    import shapely

    points = shapely.points(xy)
    cells = np.asarray(shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(points))))
    spot, cell = shapely.STRtree(cells).query(points, predicate="intersects")
    mine = np.empty(len(points), dtype=object)
    mine[spot] = cells[cell]
    step = pitch(xy)
    mine = shapely.intersection(mine, shapely.buffer(points, 0.75 * step))
    return {int(k): shapely.union_all(mine[labels == k], grid_size=1e-6 * step) for k in np.unique(labels[labels >= 0])}
