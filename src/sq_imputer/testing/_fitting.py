"""Fitting: what it depends on, what it must not depend on, and what it leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch

from sq_imputer.contract import Prediction
from sq_imputer.errors import SqImputerError
from sq_imputer.testing._statements import refuses
from sq_imputer.testing._subject import (
    Subject,
    by_gradient,
    changed,
    content,
    finite,
    in_float64,
    other_states,
    relisted,
    renamed,
    same,
    state,
    without_unmeasured,
)


def check_fits(subject: Subject) -> None:
    """It can be fitted, and asked about a section it has not seen."""
    assert subject.fitted.fitted and isinstance(subject.prediction, Prediction), "there is no prediction"


def check_state(subject: Subject) -> None:
    """Weights and buffers are finite, and float32 or whole numbers."""
    for name, value in subject.weights.items():
        assert value.dtype == torch.float32 or not value.is_floating_point(), f"{name} is {value.dtype}"
        assert value.isfinite().all(), f"{name} is not finite"


def check_seed(subject: Subject) -> None:
    """The same seed fits the same model, whatever the random states of the process are."""
    with other_states():
        differ = subject.differs(list)
    assert not differ, f"two fits with one seed differ in {', '.join(differ)}"


def check_listing(subject: Subject) -> None:
    """The order in which sections are listed does not change the fit."""
    differ = subject.differs(relisted)
    assert not differ, f"sections listed in another order give another {', '.join(differ)}"


def check_another_seed(subject: Subject) -> None:
    """A model that is trained by steps depends on the seed of the plan."""
    if by_gradient(subject.model):
        other = subject.fit_quickly(subject.few, seed=subject.plan.seed + 1, calibration=0)
        pairs = zip(subject.quick.parameters(), other.parameters(), strict=True)
        drawn = any(not torch.equal(a, b) for a, b in pairs)
        assert drawn, "two seeds gave the same weights; Plan.seed is not used"


def check_refit(subject: Subject) -> None:
    """Fitting returns the model itself, and a second fit leaves nothing of the first."""
    predictor = subject.fit_quickly(subject.few[:1], calibration=0)
    assert subject.fit_quickly(subject.few, predictor) is predictor, "fit does not return the model itself"
    differ = changed(state(subject.quick), state(predictor))
    assert not differ, f"a second fit differs from a first one in {', '.join(differ)}"


def check_models_apart(subject: Subject) -> None:
    """Fitting another model of the class does not change what this one says."""
    said, _ = subject.prediction, subject.quick
    same(subject.predict(), said, exact=True)


def check_unmeasured_rows(subject: Subject) -> None:
    """What stands in rows that were not measured does not reach the fit."""
    differ = subject.differs(without_unmeasured)
    assert not differ, f"the expression of rows that were not measured changes {', '.join(differ)}"


def check_training_labels(subject: Subject) -> None:
    """The names of training sections and individuals do not matter."""
    differ = subject.differs(renamed)
    assert not differ, f"other names of sections and individuals change {', '.join(differ)}"


def check_float64(subject: Subject) -> None:
    """Expression in float64 fits the same model as in float32."""
    differ = subject.differs(in_float64)
    assert not differ, f"expression in float64 changes {', '.join(differ)}"


def check_one_gene(subject: Subject) -> None:
    """One gene is enough."""
    sources = [replace(slide, genes=slide.genes[:1], expression=slide.expression[:, :1]) for slide in subject.few]
    finite(subject.predict(subject.fit_quickly(sources, calibration=0)), len(subject.target), 1)


def check_flat_genes(subject: Subject) -> None:
    """A gene that never varies and one that was never seen are predicted by finite numbers."""
    sources = []
    for slide in subject.few:
        expression = slide.expression.copy()
        expression[:, :2] = 2.5, 0
        sources.append(replace(slide, expression=expression))
    finite(subject.predict(subject.fit_quickly(sources)), len(subject.target), len(subject.target.genes))


def check_two_rows(subject: Subject) -> None:
    """Two training rows are fitted, or refused by an error of this package."""
    try:
        predictor = subject.fit_quickly([subject.few[0].take(np.arange(2))])
    except SqImputerError:
        return
    finite(subject.predict(predictor), len(subject.target), len(predictor.genes))


def check_failed_fit(subject: Subject) -> None:
    """A fit that fails leaves the model as it was."""
    bad = replace(subject.training[0], expression=None)
    assert refuses(lambda: subject.fitted.fit([bad], subject.plan)), "a source without targets was accepted"
    assert not changed(subject.weights, state(subject.fitted)), "the failed fit changed weights"


def check_interrupted_fit(subject: Subject) -> None:
    """Ctrl-C during the training or at the end of it goes on, and leaves the model as it was."""
    model = subject.model
    moments = {"optimize": _interrupted(model.optimize, at_end=True)}
    if by_gradient(model):
        moments["loss"] = _interrupted(model.loss, at_end=False)
    fitted = subject.quick
    before, said = state(fitted), copy.deepcopy((fitted.genes, fitted.provenance, fitted.history))
    for name, interrupted in moments.items():
        empty = subject.unfitted()
        for predictor in (empty, fitted):
            with patch.object(model, name, interrupted):
                try:
                    subject.fit_quickly(subject.few[:1], predictor)
                except KeyboardInterrupt:
                    continue
            raise AssertionError(f"Ctrl-C in {name} was swallowed")
        assert not empty.fitted and not empty.state_dict(), f"Ctrl-C in {name} leaves a new model half fitted"
        assert not changed(before, state(fitted)), f"Ctrl-C in {name} changes the weights of a fitted model"
        unchanged = said == (fitted.genes, fitted.provenance, fitted.history)
        assert unchanged, f"Ctrl-C in {name} changes genes, provenance or history of a fitted model"


def _interrupted(function: Callable, *, at_end: bool) -> Callable:
    """The function, interrupted when it is called, or once it has done its work."""

    def interrupted(*args, **kwargs):
        if at_end:
            function(*args, **kwargs)
        raise KeyboardInterrupt

    return interrupted


def check_sources_unchanged(subject: Subject) -> None:
    """Fitting and predicting leave the sources as they were."""
    for slide, before in zip([*subject.training, subject.target], subject.content, strict=True):
        after = content(slide)
        differ = [name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)]
        assert not differ, f"{differ} of section '{slide.section}' changed"
