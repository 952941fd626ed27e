"""Scores of a target by its kind: numbers, classes or a composition, predicted and measured at rows of a section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.scores import shares
from sq_imputer.scores import tables as scoring
from sq_imputer.scores.splits import spatial_blocks
from sq_imputer.target import CLASSES, COMPOSITION

if TYPE_CHECKING:
    from pandas import DataFrame

# n rows, K names


@dataclass(frozen=True)
class ScoredTarget:
    """Models and baselines beside what was measured at some rows of a section.

    Parameters
    ----------
    kind
        Of the target.
    section
        Name of the section.
    measured
        `(n, K)`.
    predicted
        `(n, K)` by predictor.
    names
        Classes, parts, scores or genes.
    depth
        `(n,)` total counts, NaN where they are not known.
    xy_um
        `(n, 2)`.
    seed
        Of the bootstrap.
    """

    kind: str
    section: str
    measured: np.ndarray
    predicted: dict[str, np.ndarray]
    names: list[str]
    depth: np.ndarray
    xy_um: np.ndarray
    seed: int = 0

    @property
    def per_gene(self) -> DataFrame:
        """A row per predictor and name."""
        if self.kind == CLASSES:
            table = shares.class_table(self.measured, self.predicted, self.names)
            return table.assign(section=self.section)
        section = np.full(len(self.measured), self.section)
        table = scoring.score_table(self.measured, self.predicted, self.names, depth=self._depth, section=section)
        return self._without_depth(table, "pearson_given_depth", slice(None)).assign(ceiling=np.nan)

    def per_section(self) -> DataFrame:
        """Means, with bootstrap intervals over spatial blocks."""
        import pandas as pd

        blocks = spatial_blocks(self.xy_um, min(10, len(self.xy_um)))
        if self.kind == CLASSES:
            how = shares.class_scores, blocks, self.seed
            return shares.aggregate_shares(self.measured, self.predicted, *how)
        known = {"depth": self._depth, "blocks": blocks, "seed": self.seed}
        table = scoring.aggregate_blocks(self.measured, self.predicted, self.names, **known)
        given = table["metric"] == "pearson_given_depth"
        table = self._without_depth(table, ["mean", "low", "high"], given)
        if self.kind != COMPOSITION:
            return table
        apart = shares.aggregate_shares(self.measured, self.predicted, shares.composition_scores, blocks, self.seed)
        return pd.concat([table, apart], ignore_index=True)

    @property
    def _counted(self) -> bool:
        return bool(np.isfinite(self.depth).all())

    @property
    def _depth(self) -> np.ndarray:
        return self.depth if self._counted else np.ones(len(self.depth))

    def _without_depth(self, table: DataFrame, columns, rows) -> DataFrame:
        """Where no counts are known, nothing is said of scores given depth."""
        if not self._counted:
            table.loc[rows, columns] = np.nan
        return table
