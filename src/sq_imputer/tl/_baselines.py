"""What stands beside a model in `tl.score`: baselines fitted as it was, and what the texture tells before any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.predictor.registry import get_model
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.scores import metrics, smoothness
from sq_imputer.scores.splits import folds

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.section.slide import Slide

BASELINES = ("mean", "depth only", "ridge on texture")
COORDINATES = "coordinates only"  # beside targets other than genes
NEAREST = 10  # rows that the coordinates say something by, and what is usual, which counts as one more


def baselines_of(
    slide: Slide,
    rows: np.ndarray,
    folded: np.ndarray | None,
    buffer_um: float,
    training: list[Slide] | None,
    plan: Plan,
) -> dict[str, np.ndarray]:
    """Predictions of the baselines, fitted as the model was: on the other folds, or on its training sections.

    Of another target than genes also what the nearest rows are (in other sections: about their middle), and nothing
    by depth where that is not known.

    `folded` `(n, repeats)`: where the model is the mean over several partitions, so are they.
    """
    model = get_model("ridge")
    for one in (slide, *(training or ())):
        one.checked.skip(model().needs)  # the image may be coarser than its crops: it is fitted on that very image
    names = _names(slide, rows, training)
    out = {name: np.zeros((len(rows), len(slide.genes)), dtype=np.float32) for name in names}
    share = 1 if folded is None else 1 / folded.shape[1]

    def fill(places, training: list[Slide], which: np.ndarray) -> None:
        kept = [s.depth > 0 if s.target.is_genes else s.measured for s in training]
        y, depth = (
            np.concatenate([getattr(s, name)[k] for s, k in zip(training, kept, strict=True)])
            for name in ("expression", "depth")
        )
        ridge = model().fit(training, plan)
        said = ridge.predict(slide, rows=which, device=plan.device).mean.numpy()
        out["mean"][places] += share * metrics.mean_only(y, len(which))
        if "depth only" in names:
            said_by_depth = metrics.depth_only(y, depth, slide.depth[which])
            out["depth only"][places] += share * as_shares(slide, said_by_depth)
        if COORDINATES in names:
            out[COORDINATES][places] += share * _by_place(slide, which, training, kept, y)
        out["ridge on texture"][places] += share * said

    if training is not None:
        fill(slice(None), training, rows)
        return out
    inside, beyond = np.flatnonzero(folded[:, 0] >= 0), np.flatnonzero(folded[:, 0] < 0)
    xy = slide.xy_um[rows[inside]]
    splits = [split for fold in folded[inside].T for split in folds(xy, buffer_um=buffer_um, blocks=fold)]
    for split in track(splits, "baselines", len(splits)):
        fill(inside[split.test], [slide.take(rows[inside[split.train]])], rows[inside[split.test]])
    if len(beyond):  # as the model: fitted on all that was measured then
        share = 1
        fill(beyond, [slide.take(rows[inside])], rows[beyond])
    return out


def _names(slide: Slide, rows: np.ndarray, training: list[Slide] | None) -> tuple[str, ...]:
    """The baselines that there can be."""
    if slide.target.is_genes:
        return BASELINES
    counted = np.isfinite(slide.depth[rows]).all() and all(
        np.isfinite(s.depth[s.measured]).all() for s in training or ()
    )
    return tuple(name for name in (*BASELINES, COORDINATES) if counted or name != "depth only")


def as_shares(slide: Slide, values: np.ndarray) -> np.ndarray:
    """Values of what sums to 1 as shares; others as they are."""
    if slide.target.link != "softmax":
        return values
    values = values.clip(1e-3)
    return values / values.sum(axis=1, keepdims=True)


def _by_place(
    slide: Slide, which: np.ndarray, training: list[Slide], kept: list[np.ndarray], y: np.ndarray
) -> np.ndarray:
    """The mean of the nearest training rows; sections are laid on each other by their middles."""
    from scipy.spatial import cKDTree

    alone = len(training) == 1 and training[0].section == slide.section
    middles = [np.zeros(2) if alone else s.xy_um[k].mean(axis=0) for s, k in zip(training, kept, strict=True)]
    places = np.concatenate([s.xy_um[k] - m for s, k, m in zip(training, kept, middles, strict=True)])
    own = slide.xy_um[which] - (0 if alone else slide.xy_um.mean(axis=0))
    nearest = cKDTree(places).query(own, k=min(NEAREST, len(places)))[1].reshape(len(own), -1)
    return (y[nearest].sum(axis=1) + y.mean(axis=0)) / (nearest.shape[1] + 1)


def eps_of(slide: Slide, rows: np.ndarray, measured: np.ndarray, plan: Plan) -> DataFrame:
    """How smooth the genes are among spots that look alike to the baseline, whose features these are."""
    import pandas as pd

    some = smoothness.sampled(len(rows), plan.seed)
    seen = slide.take(rows[some])
    features = seen.all_features(get_model("ridge")().needs, device=plan.device)
    eps = smoothness.image_eps(measured[some], features, seen.xy_um, seen.depth, seed=plan.seed)
    return pd.DataFrame(eps, index=list(slide.genes))
