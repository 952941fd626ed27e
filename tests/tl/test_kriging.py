"""Residual kriging on planted patterns: found where there is one, nothing where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.genes.units import counting_variance, to_unit
from sq_imputer.tl import _kriging
from sq_imputer.tl._kriging import krige

LOADINGS = np.array([1.0, -0.7, 0.5, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def planted():
    """A lattice of 20 × 20 spots with a smooth pattern in three of six genes, and noise of a known size."""
    rng = np.random.default_rng(0)
    xy = 100.0 * np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    pattern = np.sin(xy[:, 0] / 300) * np.cos(xy[:, 1] / 400)
    truth = np.outer(pattern, LOADINGS)
    known = np.sort(rng.permutation(400)[:200])
    return xy, truth, known, np.setdiff1d(np.arange(400), known), rng.normal(0, 0.4, (400, 6))


def test_a_pattern_is_carried_to_other_places_and_genes_without_one_are_left_alone(planted) -> None:
    xy, truth, known, asked, noise = planted
    field = krige(truth[known] + noise[known], np.full((200, 6), 0.1), xy[known], xy[asked], components=3)
    error = ((field.mean - truth[asked]) ** 2).mean(axis=0)
    assert (error[:3] < 0.2 * (truth[asked] ** 2).mean(axis=0)[:3]).all()
    assert (error[3:] < 0.01).all()
    assert (field.share[:3] > 0.8).all()
    inside = np.abs(field.mean - truth[asked])[:, :3] < 2.5 * np.sqrt(field.var[:, :3])
    assert inside.mean() > 0.9


def test_residuals_without_a_pattern_change_next_to_nothing(planted) -> None:
    xy, _, known, asked, noise = planted
    field = krige(noise[known], np.full((200, 6), 0.1), xy[known], xy[asked], components=3)
    assert np.sqrt((field.mean**2).mean()) < 0.05 * noise.std()


def test_what_is_said_of_a_known_row_does_not_hang_on_it(planted) -> None:
    """The closed form is that of a fit without the row."""
    xy, truth, known, _, noise = planted
    y = (truth + noise)[known, 0]
    kernel = _kriging._fitted(y, np.full(200, 0.1), xy[known], 0, smooth=False)
    whole = _kriging._exact(kernel, y, np.full(200, 0.1), xy[known], xy[:0])
    rest = np.arange(1, 200)
    without = _kriging._exact(kernel, y[rest], np.full(199, 0.1), xy[known][rest], xy[known][:1])
    assert whole.left_mean[0] == pytest.approx(without.mean[0], abs=1e-6)
    assert whole.left_var[0] == pytest.approx(without.var[0], abs=1e-6)


def test_inducing_points_say_nearly_what_the_exact_process_says(planted, monkeypatch) -> None:
    xy, truth, known, asked, noise = planted
    given = (truth[known] + noise[known], np.full((200, 6), 0.1), xy[known], xy[asked])
    exact = krige(*given, components=1)
    monkeypatch.setattr(_kriging, "EXACT_BELOW", 0)
    monkeypatch.setattr(_kriging, "INDUCING", 60)
    assert np.corrcoef(krige(*given, components=1).mean[:, 0], exact.mean[:, 0])[0, 1] > 0.97


def test_features_tell_apart_what_is_near(planted) -> None:
    xy, _, known, asked, noise = planted
    kind = np.random.default_rng(1).normal(size=400)
    residual = np.tanh(2 * kind)[:, None] * np.ones(6) + noise
    places = np.column_stack([xy, kind])
    by_look = krige(residual[known], np.full((200, 6), 0.1), places[known], places[asked], components=1)
    by_place = krige(residual[known], np.full((200, 6), 0.1), xy[known], xy[asked], components=1)
    assert np.corrcoef(by_look.mean[:, 0], np.tanh(2 * kind[asked]))[0, 1] > 0.9
    assert np.abs(by_place.mean).max() < 0.3


@pytest.mark.parametrize("unit", ["log1p_cp10k", "log1p_counts", "log2_counts"])
def test_the_variance_of_counting_is_that_of_drawn_counts(unit) -> None:
    rng, depth = np.random.default_rng(0), np.full(20_000, 8000.0)
    drawn = to_unit(rng.poisson([20.0, 60.0], (20_000, 2)), depth, unit)
    said = counting_variance(np.repeat(drawn.mean(axis=0)[None], 2, axis=0), depth[:2], unit)
    np.testing.assert_allclose(said[0], drawn.var(axis=0), rtol=0.12)
