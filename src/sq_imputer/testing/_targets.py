"""Other targets than genes: every kind that a card takes, and none that it does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sq_imputer.errors import SqImputerError
from sq_imputer.section.slide import Slide
from sq_imputer.target import CLASSES, COMPOSITION, GENES, KINDS, NUMBERS, UNITS, Target
from sq_imputer.testing._subject import Subject, finite, same

PLACES = {NUMBERS: "obsm:toy_numbers", CLASSES: "obs:toy_class", COMPOSITION: "obsm:toy_parts"}
NAMES = ("one", "two", "three")
ROUNDING = 1e-4  # of a sum of shares


def check_kinds(subject: Subject) -> None:
    """The kinds of target in the card are known; each is fitted, and shares are not negative and sum to 1."""
    takes = subject.model.card.targets
    strange = sorted(set(takes) - set(KINDS))
    assert not strange, f"card.targets names {strange}; there are {list(KINDS)}"
    for kind, predictor in _fitted(subject):
        prediction = subject.predict(predictor)
        assert predictor.target.kind == kind, f"fitted on {kind}, its target is of kind {predictor.target.kind}"
        assert predictor.genes == NAMES, f"fitted on {kind} called {NAMES}, it predicts {predictor.genes}"
        finite(prediction, len(subject.target), len(NAMES))
        if predictor.target.link == "softmax":
            least, sums = float(prediction.mean.min()), prediction.mean.sum(dim=1)
            assert least >= 0, f"shares of {kind} go down to {least:.3g}"
            away = float((sums - 1).abs().max())
            assert away <= ROUNDING, f"shares of {kind} sum to up to {away:.3g} away from 1"


def check_target_kept(subject: Subject) -> None:
    """A saved and loaded model has its target, and predicts the same bit for bit."""
    for kind, predictor in _fitted(subject):
        with tempfile.TemporaryDirectory() as folder:
            predictor.save(folder)
            loaded = subject.model.load(folder)
        assert loaded.target.told == predictor.target.told, f"the target of kind {kind} differs after loading"
        same(subject.predict(loaded), subject.predict(predictor), exact=True)


def check_other_kinds(subject: Subject) -> None:
    """Kinds that the card does not name are refused, with the models that take them."""
    for kind in [one for one in PLACES if one not in subject.model.card.targets]:
        try:
            subject.fit_quickly(relabeled(subject.few, kind), calibration=0)
        except SqImputerError as error:
            assert "Models that take it" in str(error), f"{kind} are refused, but not with the models that take them"
            continue
        raise AssertionError(f"a target of kind {kind} was fitted, which card.targets does not name")


def relabeled(slides: list[Slide], kind: str) -> list[Slide]:
    """The slides with another target, made of the first of their genes: scores, proportions, or the largest of them."""
    values = [_scores(slide) for slide in slides]
    known = np.concatenate([one[slide.measured] for one, slide in zip(values, slides, strict=True)])
    center, scale = known.mean(axis=0), known.std(axis=0) + 1e-6
    target = Target(PLACES[kind], kind, NAMES, UNITS[kind])
    found = []
    for slide, one in zip(slides, values, strict=True):
        labels = _as_kind((one - center) / scale, kind)
        labels[~slide.measured] = np.nan
        parts = {"genes": NAMES, "unit": target.unit, "expression": labels, "labels": labels, "target": target}
        found.append(replace(slide, **parts))
    return found


def _scores(slide: Slide) -> np.ndarray:
    """`(n, 3)` numbers that the image shows as far as it shows genes: means of every third of them."""
    values = slide.expression
    if values.shape[1] < len(NAMES):
        return values[:, :1] * np.float32([1, -1, 0.5])
    return np.stack([values[:, k :: len(NAMES)].mean(axis=1) for k in range(len(NAMES))], axis=1)


def _as_kind(scores: np.ndarray, kind: str) -> np.ndarray:
    if kind == NUMBERS:
        return scores.astype(np.float32)
    if kind == CLASSES:
        return np.eye(len(NAMES), dtype=np.float32)[scores.argmax(axis=1)]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _fitted(subject: Subject) -> Iterator[tuple[str, object]]:
    """Every kind beside genes that the model takes, and the model fitted on it; once."""
    for kind in [one for one in PLACES if one in subject.model.card.targets and one != GENES]:
        if kind not in subject.by_kind:
            subject.by_kind[kind] = subject.fit_quickly(relabeled(subject.few, kind), calibration=0)
        yield kind, subject.by_kind[kind]
