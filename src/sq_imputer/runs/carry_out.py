"""Carry out a decision: fit what is to be fitted, ask it, and put the answers of every section together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.progress import track
from sq_imputer.runs.crossed import Crossed
from sq_imputer.runs.retrieved import pool
from sq_imputer.runs.slots import Result

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.decide import Decision, Told
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
        sources = [training[j] if rows is None else training[j].take(rows) for j, rows in decision.fits[name]]
        model = (
            predictor
            if predictor.fitted
            else run.fit(name, predictor, sources, crossed.plan(name, predictor, run.plan))
        )
        digest = model.sha256
        for ask in (ask for ask in decision.asks if ask.fit == name):
            anchor = decision.told[ask.section].anchor
            slide = targets.slides[ask.section]
            slide = slide if anchor is None else replace(slide, anchor=training[anchor])
            piece = run.ask(ask.name, model, slide, ask.rows)
            answers[ask.section].add(piece, name, model, digest)
            if name in decision.crossed:
                crossed.note(name, piece, model, training[ask.section], run.plan)
    for answer in answers:
        answer.pieces = [crossed.resized(name, piece) for name, piece in zip(answer.fits, answer.pieces, strict=True)]
    predictions, bank = _pooled([piece for answer in answers for piece in answer.pieces])
    return [
        _result(told, slide, answer, predictions, bank)
        for told, slide, answer in zip(decision.told, targets.slides, answers, strict=True)
    ]


@dataclass
class Answer:
    """What was said of one section, by which fits and weights, and the last of the models."""

    pieces: list[Piece] = field(default_factory=list)
    fits: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    model: Predictor | None = None

    def add(self, piece: Piece, name: str, model: Predictor, digest: str) -> None:
        """Add what a model says of some rows; of earlier models only the hash is kept."""
        self.pieces.append(piece)
        self.fits.append(name)
        self.hashes.append(digest)
        self.model = model


def _pooled(pieces: Sequence[Piece]) -> tuple[dict[int, Prediction], dict[str, np.ndarray] | None]:
    """The prediction of every piece, its neighbors counted by one bank."""
    predictions, bank = [piece.prediction for piece in pieces], None
    if pieces[0].bank is not None:
        predictions, bank = pool(predictions, [piece.bank for piece in pieces])
    return {id(piece): prediction for piece, prediction in zip(pieces, predictions, strict=True)}, bank


def _result(told: Told, slide: Slide, answer: Answer, predictions: dict[int, Prediction], bank) -> Result:
    import torch

    known = {"weights_sha256": answer.hashes[0]}
    if told.leave_out == "block":  # several models, each fitted on a part of this section
        known = {
            "fingerprints": [slide.fingerprint],
            "sections": [slide.section],
            "groups": [slide.group],
            "rows": [int(slide.measured.sum())],
            "weights_sha256": answer.hashes,
        }
    parts, rows = zip(*[(predictions[id(p)], torch.from_numpy(p.rows)) for p in answer.pieces], strict=True)
    return Result(Prediction.gather(parts, rows), bank, answer.model, told, known)
