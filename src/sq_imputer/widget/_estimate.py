"""How long a prediction will take and how much memory it needs, from a look at a small part of it.

Some rows that lie side by side are read and described, which is timed, and a model is fitted on them for one epoch. The
rest is proportion: rows by rows, and for models that are trained step by step rows by epochs, as many as the model
takes at most. Rows at the edge of a patch cost more than those inside, and training may stop early: the estimate is a
bound rather than a mean.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.predictor.train import Plan
from sq_imputer.section.points import at_points

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.slide import Slide

PROBED = 24  # rows that are looked at
MEASURED = 3  # matrices of rows by genes that a table gets: measured, predicted, X


@dataclass(frozen=True)
class Estimate:
    """What a prediction will cost.

    Parameters
    ----------
    rows
        Rows that are read: those to be predicted and those that models are fitted on.
    reading_s, fitting_s
        Seconds for features or pixels, and for fits.
    memory_mb
        What it holds beside the object, in 10^6 bytes.
    """

    rows: int
    reading_s: float
    fitting_s: float
    memory_mb: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.reading_s + self.fitting_s

    def __str__(self) -> str:
        return f"about {duration(self.seconds)} and {self.memory_mb:.0f} MB for {self.rows} rows"


def duration(seconds: float) -> str:
    """Seconds as one reads them."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(
    predictor: Predictor, target: Slide, training: list[Slide], n_genes: int, n_folds: int, device: str = "cpu"
) -> Estimate:
    """What it will cost to predict a section.

    Parameters
    ----------
    predictor
        The model, fitted or not.
    target
        The rows to be predicted.
    training
        The sections that it is fitted on, with targets set (:meth:`sq_imputer.Slide.with_genes`); none if it is fitted.
    n_genes
        Columns of the result.
    n_folds
        Fits.
    device
        Where.
    """
    slides = {id(one): one for one in (target, *training)}.values()  # which may be one and the same
    per_row = _read_seconds(predictor, target, device)
    rows = sum(map(len, slides))
    fitting = 0.0
    if not predictor.fitted:
        fitting = _fit_seconds(predictor, training, device) * n_folds
    features = 0
    if predictor.needs.encoders:
        from sq_imputer.encoders import encoder_card

        widths = sum(encoder_card(name).dim for name in predictor.needs.encoders)
        features = widths * len(predictor.needs.views) * max(predictor.needs.neighbors, 1) ** 2
    matrices = MEASURED + bool(predictor.card.uncertainty) + getattr(predictor.config, "keep_samples", 0)
    held = 4 * (len(target) * n_genes * matrices + rows * features)
    return Estimate(rows, per_row * rows, fitting, held / 1e6)


def _middle(slide: Slide, rows: np.ndarray, n: int) -> np.ndarray:
    """Of some rows those nearest to their middle: they lie side by side, as all rows do."""
    far = np.linalg.norm(slide.xy_um[rows] - np.median(slide.xy_um[rows], axis=0), axis=1)
    return np.sort(rows[np.argsort(far, kind="stable")[:n]])


def _read_seconds(predictor: Predictor, target: Slide, device: str) -> float:
    """Seconds to read, and to describe, one row."""
    rows = _middle(target, np.arange(len(target)), PROBED)
    patch = at_points(target, target.xy_um[rows], float(np.median(target.size_um)))
    start = time.perf_counter()
    if predictor.needs.encoders:
        patch.all_features(predictor.needs, device=device)
    else:
        for _ in patch.batches(predictor.needs, PROBED, device=device):
            pass
    return (time.perf_counter() - start) / len(patch)


def _fit_seconds(predictor: Predictor, training: list[Slide], device: str) -> float:
    """Seconds of one fit, at most: one epoch on some rows, times rows and epochs."""
    slide = training[0]
    rows = _middle(slide, np.flatnonzero(slide.measured), 2 * PROBED)
    some = replace(slide.take(rows), _parent=None, anchor=None)  # with features of its own
    if predictor.needs.encoders:
        some.all_features(predictor.needs, device=device)  # whose time is known already
    plan = Plan(epochs=1, validation=0.0, calibration=0, device=device, progress=False)
    start = time.perf_counter()
    predictor.fresh().fit([some], plan)
    share = sum(int(one.measured.sum()) for one in training) / len(some)
    return (time.perf_counter() - start) * share * getattr(predictor.config, "epochs", 1)
