"""What stands beside a model in `tl.score`: baselines fitted as it was, and what the texture tells before any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.predictor.registry import get_model
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.scores import metrics
from sq_imputer.scores.shares import as_shares
from sq_imputer.scores.splits import folds
from sq_imputer.section.nearby import COORDINATES, by_place, counted, eps_of

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.section.slide import Slide

BASELINES = ("mean", "depth only", "ridge on texture")


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
            out["depth only"][places] += share * as_shares(slide.target, said_by_depth)
        if COORDINATES in names:
            out[COORDINATES][places] += share * by_place(slide, which, training, kept)
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
    known = counted(slide, rows, training or ())
    return tuple(name for name in (*BASELINES, COORDINATES) if known or name != "depth only")


def eps_by_gene(slide: Slide, rows: np.ndarray, measured: np.ndarray, plan: Plan) -> DataFrame:
    """How smooth the genes are among spots that look alike to the baseline, whose features these are."""
    import pandas as pd

    return pd.DataFrame(eps_of(slide, rows, measured, get_model("ridge")().needs, plan), index=list(slide.genes))
