"""Scores of another target than genes, by its kind."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import StoreError
from sq_imputer.scores import shares, smoothness
from sq_imputer.scores import tables as scoring
from sq_imputer.scores.splits import spatial_blocks
from sq_imputer.store import write
from sq_imputer.target import CLASSES, COMPOSITION

if TYPE_CHECKING:
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.section.slide import Slide


@dataclass(frozen=True)
class ScoredTarget:
    """Models and baselines beside what was measured at some rows of a section.

    Parameters
    ----------
    slide, rows
        The section, read for its target, and the rows that are scored.
    measured
        `(n, names)`.
    predicted
        `(n, names)` by predictor.
    names
        Classes, parts or scores.
    seed
        Of the bootstrap.
    """

    slide: Slide
    rows: np.ndarray
    measured: np.ndarray
    predicted: dict[str, np.ndarray]
    names: list[str]
    seed: int

    @property
    def per_gene(self) -> DataFrame:
        """A row per predictor and name."""
        if self.slide.target.kind == CLASSES:
            table = shares.class_table(self.measured, self.predicted, self.names)
            return table.assign(section=self.slide.section)
        section = np.full(len(self.rows), self.slide.section)
        table = scoring.score_table(self.measured, self.predicted, self.names, depth=self._depth, section=section)
        return self._without_depth(table, "pearson_given_depth", slice(None)).assign(ceiling=np.nan)

    def per_section(self) -> DataFrame:
        """Means, with bootstrap intervals over spatial blocks."""
        import pandas as pd

        xy = self.slide.xy_um[self.rows]
        blocks, kind = spatial_blocks(xy, min(10, len(xy))), self.slide.target.kind
        if kind == CLASSES:
            how = shares.class_scores, blocks, self.seed
            return shares.aggregate_shares(self.measured, self.predicted, *how)
        known = {"depth": self._depth, "blocks": blocks, "seed": self.seed}
        table = scoring.aggregate_blocks(self.measured, self.predicted, self.names, **known)
        given = table["metric"] == "pearson_given_depth"
        table = self._without_depth(table, ["mean", "low", "high"], given)
        if kind != COMPOSITION:
            return table
        apart = shares.aggregate_shares(self.measured, self.predicted, shares.composition_scores, blocks, self.seed)
        return pd.concat([table, apart], ignore_index=True)

    @property
    def _counted(self) -> bool:
        return bool(np.isfinite(self.slide.depth[self.rows]).all())

    @property
    def _depth(self) -> np.ndarray:
        return self.slide.depth[self.rows] if self._counted else np.ones(len(self.rows))

    def _without_depth(self, table: DataFrame, columns, rows) -> DataFrame:
        """Where no counts are known, nothing is said of scores given depth."""
        if not self._counted:
            table.loc[rows, columns] = np.nan
        return table


def keep(sdata: SpatialData, key: str, scores: DataFrame, models: Sequence[str]) -> None:
    """Put the models' scores into `var`."""
    import pandas as pd

    table = sdata.tables[key]
    var = pd.DataFrame(index=table.var_names)
    for name in models:
        mine = scores[scores["predictor"] == name].set_index("gene")
        for metric in [one for one in ("pearson", "pearson_given_depth", "auroc") if one in mine]:
            var[f"{name}_{metric}"] = mine[metric].reindex(table.var_names)
        for column in [name for name in (*smoothness.COLUMNS, "ceiling") if name in mine]:
            var[column] = mine[column].reindex(table.var_names)
    try:
        write.put_layers(sdata, key, {}, var=var)
    except StoreError as error:  # the scores are what was asked for
        reason = str(error).split(". ")[0]
        warnings.warn(f"scores are returned, but not kept in var: {reason}.", UserWarning, stacklevel=4)
