"""Predictions that are too large for memory: rows stream from features in a file through the model into the store.

No matrix of rows and genes is ever whole in memory. What needs all rows at once, out-of-fold models that size each
other's standard deviations and models that retrieve, does not stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sq_imputer.runs import joined, reliability
from sq_imputer.runs.carry_out import fitted, seen_for
from sq_imputer.runs.constants import Spread, warn_of_constants
from sq_imputer.runs.run import AT_ONCE, at_once
from sq_imputer.runs.slots import (
    Place,
    Result,
    columns,
    feature_slots,
    is_added_to,
    kinds,
    matrices,
    new_table,
    provenance,
    stale,
    unseen,
)
from sq_imputer.scores.moments import chunks
from sq_imputer.store.stream import stream_elsewhere, stream_into, stream_new
from sq_imputer.target import CLASSES

if TYPE_CHECKING:
    from anndata import AnnData

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.decide import Ask, Decision
    from sq_imputer.runs.run import Run
    from sq_imputer.runs.targets import Targets
    from sq_imputer.section.slide import Slide
    from sq_imputer.store.stream import Sheet

HELD = 2**26  # bytes of a matrix of rows and genes: larger ones are never whole in memory, if there is a store


def streams(place: Place, decision: Decision, predictor: Predictor, targets: Targets, genes: Sequence[str]) -> bool:
    """Whether a prediction is too large for memory, has a store to go to, and can be made some rows at a time."""
    if 4 * len(targets) * len(genes) <= HELD or (place.output_path is None and not place.sdata.is_backed()):
        return False
    if place.output_path is not None and place.table is not None:  # whose layers would go there as well
        return False
    if targets.slides[0].target.kind == CLASSES:  # few columns, and a call that needs all of them
        return False
    asked = [ask.section for ask in decision.asks]
    return len(set(asked)) == len(asked) and not decision.crossed and not predictor.retrieves


def stream(
    place: Place, decision: Decision, predictor: Predictor, targets: Targets, training: Sequence[Slide], run: Run
) -> None:
    """Carry out a decision, and write each answer as it comes. The parameters are those of `carry_out`."""
    genes, unit = (predictor.genes, predictor.unit) if predictor.fitted else (training[0].genes, training[0].unit)
    adds = is_added_to(place.table, targets, genes, unit)
    sdata, key, layer = place.sdata, place.key, place.layer
    writing = _Writing(place.table if adds else None, layer, decision, predictor, targets, training, run)
    if adds and place.output_path is None:
        stream_into(sdata, key, writing, x=layer)
        return
    table = new_table(targets, genes, None, {"obs": {}, "var": {}, "layers": {}})
    if place.output_path is None:
        stream_new(sdata, key, table, writing, x=layer, overwrite=place.overwrite)
        return
    from spatialdata import SpatialData

    new = SpatialData.init_from_elements({key: table, **{name: sdata[name] for name in targets.regions}})
    stream_elsewhere(sdata, key, place.output_path, new, writing, x=layer)


class _Writing:
    """What is called with the sheet of a table: fits, asks, and puts what is said into it."""

    def __init__(self, old: AnnData | None, layer: str, decision, predictor, targets, training, run: Run) -> None:
        self.old, self.layer, self.decision, self.predictor = old, layer, decision, predictor
        self.targets, self.training, self.run = targets, training, run
        self.starts = np.cumsum([0, *map(len, targets.slides)])
        self.told: dict[int, dict] = {}  # of every section

    def __call__(self, sheet: Sheet) -> dict:
        slides = [replace(slide, scratch=sheet.scratch) for slide in self.targets.slides]
        targets = replace(self.targets, slides=tuple(slides))
        for name in self.decision.fits:
            model = fitted(self.decision, name, self.predictor, self.training, self.run)
            for ask in (ask for ask in self.decision.asks if ask.fit == name):
                slide = seen_for(self.decision, ask, targets, self.training)
                self.told[ask.section] = self._section(sheet, ask, slide, model)
        return self._rest(sheet, [self.told[k] for k in range(len(slides))])

    def _section(self, sheet: Sheet, ask: Ask, slide: Slide, model: Predictor) -> dict:
        """Put the matrices of one section into the sheet. What else there is of it."""
        layer, start, n = self.layer, self.starts[ask.section], len(slide)
        ood, spread = np.full(n, np.nan, dtype=np.float32), Spread()
        for rows, said in self.run.answers(ask.name, model, slide, ask.rows):
            for path, values in matrices(said, layer).items():
                sheet.put(path, start + rows, values)
            ood[rows] = said.ood.numpy()
            spread.add(said.mean.numpy())
        measured = self._measured(sheet, slide, start, model)
        kept = {}
        for key, name, spec in feature_slots(model):
            values = slide.features(name, spec, device=self.run.plan.device)
            for rows in chunks(np.arange(n), AT_ONCE):
                sheet.put(f"obsm/{key}", start + rows, values[rows])
            kept[key] = slide.record(name, spec)
        sheet.put("obsm/spatial", start + np.arange(n), slide.xy_um)
        told = self.decision.told[ask.section]
        result = Result(None, None, model, told, {"weights_sha256": model.sha256})
        return {
            "obs": columns(slide, told, layer, measured, ood),
            "constant": spread.constant,
            "record": provenance(slide, result, self.run.plan, self.run.size.rows),
            "embeddings": kept,
        }

    def _measured(self, sheet: Sheet, slide: Slide, start: int, model: Predictor) -> np.ndarray:
        """Put what was measured into the sheet. `(n,)` which rows have a value."""
        genes, found = model.genes, np.zeros(len(slide), dtype=bool)
        if "layers/measured" not in sheet.names:
            sheet.blank("layers/measured", (len(genes),), "float32", np.nan)
        which = slide.which(genes) if slide.measured.any() else []
        for rows in chunks(np.flatnonzero(slide.measured), at_once(len(genes))) if which else ():
            values = np.full((len(rows), len(genes)), np.nan, dtype=np.float32)
            some = slide.take(rows).with_genes([genes[i] for i in which], model.unit)
            values[:, which] = some.expression
            sheet.put("layers/measured", start + rows, values)
            found[rows] = np.isfinite(values).any(axis=1)
        return found

    def _rest(self, sheet: Sheet, told: Sequence[dict]) -> dict:
        """Columns and provenance, and blanks for what an earlier prediction of this name left."""
        layer, targets, genes = self.layer, self.targets, told[0]["record"]["genes"]
        records = [one["record"] for one in told]
        obs = {name: _column([one["obs"][name] for one in told]) for name in told[0]["obs"]}
        obs[f"{layer}{joined.RECORD}"] = joined.column(records, [len(slide) for slide in targets.slides])
        var = {f"{layer}_constant": np.any([one["constant"] for one in told], axis=0)}
        var |= kinds(self.targets.slides[0].target, len(genes)) | unseen(self.old, layer, self.predictor)
        var |= reliability.columns(records[0], layer, genes)
        embeddings = told[0]["embeddings"]
        if self.old is not None:
            embeddings = {**self.old.uns["sq_imputer"].get("embeddings", {}), **embeddings}
            blanks = stale(self.old, layer)
            for path, (width, dtype, blank) in blanks["arrays"].items():
                if path not in sheet.names:
                    sheet.blank(path, width, dtype, blank)
            obs, var = {**blanks["obs"], **obs}, {**blanks["var"], **var}
        warn_of_constants(layer, genes, var[f"{layer}_constant"])
        record = records[0] if len(records) == 1 else joined.numbered(records)
        return {
            "obs": pd.DataFrame(obs, index=targets.names),
            "var": pd.DataFrame(var, index=list(genes)),
            "uns": {"sq_imputer": {layer: record, "embeddings": embeddings}},
        }


def _column(parts: Sequence[np.ndarray]) -> np.ndarray | pd.Categorical:
    """A column of `obs` of all sections. Of words as categories: a million of the same would be read as so many."""
    whole = np.concatenate(parts)
    return pd.Categorical(whole) if whole.dtype == object else whole
