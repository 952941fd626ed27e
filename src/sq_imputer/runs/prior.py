"""What a model of DNA says of genes that it has not seen: out of fold by chromosome, or as a fitted one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.apart import check_split
from sq_imputer.progress import track

if TYPE_CHECKING:
    from sq_imputer.genes.windows import GeneWindows
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.train import Plan

BASES = 2**20  # of the windows that are looked at together

# n genes, C contexts, D numbers of the embedding


@dataclass
class Said:
    """Mean and standard deviation `(n, C)`, embedding `(n, D)`, fold `(n,)`, and the models that said it."""

    mean: np.ndarray
    std: np.ndarray | None
    embedding: np.ndarray | None
    fold: np.ndarray
    models: list[Predictor]


def by_fitted(predictor: Predictor, windows: GeneWindows, plan: Plan) -> Said:
    """What a fitted model says of all genes, seen or not."""
    said = _said(predictor, windows, plan)
    return replace(said, fold=np.full(len(windows), -1))


def out_of_fold(predictor: Predictor, windows: GeneWindows, n_folds: int, plan: Plan) -> Said:
    """Measured genes by models that have seen none of their chromosome, the others by one fitted on all that were.

    Embeddings of several models have axes of their own: each is turned (orthogonal Procrustes) onto those of the first
    by the genes that it was trained on.
    """
    parts = windows.by_chromosome()
    fold = folds_of(windows, n_folds)
    measured, whole = windows.measured, None
    last = int(fold.max())
    every = ([-1] if (~measured).any() else []) + list(range(last + 1))
    for k in track(every, f"{predictor.card.name} by chromosome", len(every), shown=plan.progress):
        train = [part for part in parts if part.measured.any() and (k < 0 or _fold_of(part, windows, fold) != k)]
        if k >= 0:
            check_split(train, [part for part in parts if _fold_of(part, windows, fold) == k])
        said = _said(predictor.fresh().fit(train, plan), windows, plan)
        own = ~measured if k < 0 else measured & (fold == k)
        whole = said if whole is None else _put(whole, said, own, measured & (fold != k))
    return replace(whole, fold=np.where(measured, fold, -1))


def folds_of(windows: GeneWindows, n_folds: int) -> np.ndarray:
    """Fold `(n,)` of every gene: whole chromosomes, the largest first, each to the fold that has the fewest genes."""
    labels = windows.cut.labels.astype(str)
    names, counts = np.unique(labels[windows.measured], return_counts=True)
    if len(names) < 2:
        raise BadInput(
            f"genes were measured on {len(names)} {windows.cut.parts}, and a model is fitted on others than it is "
            "asked about. Pass windows of more chromosomes, or a model that was fitted on other genes."
        )
    sizes, dealt = np.zeros(min(n_folds, len(names)), dtype=int), {}
    for name, count in sorted(zip(names, counts, strict=True), key=lambda one: (-one[1], one[0])):
        dealt[name] = int(sizes.argmin())
        sizes[dealt[name]] += count
    return np.array([dealt.get(label, -1) for label in labels])


def check_seen(predictor: Predictor, windows: GeneWindows, allowed: bool) -> list[str]:
    """Genes among the windows that a fitted model was trained on; an error unless that is allowed."""
    known = {name for names in predictor.provenance.get("row_names", []) for name in names}
    seen = [name for name in windows.names if name in known]
    if seen and not allowed:
        raise BadInput(
            f"this '{predictor.card.name}' was trained on {len(seen)} of {len(windows)} genes: {listed(seen)}. Three "
            "ways out: pass its name, and every gene is predicted by a model that has not seen its chromosome; pass "
            "windows of other genes; or allow_seen=True, which marks them."
        )
    return seen


def _fold_of(part: GeneWindows, windows: GeneWindows, fold: np.ndarray) -> int:
    return int(fold[int(np.flatnonzero(windows.cut.labels == part.cut.labels[0])[0])])


def _said(predictor: Predictor, windows: GeneWindows, plan: Plan) -> Said:
    rows = rows_at_once(predictor.needs.sequence, plan.batch_size or 64)
    found = predictor.predict(windows, batch_size=rows, device=plan.device)
    parts = [None if part is None else part.numpy() for part in (found.mean, found.std, found.embedding)]
    return Said(*parts, np.zeros(len(windows), dtype=int), [predictor])


def rows_at_once(length: int, most: int = BASES) -> int:
    """Windows that are read together: some million bases; a model may read none."""
    return min(most, max(1, BASES // max(length, 1)))


def _put(whole: Said, said: Said, own: np.ndarray, shared: np.ndarray) -> Said:
    """The answers with those of one more model for its own genes."""
    embedding = None if said.embedding is None else turned(said.embedding, whole.embedding, shared)
    pairs = [(whole.mean, said.mean), (whole.std, said.std), (whole.embedding, embedding)]
    parts = [None if old is None else np.where(own[:, None], new, old) for old, new in pairs]
    return Said(*parts, whole.fold, [*whole.models, *said.models])


def turned(found: np.ndarray, onto: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Vectors turned, and moved, so that those of some rows lie nearest to others: distances among them stay."""
    center, target = found[rows].mean(axis=0), onto[rows].mean(axis=0)
    u, _, v = np.linalg.svd((found[rows] - center).T.astype(float) @ (onto[rows] - target))
    return ((found - center) @ (u @ v) + target).astype(np.float32)
