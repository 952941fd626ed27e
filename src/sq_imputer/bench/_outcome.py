"""A fit and a test, and what came of them: models and baselines beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.scores import metrics
from sq_imputer.scores import tables as scoring
from sq_imputer.scores.shares import as_shares
from sq_imputer.scores.targets import ScoredTarget
from sq_imputer.section.nearby import COORDINATES, by_place, counted, scored
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from pandas import DataFrame


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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What models and baselines say of a case, and what was measured.

    Parameters
    ----------
    case
        The case.
    genes
        The panel, of highest variance on the training sections first; or the names of another target.
    truth
        `(n, G)` expression of the rows that are scored, of those genes of the panel that the test section has; or what
        is measured of another target.
    tested
        Names of these G genes.
    predicted
        `(n, G)` by predictor.
    depth
        `(n,)` total counts; NaN where another target is measured, and they are not known.
    image_eps
        `(G,)` by name: what the texture tells of the tested genes before any model, where that was asked for.
    """

    case: Case
    genes: tuple[str, ...]
    truth: np.ndarray
    tested: tuple[str, ...]
    predicted: dict[str, np.ndarray]
    depth: np.ndarray
    image_eps: Mapping[str, np.ndarray] = field(default_factory=dict)

    def table(self) -> DataFrame:
        """Scores per predictor and gene, as :func:`run` says."""
        if self.case.test.target.is_genes:
            table = scoring.score_table(self.truth, self.predicted, self.tested, depth=self.depth)
        else:
            table = self._scored(0).per_gene
        rank = {gene: place for place, gene in enumerate(self.genes)}
        for column, values in self.image_eps.items():
            table[column] = table["gene"].map(dict(zip(self.tested, values, strict=True)))
        return self._named(table.assign(rank=table["gene"].map(rank)))

    def summary(self, seed: int = 0) -> DataFrame:
        """Means over genes, or scores of all classes, with intervals over spatial blocks, as :func:`run` says."""
        return self._named(self._scored(seed).per_section())

    def _scored(self, seed: int) -> ScoredTarget:
        test, rows = self.case.test, self.case.rows
        found = test.target.kind, self.case.name, self.truth, self.predicted, list(self.tested)
        return ScoredTarget(*found, self.depth, test.xy_um[rows], seed)

    def _named(self, table: DataFrame) -> DataFrame:
        name = self.case.name
        return table.assign(section=name, case=name, shares_patient=self.case.shares_patient)


def baselines(training: Sequence[Slide], test: Slide, names: list[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The mean and depth alone, where it is known; of another target than genes also coordinates alone."""
    columns = [names.index(name) for name in test.genes]
    kept = [np.flatnonzero(scored(slide)) for slide in training]
    y = np.concatenate([slide.expression[k] for slide, k in zip(training, kept, strict=True)])[:, columns]
    found = {"mean": metrics.mean_only(y, len(rows))}
    if test.target.is_genes or counted(test, rows, training):
        depth = np.concatenate([slide.depth[k] for slide, k in zip(training, kept, strict=True)])
        found["depth only"] = as_shares(test.target, metrics.depth_only(y, depth, test.depth[rows]))
    if not test.target.is_genes:
        found[COORDINATES] = by_place(test, rows, training, kept)[:, columns]
    return found
