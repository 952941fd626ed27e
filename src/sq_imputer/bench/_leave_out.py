"""Leave something out, fit on the rest, score on what was left out: models and baselines in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer import metrics, scoring
from sq_imputer.data.genes import LOG1P_CP10K, choose_genes
from sq_imputer.errors import BadInput
from sq_imputer.splits import by_section, folds, strips

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.data.slide import Slide
    from sq_imputer.models._base import Predictor
    from sq_imputer.train import Plan


@dataclass(frozen=True, eq=False)
class Case:
    """One fit and one test.

    Parameters
    ----------
    name
        What is tested.
    training
        Slides to fit on.
    test
        The slide to predict.
    rows
        Rows of `test` that are scored.
    shares_patient
        Whether an individual is on both sides: the score is then one of replicates.
    """

    name: str
    training: tuple[Slide, ...]
    test: Slide
    rows: np.ndarray
    shares_patient: bool


def leave_one_out(slides: Sequence[Slide], *, share_patient: bool = False) -> list[Case]:
    """Each section is tested once, by a model fitted on the others.

    Parameters
    ----------
    slides
        Sections.
    share_patient
        Allow sections of one individual on both sides; the cases are then marked.
    """
    splits = by_section([s.section for s in slides], [s.group for s in slides], share_patient=share_patient)
    cases = []
    for split in splits:
        test = slides[int(np.flatnonzero(split.test)[0])]
        training = tuple(slides[k] for k in np.flatnonzero(split.train))
        cases.append(Case(test.section, training, test, _scored(test), split.shares_patient))
    return cases


def strips_of(slide: Slide, n_strips: int = 5, *, buffer_um: float = 0.0) -> list[Case]:
    """Vertical strips of one section, each tested once by a model fitted on the others, beyond a buffer."""
    rows = _scored(slide)
    labels = strips(slide.xy_um[rows], n_strips)
    return [
        Case(f"{slide.section} {split.name}", (slide.take(rows[split.train]),), slide, rows[split.test], True)
        for split in folds(slide.xy_um[rows], buffer_um=buffer_um, blocks=labels)
    ]


def run(
    cases: Sequence[Case],
    models: Mapping[str, Predictor],
    *,
    n_genes: int = 250,
    unit: str = LOG1P_CP10K,
    plan: Plan | None = None,
) -> DataFrame:
    """Fit and score models on cases, beside the mean and the depth-only baseline.

    Parameters
    ----------
    cases
        As :func:`leave_one_out` and :func:`strips_of` make them.
    models
        Unfitted predictors by the name they have in the table; a copy of each is fitted per case.
    n_genes
        Size of the panel, chosen on the training sections of each case.
    unit
        Expression unit.
    plan
        How to train.

    Returns
    -------
    A row per case, predictor and gene: as :func:`sq_imputer.scoring.score_table`, with columns `case`, `rank` (place
    of the gene in the panel, which is ordered by variance on the training sections) and `shares_patient`.
    """
    import pandas as pd

    if not cases:
        raise BadInput("no cases; make some with leave_one_out(slides) or strips_of(slide).")
    parts = []
    for case in cases:
        genes = choose_genes(case.training, n_genes)
        training = [slide.with_genes(genes, unit) for slide in case.training]
        test = case.test.with_genes([gene for gene in genes if gene in set(case.test.var_names)], unit)
        predicted = _baselines(training, test, genes, case.rows)
        for name, model in models.items():
            fitted = type(model)(model.config).fit(training, plan)
            mean = fitted.predict(test, rows=case.rows).mean.numpy()
            predicted[name] = mean[:, [genes.index(gene) for gene in test.genes]]
        depth = test.depth[case.rows]
        table = scoring.score_table(test.expression[case.rows], predicted, test.genes, depth=depth)
        rank = {gene: place for place, gene in enumerate(genes)}
        parts.append(
            table.assign(
                section=case.name, case=case.name, rank=table["gene"].map(rank), shares_patient=case.shares_patient
            )
        )
    return pd.concat(parts, ignore_index=True)


def _scored(slide: Slide) -> np.ndarray:
    return np.flatnonzero(slide.measured & (np.nan_to_num(slide.depth) > 0))


def _baselines(training: Sequence[Slide], test: Slide, genes: list[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    columns = [genes.index(gene) for gene in test.genes]
    kept = [_scored(slide) for slide in training]
    y = np.concatenate([slide.expression[k] for slide, k in zip(training, kept, strict=True)])[:, columns]
    depth = np.concatenate([slide.depth[k] for slide, k in zip(training, kept, strict=True)])
    return {
        "mean": metrics.mean_only(y, len(rows)),
        "depth only": metrics.depth_only(y, depth, test.depth[rows]),
    }
