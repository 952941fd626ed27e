"""Predictions: their form, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import torch

from sq_imputer.contract import Batch, Prediction
from sq_imputer.genes.knowledge import GeneKnowledge
from sq_imputer.section.slide import Slide
from sq_imputer.target import CLASSES
from sq_imputer.testing._statements import refuses
from sq_imputer.testing._subject import CLOSE, Subject, blank, changed, finite, same, state

AWAY = 0.15  # three standard errors of the share of a hundred calls that are right
ROW = 5  # an arbitrary one
MANY = 17  # rows that are predicted one by one, or by seven
LOW, HIGH = 0.5, 1.6  # mean of squared errors in those said: a section of a hundred rows is not quite like two others


def check_shapes(subject: Subject) -> None:
    """One row per row of the source, one column per gene, in float32, finite, without gradients."""
    said, shape = subject.prediction, (len(subject.target), len(subject.fitted.genes))
    for field in fields(Prediction):
        part = getattr(said, field.name)
        if part is not None:
            assert len(part) == shape[0], f"{field.name} has {len(part)} rows; the source has {shape[0]}"
            kind = torch.int64 if field.name == "neighbors" else torch.float32
            assert part.dtype == kind, f"{field.name} is {part.dtype}, not {kind}"
            assert not part.requires_grad, f"{field.name} keeps the graph of its computation"
    finite(said, *shape)


def check_uncertainty(subject: Subject) -> None:
    """A standard deviation is positive, of the shape of the mean, and there only if the card explains it."""
    std = subject.prediction.std
    assert std is None or (std.shape == subject.prediction.mean.shape and (std > 0).all()), "std is not positive"
    assert (std is None) == (not subject.model.card.uncertainty), "card.uncertainty and std disagree"


def check_calibrated(subject: Subject) -> None:
    """Errors on a section that was not trained on are about as large as the standard deviation says."""
    if subject.prediction.std is None:
        return
    rows = np.flatnonzero(subject.target.measured)
    if subject.fitted.target.kind == CLASSES:
        _check_calls(subject.prediction.mean.numpy()[rows], subject.target.expression[rows])
        return
    error = subject.prediction.mean.numpy()[rows] - subject.target.expression[rows]
    squares = (error / subject.prediction.std.numpy()[rows]) ** 2
    assert LOW < squares.mean() < HIGH, (
        f"the mean of (error / std) squared is {squares.mean():.2g} on a section that was not trained on; expected 1, "
        f"and not beyond {LOW:g} to {HIGH:g}. Leave its size to the harness: std is scaled by the errors on "
        "left-out training data unless measures_error is True"
    )


def _check_calls(said: np.ndarray, truth: np.ndarray) -> None:
    """Whether calls of classes are right about as often as their probability says; their std follows from it."""
    probable = float(said.max(axis=1).mean())
    right = float((said.argmax(axis=1) == truth.argmax(axis=1)).mean())
    assert abs(probable - right) < AWAY, (
        f"calls have a probability of {probable:.2f} on average, and {right:.2f} of them are right on a section that "
        f"was not trained on; expected within {AWAY:g} of each other"
    )


def check_samples(subject: Subject) -> None:
    """Samples are (rows, n, genes), and scatter about the mean."""
    samples, mean = subject.prediction.samples, subject.prediction.mean
    if samples is None:
        return
    assert samples.ndim == 3 and samples.shape[::2] == mean.shape, "samples are not (rows, n, genes)"
    away, spread = (samples - mean[:, None]).mean(dim=(0, 1)).abs(), (samples - mean[:, None]).std(dim=(0, 1))
    assert (away <= spread).all(), "samples lie farther from the mean than from each other"


def check_deterministic(subject: Subject) -> None:
    """Predicting twice gives the same, bit for bit."""
    same(subject.predict(), subject.prediction, exact=True)


def check_no_memory(subject: Subject) -> None:
    """What was predicted before does not matter."""
    subject.predict_of(subject.training[0])
    same(subject.predict(), subject.prediction, exact=True)


def check_model_unchanged(subject: Subject) -> None:
    """Predicting changes no weight and no buffer, and leaves the model in evaluation mode."""
    assert not any(part.training for part in subject.fitted.modules()), "the model is left in training mode"
    differ = changed(subject.weights, state(subject.fitted))
    assert not differ, f"predicting changes {', '.join(differ)}"


def check_training_mode(subject: Subject) -> None:
    """A model left in training mode predicts as in evaluation mode."""
    subject.fitted.train()
    same(subject.predict(), subject.prediction, exact=True)


def check_batch_unchanged(subject: Subject) -> None:
    """A batch is not written to."""
    rows = np.arange(min(32, len(subject.target)))
    batch = next(subject.fitted.seen(subject.target, 32, rows=rows))
    batch = replace(batch, expression=None, key=batch.index.clone())
    before = {name: part.clone() for name, part in vars(batch).items() if isinstance(part, torch.Tensor)}
    with torch.no_grad():
        subject.fitted.predict_step(batch)
    differ = [name for name, part in before.items() if not torch.equal(part, getattr(batch, name))]
    assert not differ, f"predict_step writes to {', '.join(differ)} of its batch"


def check_target_unseen(subject: Subject) -> None:
    """The expression of the target does not reach its prediction."""
    blind = replace(subject.target, expression=None, genes=(), unit="")
    same(subject.predict_of(blind), subject.prediction, exact=True)


def check_target_labels(subject: Subject) -> None:
    """The names of the target's individual and rows do not matter; that of the section may decide what is drawn."""
    names = np.array([f"x{name}" for name in subject.target.names], dtype=object)
    renamed = replace(subject.target, group="x", names=names)
    same(subject.predict_of(renamed), subject.prediction, exact=True)


