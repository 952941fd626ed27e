from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sq_imputer.contract import Prediction, Target
from sq_imputer.models import mlp, ridge, stem
from sq_imputer.predictor.train import Plan
from sq_imputer.runs.crossed import Crossed
from sq_imputer.runs.run import Piece

PLAN = Plan(device="cpu", progress=False)
FOLDS = ["fold-0", "fold-1", "fold-2"]
BY = {name: [other for other in FOLDS if other != name] for name in FOLDS} | {"all": FOLDS}
N, G = 3000, 2
TRUE = torch.tensor([0.5, 2.0])


def model(kind=stem, *, added: float = 0.0):
    known = {"std_factor": torch.ones(G), "std_added": torch.full((G,), added), "expression_std": torch.ones(G)}
    kept = ("card", "std_of_mean", "measures_error")
    config = kind.Model.Config.small()
    known["target"] = Target()
    return SimpleNamespace(**known, **{name: getattr(kind.Model, name) for name in kept}, config=config)


@pytest.fixture
def slide():
    noise = np.random.default_rng(0).normal(size=(4 * N, G)) * TRUE.numpy()
    noise[:N] *= 10  # the rows of the first block are ten times as far off
    return SimpleNamespace(expression=noise.astype(np.float32))


def piece(number: int, std: float) -> Piece:
    rows = np.arange(N) + number * N
    samples = torch.randn(N, 5, G, generator=torch.Generator().manual_seed(number)) * std
    return Piece(rows, Prediction(mean=torch.zeros(N, G), std=torch.full((N, G), std), samples=samples), None)


def noted(slide, kind=stem, *, std: float = 0.1, added: float = 0.0) -> tuple[Crossed, dict[str, Piece]]:
    crossed, pieces = Crossed(BY), {}
    for number, name in enumerate([*FOLDS, "all"]):
        pieces[name] = piece(number, std)
        crossed.note(name, pieces[name], model(kind, added=added), slide, PLAN)
    return crossed, pieces


def test_a_block_has_the_size_of_the_errors_of_the_others_and_not_of_its_own(slide) -> None:
    crossed, pieces = noted(slide)
    first, second = (crossed.resized(name, pieces[name]).prediction.std for name in FOLDS[:2])
    torch.testing.assert_close(first, TRUE.expand(N, G), rtol=0.05, atol=0)
    torch.testing.assert_close(second, TRUE.expand(N, G) * 50.5**0.5, rtol=0.05, atol=0)


def test_rows_that_were_not_measured_have_the_size_of_all_blocks(slide) -> None:
    crossed, pieces = noted(slide)
    std = crossed.resized("all", pieces["all"]).prediction.std
    torch.testing.assert_close(std, TRUE.expand(N, G) * 34**0.5, rtol=0.05, atol=0)


def test_samples_are_stretched_alike(slide) -> None:
    crossed, pieces = noted(slide)
    samples = crossed.resized("fold-0", pieces["fold-0"]).prediction.samples
    torch.testing.assert_close(samples.std(dim=(0, 1)), TRUE, rtol=0.05, atol=0)


def test_what_stood_for_an_error_that_was_not_measured_is_taken_off_first(slide) -> None:
    crossed, pieces = noted(slide, mlp, std=(0.3**2 + 1) ** 0.5, added=1.0)
    std = crossed.resized("fold-0", pieces["fold-0"]).prediction.std
    torch.testing.assert_close(std, torch.maximum(TRUE, torch.tensor(0.3)).expand(N, G), rtol=0.05, atol=0)


def test_a_model_that_measures_its_error_is_left_as_it_is(slide) -> None:
    crossed, pieces = noted(slide, ridge)
    assert crossed.resized("fold-0", pieces["fold-0"]) is pieces["fold-0"]
    assert crossed.plan("fold-0", model(ridge), PLAN) is PLAN


def test_fits_that_are_crossed_measure_nothing_themselves() -> None:
    crossed = Crossed(BY)
    assert crossed.plan("fold-1", model(), PLAN).calibration == 0
    assert crossed.plan("without-0", model(), PLAN) is PLAN
    off = Plan(calibration=0)
    assert crossed.plan("fold-1", model(), off) is off
