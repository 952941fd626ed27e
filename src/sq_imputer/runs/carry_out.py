"""Carry out a decision: fit what is to be fitted, ask it, and put the answers of every section together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.predictor.calibrate import n_folds
from sq_imputer.progress import track
from sq_imputer.runs.crossed import Crossed
from sq_imputer.runs.repeated import together, widened
from sq_imputer.runs.retrieved import pool
from sq_imputer.runs.slots import Result
from sq_imputer.target import CLASSES

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.decide import Ask, Decision, Told
    from sq_imputer.runs.run import Piece, Run
    from sq_imputer.runs.targets import Targets
    from sq_imputer.section.slide import Slide


def carry_out(
    decision: Decision, predictor: Predictor, targets: Targets, training: Sequence[Slide], run: Run
) -> list[Result]:
    """What was decided, done: a result for every section.

    Parameters
    ----------
    decision
        Fits and asks.
    predictor
        The model, fitted or to be fitted anew for each fit.
    targets
        What is predicted.
    training
        The sections that fits are numbered by.
    run
        Fits and asks, or takes from the journal.
    """
    answers, crossed = [Answer() for _ in targets.slides], Crossed(decision.crossed)
    for name in track(decision.fits, "models", len(decision.fits)):
        model = fitted(decision, name, predictor, training, run, crossed)
        digest = model.sha256
        for ask in (ask for ask in decision.asks if ask.fit == name):
            slide = seen_for(decision, ask, targets, training)
            piece = run.ask(ask.name, model, slide, ask.rows)
            answers[ask.section].add(piece, ask, model, digest)
            if name in decision.crossed:
                crossed.note(name, piece, model, training[ask.section], run.plan)
    for answer in answers:
        answer.pieces = [crossed.resized(ask.fit, piece) for ask, piece in zip(answer.asks, answer.pieces, strict=True)]
    predictions, bank = _pooled([piece for answer in answers for piece in answer.pieces])
    results = []
    for k, (told, slide, answer) in enumerate(zip(decision.told, targets.slides, answers, strict=True)):
        counted = answer.model.measures_error or n_folds(answer.model, run.plan)
        counted = counted and answer.model.target.kind != CLASSES  # its spread is that of its probability
        crosses = any(ask.fit in decision.crossed for ask in answer.asks)
        truth = training[k].expression if told.folds is not None and counted and crosses else None
        results.append(_result(told, slide, answer, predictions, bank, truth))
    return results


def fitted(decision: Decision, name: str, predictor: Predictor, training: Sequence[Slide], run: Run, crossed=None):
    """The model of a fit: the one that is fitted already, or one like it."""
    if predictor.fitted:
        return predictor
    sources = [training[j] if rows is None else training[j].take(rows) for j, rows in decision.fits[name]]
    return run.fit(name, predictor, sources, crossed and crossed.plan(name, predictor, run.plan))


def seen_for(decision: Decision, ask: Ask, targets: Targets, training: Sequence[Slide]) -> Slide:
    """The section of an ask, whose features are scaled as those of the measured rows on its image are."""
    slide, anchor = targets.slides[ask.section], decision.told[ask.section].anchor
    return slide if anchor is None else replace(slide, anchor=training[anchor])


@dataclass
class Answer:
    """What was said of one section, when asked what, by which weights, and the last of the models."""

    pieces: list[Piece] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    model: Predictor | None = None

    def add(self, piece: Piece, ask: Ask, model: Predictor, digest: str) -> None:
        """Add what a model says of some rows; of earlier models only the hash is kept."""
        self.pieces.append(piece)
        self.asks.append(ask)
        self.hashes.append(digest)
        self.model = model


def _pooled(pieces: Sequence[Piece]) -> tuple[dict[int, Prediction], dict[str, np.ndarray] | None]:
    """The prediction of every piece, its neighbors counted by one bank."""
    predictions, bank = [piece.prediction for piece in pieces], None
    if pieces[0].bank is not None:
        predictions, bank = pool(predictions, [piece.bank for piece in pieces])
    return {id(piece): prediction for piece, prediction in zip(pieces, predictions, strict=True)}, bank


def _result(
    told: Told, slide: Slide, answer: Answer, predictions: dict[int, Prediction], bank, truth: np.ndarray | None
) -> Result:
    known = {"weights_sha256": answer.hashes[0]}
    if told.leave_out == "block":  # several models, each fitted on a part of this section
        known = {
            "fingerprints": [slide.fingerprint],
            "sections": [slide.section],
            "groups": [slide.group],
            "rows": [int(slide.measured.sum())],
            "weights_sha256": answer.hashes,
        }
    found = [(predictions[id(piece)], piece.rows) for piece in answer.pieces]
    if told.folds is not None:
        found = _averaged(told, found, [ask.repeat for ask in answer.asks], truth)
    return Result(_gathered(found), bank, answer.model, told, known)


def _averaged(told: Told, found: list[tuple], repeats: Sequence[int], truth: np.ndarray | None) -> list[tuple]:
    """One prediction of the rows of all partitions, and that of the rows that nobody measured, if there are any."""
    inside = told.fold >= 0
    rows, said = np.flatnonzero(inside), []
    for repeat in range(told.folds.shape[1]):
        said.append(_gathered([f for f, r in zip(found, repeats, strict=True) if r == repeat and inside[f[1][0]]]))
    one = together(said, None if truth is None else truth[rows])
    width = 0 if one.neighbors is None else one.neighbors.shape[1]
    return [(one, rows), *((widened(part, width), r) for part, r in found if not inside[r[0]])]


def _gathered(found: Sequence[tuple[Prediction, np.ndarray]]) -> Prediction:
    import torch

    parts, rows = zip(*found, strict=True)
    if len(parts) == 1 and (np.diff(rows[0]) > 0).all():  # a copy would be of all rows and genes
        return parts[0]
    return Prediction.gather(parts, [torch.from_numpy(r) for r in rows])
