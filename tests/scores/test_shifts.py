"""A planted shift is found where skill is highest, between the shifts that are tried; a pattern beside it is not."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.scores import shifts
from sq_imputer.scores.shifts import Parts

SIDE = 12


def waves(xy: np.ndarray) -> np.ndarray:
    """A picture that is no square's: four channels at places in µm."""
    x, y = xy.T / 100
    parts = (np.sin(1.3 * x + 0.4 * y), np.cos(0.7 * x - 1.1 * y), np.sin(0.5 * x * y / SIDE), np.cos(1.7 * y))
    return np.stack(parts, axis=1)


@pytest.fixture
def places() -> np.ndarray:
    return np.stack(np.divmod(np.arange(SIDE * SIDE), SIDE), axis=1) * 100.0


def planted(places: np.ndarray, shift, noise: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(0)
    told = waves(places + shift) @ rng.normal(size=(4, 3))
    return told + noise * rng.normal(size=told.shape)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (-37.0, 12.0), (120.0, 60.0)])
def test_the_shift_is_found_between_those_that_are_tried(places, shift) -> None:
    targets, parts = planted(places, shift), Parts.of(places)
    coarse = shifts.attempt(waves, places, targets, shifts.grid(np.zeros(2), 200, 50), parts)
    fine = shifts.attempt(waves, places, targets, shifts.grid(coarse.best(), 50, 12.5), parts)
    assert np.abs(fine.best() - shift).max() < 5
    draws = fine.draws(100, 0)
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    assert (low < np.array(shift) + 3).all() and (high > np.array(shift) - 3).all() and (high - low < 40).all()


def test_displaced_sections_do_not_reach_what_is_planted_and_noise_does_not_pass_them(places) -> None:
    parts, where = Parts.of(places), shifts.grid(np.zeros(2), 100, 50)
    for noise, better in ((0.3, True), (30.0, False)):
        targets = planted(places, (0, 0), noise)
        null = shifts.null(waves, places, targets, where, parts, n=19, seed=0)
        skill = shifts.attempt(waves, places, targets, where, parts).skill.max()
        assert (skill > null.max()) == better


def test_errors_are_those_of_rows_left_out(places) -> None:
    targets, parts = planted(places, (0, 0), 0.0), Parts.of(places)
    tried = shifts.attempt(waves, places, targets, np.zeros((1, 2)), parts)
    x = np.column_stack([np.ones(len(places)), (waves(places) - waves(places).mean(0)) / waves(places).std(0)])
    left = parts.fold == 2
    penalty = shifts.PENALTY * (~left).sum() * np.diag([0, 1, 1, 1, 1])
    weight = np.linalg.solve(x[~left].T @ x[~left] + penalty, x[~left].T @ targets[~left])
    error = targets[left] - x[left] @ weight
    error = ((error - error.mean(axis=0)) ** 2).sum()
    own = np.unique(parts.block[left])
    assert len(own) == 5 and parts.block.max() == 24
    np.testing.assert_allclose(tried.errors[0, own].sum(), error)


def test_depth_weighs_as_the_first_component_and_bins_hold_all() -> None:
    rng = np.random.default_rng(0)
    values, depth = rng.normal(size=(60, 8)), rng.uniform(100, 900, 60)
    targets = shifts.components(values, depth, 3)
    assert targets.shape == (60, 4) and targets[:, 0].std() == pytest.approx(targets[:, 1].std())
    assert (np.diff(targets[:, 1:].std(axis=0)) < 0).all()
    xy = rng.uniform(0, 100, (60, 2))
    middle, (summed,) = shifts.bins(xy, 50, [depth])
    assert len(middle) == 4 and summed.sum() == pytest.approx(depth.sum())
