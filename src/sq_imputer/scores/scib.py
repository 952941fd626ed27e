"""Numbers of batch effects as scib-metrics has them, for those who compare with its tables (extra `scib`).

Luecken et al. 2022, doi:10.1038/s41592-021-01336-8. Neighbors are exact here, so that the same features give the same
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from sq_imputer.errors import BadInput

NEIGHBORS = 90  # a row itself included, as in its benchmark


def scib_rows(parts: np.ndarray, section: np.ndarray, label: np.ndarray | None) -> Iterator[tuple]:
    """Metric, value, chance and meaning.

    Parameters
    ----------
    parts
        `(n, k)` components.
    section
        `(n,)` labels.
    label
        `(n,)` labels of the tissue, None where there is none.

    Raises
    ------
    BadInput
        If scib-metrics is not installed.
    """
    scib = _scib()
    names, counts = np.unique(section, return_counts=True)
    mixed = (1 / np.square(counts / counts.sum()).sum() - 1) / (len(names) - 1)
    near = _near(scib, parts)
    yield "scib_ilisi", float(scib.ilisi_knn(near, section)), mixed, "scib-metrics; sections among the neighbors"
    if label is None:
        return
    known = np.array([one is not None and one == one for one in label])
    parts, section, label = parts[known], section[known], label[known].astype(str)
    none = float("nan")
    by_batch = float(scib.silhouette_batch(parts, label, section))
    yield "scib_silhouette_batch", by_batch, none, "scib-metrics; 1: labels lie together whatever the section"
    by_label = float(scib.silhouette_label(parts, label))
    yield "scib_silhouette_label", by_label, 0.5, "scib-metrics; above .5: labels lie together"
    connected = float(scib.graph_connectivity(_near(scib, parts), label))
    yield "scib_graph_connectivity", connected, none, "scib-metrics; 1: a label is one piece of the neighbor graph"


def _scib() -> ModuleType:
    try:
        import scib_metrics
    except ImportError as error:
        raise BadInput(
            f'scib=True needs scib-metrics, which did not import ({error}). Run: pip install "sq-imputer[scib]", or '
            "leave out scib: the other numbers need nothing."
        ) from error
    return scib_metrics


def _near(scib: ModuleType, parts: np.ndarray):
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBORS, len(parts))
    distances, indices = NearestNeighbors(n_neighbors=k).fit(parts).kneighbors(parts)
    return scib.nearest_neighbors.NeighborsResults(indices=indices, distances=distances)
