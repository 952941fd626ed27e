"""What features say of the section instead of the tissue: batch effects, in numbers that sound alike and are not.

All of `(n, F)` features, standardized, and `(n,)` labels. Silhouettes and probes run in the leading principal
components, as is usual for expression (Luecken et al. 2022, doi:10.1038/s41592-021-01336-8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.scores.scib import scib_rows

if TYPE_CHECKING:
    from pandas import DataFrame

COMPONENTS = 32
NEIGHBORS = 15
FOLDS = 3


def batch_table(features, section, label=None, *, scib: bool = False, seed: int = 0) -> DataFrame:
    """How much features are of their section.

    Parameters
    ----------
    features
        `(n, F)`.
    section
        `(n,)` labels.
    label
        `(n,)` labels of the tissue, if there are: domains, a pathologist's. Missing ones are left out.
    scib
        Add what scib-metrics calls iLISI and, of labels, the silhouettes and the connectivity of the graph of
        neighbors (extra `scib`).
    seed
        Of the folds.

    Returns
    -------
    A row per number, with columns `metric`, `value`, `chance` (what features that do not know the section have, NaN
    where there is no such number) and `meaning`: `silhouette_section`, `silhouette_label`, `neighbor_mixing` (share of
    the nearest neighbors that are of other sections, over that share of all rows), `section_probe` (balanced accuracy
    of a linear classifier), `variance_of_section` (share of the variance of the components).

    Raises
    ------
    BadInput
        If there is one section, or one has fewer rows than folds; or scib-metrics is asked for and not installed.

    Examples
    --------
    >>> table = sqi.bench.batch_table(pairs.image, pairs.section)
    """
    import pandas as pd

    section = np.asarray(section).astype(str)
    names, counts = np.unique(section, return_counts=True)
    if len(names) < 2 or counts.min() < FOLDS:
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        raise BadInput(f"batch numbers need 2 sections of {FOLDS} rows or more, got {found}.")
    parts = _components(features, seed)
    rows = [
        ("silhouette_section", _silhouette(parts, section, seed), 0.0, "above 0: rows lie with their section"),
        ("neighbor_mixing", _mixing(parts, section), 1.0, "1: neighbors are of any section; 0: of the own one"),
        ("section_probe", _probe(parts, section, seed), 1 / len(names), "accuracy of telling the section"),
        ("variance_of_section", _variance(parts, section), (len(names) - 1) / (len(section) - 1), "share of variance"),
    ]
    if label is not None:
        known = ~pd.isna(np.asarray(label, dtype=object))
        found = np.asarray(label, dtype=object)[known].astype(str)
        rows.append(("silhouette_label", _silhouette(parts[known], found, seed), 0.0, "above 0: labels lie together"))
    if scib:
        rows += scib_rows(parts, section, None if label is None else np.asarray(label, dtype=object))
    return pd.DataFrame(rows, columns=["metric", "value", "chance", "meaning"])


def _components(features, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    x = np.asarray(features, dtype=float)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    return PCA(min(COMPONENTS, *x.shape), random_state=seed).fit_transform(x)


def _silhouette(parts: np.ndarray, label: np.ndarray, seed: int) -> float:
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(label)) < len(label):
        return float("nan")
    return float(silhouette_score(parts, label, sample_size=min(len(parts), 5000), random_state=seed))


def _mixing(parts: np.ndarray, section: np.ndarray) -> float:
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBORS, len(parts) - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(parts).kneighbors(parts, return_distance=False)[:, 1:]
    names, codes, counts = np.unique(section, return_inverse=True, return_counts=True)
    expected = (len(section) - counts[codes]) / (len(section) - 1)
    return float(np.mean((section[near] != section[:, None]).mean(axis=1) / expected))


def _probe(parts: np.ndarray, section: np.ndarray, seed: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    scaled = parts / parts.std(axis=0).mean()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=1000)
    return float(cross_val_score(model, scaled, section, cv=folds, scoring="balanced_accuracy").mean())


def _variance(parts: np.ndarray, section: np.ndarray) -> float:
    """Variance between the means of sections, over all of it."""
    between = sum((section == name).mean() * parts[section == name].mean(axis=0) ** 2 for name in np.unique(section))
    return float(np.sum(between) / parts.var(axis=0).sum())
