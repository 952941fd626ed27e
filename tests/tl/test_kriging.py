"""Residual kriging on planted patterns: found where there is one, nothing where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.genes.units import counting_variance, to_unit
from sq_imputer.tl import _processes
from sq_imputer.tl._kriging import corrected, krige, slopes

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
    places = np.column_stack([xy, np.sin(xy / 70)])[known]
    for known in (places[:, :2], places):
        kernel = _processes.fitted(y, np.full(200, 0.1), known, 0, smooth=False)
        whole = _processes.by_all(kernel, y, np.full(200, 0.1), known, known[:0])
        without = _processes.by_all(kernel, y[1:], np.full(199, 0.1), known[1:], known[:1])
        assert whole.left_mean[0] == pytest.approx(without.mean[0], abs=1e-6)
        assert whole.left_var[0] == pytest.approx(without.var[0], abs=1e-6)


def test_inducing_points_say_nearly_what_the_exact_process_says(planted, monkeypatch) -> None:
    xy, truth, known, asked, noise = planted
    given = (truth[known] + noise[known], np.full((200, 6), 0.1), xy[known], xy[asked])
    exact = krige(*given, components=1)
    monkeypatch.setattr(_processes, "EXACT_BELOW", 0)
    monkeypatch.setattr(_processes, "INDUCING", 60)
    assert np.corrcoef(krige(*given, components=1).mean[:, 0], exact.mean[:, 0])[0, 1] > 0.97


@pytest.mark.parametrize("exact", [True, False])
def test_residuals_are_carried_to_what_is_near_and_to_what_looks_alike(planted, monkeypatch, exact) -> None:
    """Half of the pattern is one of places, the other half one of looks, which have nothing to do with places."""
    monkeypatch.setattr(_processes, "EXACT_BELOW", 2000 if exact else 0)
    monkeypatch.setattr(_processes, "INDUCING", 60)
    xy, truth, known, asked, noise = planted
    kind = np.random.default_rng(1).normal(size=400)
    pattern = truth[:, :1] + np.tanh(2 * kind)[:, None]
    residual, counting = pattern * np.ones(6) + noise, np.full((200, 6), 0.1)
    places = np.column_stack([xy, kind])
    by_look = krige(residual[known], counting, places[known], places[asked], components=1)
    by_place = krige(residual[known], counting, xy[known], xy[asked], components=1)
    assert np.corrcoef(by_look.mean[:, 0], pattern[asked, 0])[0, 1] > 0.9
    assert np.corrcoef(by_place.mean[:, 0], pattern[asked, 0])[0, 1] < 0.7
    assert np.corrcoef(by_place.mean[:, 0], truth[asked, 0])[0, 1] > 0.8


def drawn(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """What was predicted of 40 genes, and what was measured, whose mean is that."""
    rng = np.random.default_rng(seed)
    said = 2 + rng.normal(size=(n, 3)) @ rng.normal(size=(3, 40)) / 3
    return said, said + rng.normal(0, 1, said.shape)


def test_a_prediction_that_holds_is_kept() -> None:
    """On average over draws, as each gene's own slope is by chance within .1 or so of 1."""
    found = np.stack([slopes(measured, said) for said, measured in map(drawn, range(5))])
    assert found.mean() > 0.95


def test_a_prediction_of_something_else_is_left_behind() -> None:
    said, measured = drawn(0)
    shuffled = measured[np.random.default_rng(1).permutation(len(measured))]
    assert slopes(shuffled, said).mean() < 0.1
    half = np.where(np.arange(40) < 20, measured, shuffled)  # some genes only
    found = slopes(half, said)
    assert found[:20].mean() > 0.8
    assert found[20:].mean() < 0.3


def test_a_constant_prediction_has_no_slope() -> None:
    said, measured = drawn(0)
    said[:, 0] = 2.0
    assert slopes(measured, said)[0] == 1.0


def test_where_the_prediction_says_nothing_what_was_measured_is_interpolated(planted) -> None:
    xy, truth, known, asked, noise = planted
    wrong = np.random.default_rng(3).normal(3, 1, (400, 6))
    measured, depth = 3 + truth + noise / 2, np.full(200, 5000.0)
    how = {"unit": "log1p_cp10k", "components": 3}
    places = xy[known], xy[asked], depth
    found = corrected(measured[known], wrong[known], wrong[asked], *places, **how)
    alone = corrected(measured[known], np.full((200, 6), 3.0), np.full((200, 6), 3.0), *places, **how)
    assert found.slope.max() < 0.15
    error, least = (((one.mean - 3 - truth[asked]) ** 2).mean() for one in (found, alone))
    assert error < 1.5 * least
    assert error < 0.1 * ((wrong[asked] - 3 - truth[asked]) ** 2).mean()


@pytest.mark.parametrize("unit", ["log1p_cp10k", "log1p_counts", "log2_counts"])
def test_the_variance_of_counting_is_that_of_drawn_counts(unit) -> None:
    rng, depth = np.random.default_rng(0), np.full(20_000, 8000.0)
    drawn = to_unit(rng.poisson([20.0, 60.0], (20_000, 2)), depth, unit)
    said = counting_variance(np.repeat(drawn.mean(axis=0)[None], 2, axis=0), depth[:2], unit)
    np.testing.assert_allclose(said[0], drawn.var(axis=0), rtol=0.12)