def check_batch_size(subject: Subject) -> None:
    """The size of the batch does not change the prediction."""
    rows = np.arange(min(MANY, len(subject.target)))
    together = subject.predict(rows=rows, batch_size=1000)
    for size in (1, 7):
        same(subject.predict(rows=rows, batch_size=size), together)
    same(subject.predict(batch_size=1000), subject.prediction)


def check_one_row(subject: Subject) -> None:
    """One row alone is predicted as among others."""
    same(subject.predict(rows=np.array([ROW])), subject.prediction[[ROW]])


def check_row_order(subject: Subject) -> None:
    """Rows asked for in another order come in that order."""
    rows = np.random.default_rng(0).permutation(len(subject.target))[:20]
    same(subject.predict(rows=rows), subject.prediction[torch.from_numpy(rows)])


def check_repeated_rows(subject: Subject) -> None:
    """A row that is asked for twice is given twice."""
    rows = np.array([ROW, 1, ROW])
    same(subject.predict(rows=rows), subject.prediction[torch.from_numpy(rows)])


def check_mask(subject: Subject) -> None:
    """Rows can be chosen by a mask."""
    mask = np.arange(len(subject.target)) % 3 == 0
    same(subject.predict(rows=mask), subject.prediction[torch.from_numpy(mask)])


def check_no_rows(subject: Subject) -> None:
    """To ask for no row is an error of this package."""
    assert refuses(lambda: subject.predict(rows=np.array([], dtype=int))), "no row was asked for, and none refused"


def check_row_isolated(subject: Subject) -> None:
    """What one row looks like, even if it is not a number, reaches no other row: these are the same bit for bit."""
    target = subject.target
    if isinstance(target, Slide):
        spoiled = Spoiled(**{field.name: getattr(target, field.name) for field in fields(Slide)})
    else:
        spoiled = replace(target, noise=ROW)
    others = torch.arange(len(subject.target)) != ROW
    said, expected = subject.predict_of(spoiled), subject.prediction
    assert not torch.equal(said.mean[ROW], expected.mean[ROW]), "what a row looks like does not change its prediction"
    same(said[others], expected[others], exact=True)


class Spoiled(Slide):
    """A section one row of which has noise for pixels, or features that are not numbers."""

    def batches(self, *args, **kwargs) -> Iterator[Batch]:
        """As those of a section, but for one row."""
        for batch in super().batches(*args, **kwargs):
            hit = batch.index == ROW
            for part in (batch.features, batch.tokens, batch.neighbors):
                if part is not None:
                    part[hit] = torch.nan
            if batch.crops is not None:
                noise = torch.randint(0, 256, batch.crops.shape, generator=torch.Generator().manual_seed(0))
                batch.crops[hit] = noise[hit].to(batch.crops)
            yield batch


def check_blank_image(subject: Subject) -> None:
    """Tissue that is all black, or all white, is predicted by finite numbers."""
    rows = np.arange(4)
    for value in (0, 255):
        finite(subject.predict_of(blank(subject.target, rows, value)), len(rows), len(subject.fitted.genes))


def check_section_of_one_row(subject: Subject) -> None:
    """A section of one row, by which features cannot be scaled, is predicted by finite numbers."""
    alone = replace(subject.target.take(np.array([ROW])), anchor=None)
    finite(subject.predict_of(alone), 1, len(subject.fitted.genes))


def check_applicability(subject: Subject) -> None:
    """`ood` lies from 0 to 1, and is higher for a black image than for most training rows."""
    known = subject.predict_of(subject.training[0]).ood
    black = subject.predict_of(blank(subject.target, np.arange(4), 0)).ood
    assert known is not None and black is not None, "there is no ood"
    assert ((known >= 0) & (known <= 1)).all(), f"ood lies from {known.min():.2f} to {known.max():.2f}"
    assert black.min() > known.median(), f"ood is {black.min():.2f} on black, {known.median():.2f} on training rows"


def check_other_genes(subject: Subject) -> None:
    """A model that can be asked for genes that it was not fitted on says of its own what it said before."""
    if not getattr(subject.model.card, "zero_shot", False):
        return
    names = [*subject.fitted.genes[::-1], "OF NO SECTION"]
    asked = subject.fitted.for_genes(names, GeneKnowledge.lexical(names))
    said = subject.predict(asked)
    finite(said, len(subject.target), len(names))
    torch.testing.assert_close(said.mean[:, :-1].flip(1), subject.prediction.mean, **CLOSE)
    assert asked.provenance["zero_shot"] == names[-1:], "the provenance does not name the gene that was not in training"
    assert not changed(subject.weights, state(subject.fitted)), "asking for other genes changes weights"
