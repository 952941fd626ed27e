"""Whether a model learns what there is to learn, and nothing where there is nothing."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import numpy as np
import torch

from sq_imputer.section.slide import Slide
from sq_imputer.testing._subject import Subject, by_gradient


def check_loss(subject: Subject) -> None:
    """The loss is finite and falls; every weight that is not frozen gets gradient. Closed forms have no loss."""
    if not by_gradient(subject.model):
        return
    history = subject.fitted.history["train"]
    assert np.isfinite(history).all(), "the training loss is not finite"
    assert history[0] - min(history) > 1e-3 * abs(history[0]), "the training loss never fell"
    slide, predictor = subject.training[0], copy.deepcopy(subject.fitted).train()
    batch = next(subject.fitted.seen(slide, 32, rows=np.flatnonzero(slide.measured)[:32]))
    with torch.random.fork_rng(), torch.enable_grad():
        predictor.zero_grad()
        sum(predictor.loss(batch).values()).backward()
    trained = [(name, weight) for name, weight in predictor.named_parameters() if weight.requires_grad]
    still = [name for name, weight in trained if weight.grad is None or not weight.grad.any()]
    assert not still, f"no gradient reaches {still}"


def check_learns(subject: Subject) -> None:
    """Genes that the image shows are predicted on another section; with shuffled targets they are not."""
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model may say that there was nothing to learn
        blind = subject.fit([_shuffled(slide, rng) for slide in subject.training], calibration=0)
    genes = subject.target.genes
    real, control = (subject.explained(said, genes) for said in (subject.prediction, subject.predict(blind)))
    assert real > 0.05, f"the share of variance explained on another toy section is {real:.2f}"
    assert control < real / 2, f"the share explained is {control:.2f} with shuffled targets, {real:.2f} with true ones"


def check_order(subject: Subject) -> None:
    """Training rows and genes may come in any order: all is learned as well, and genes are predicted in theirs."""
    rng, columns = np.random.default_rng(0), np.arange(len(subject.target.genes))[::-1]
    genes = tuple(subject.target.genes[column] for column in columns)
    sources = []
    for slide in subject.training:
        moved = slide.take(rng.permutation(len(slide)))
        sources.append(replace(moved, genes=genes, expression=moved.expression[:, columns]))
    predictor = subject.fit(sources, calibration=0)  # its means alone are compared
    assert predictor.genes == genes, "genes do not keep the order of the sources"
    # not the same, but as well: initial weights and batches are drawn in the order given
    before = subject.explained(subject.prediction, subject.fitted.genes)
    after = subject.explained(subject.predict(predictor), genes)
    assert after > before / 2, f"rows and genes in another order: the share explained is {after:.2f}, was {before:.2f}"


def _shuffled(slide: Slide, rng: np.random.Generator) -> Slide:
    """The slide with the expression of its measured rows given to other measured rows."""
    expression, rows = slide.expression.copy(), np.flatnonzero(slide.measured)
    expression[rows] = expression[rng.permutation(rows)]
    return replace(slide, expression=expression)
