"""Chance that keeps patterns: two maps that have nothing to do with each other are not called predicted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sq_imputer.scores import chance


@pytest.fixture(scope="module")
def maps():
    """Sixty smooth maps on 24 × 24 spots, places and depth; every one as smooth as the next, and its own."""
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.normal(size=(24, 24)), 2, mode="wrap").ravel() for _ in range(120)]
    xy = 100.0 * np.stack(np.meshgrid(np.arange(24.0), np.arange(24.0)), axis=-1).reshape(-1, 2)
    fields = np.stack(fields, axis=1)
    return fields[:, :60], fields[:, 60:], rng.uniform(1e3, 1e4, 576), xy


def fdr_of(y, p, depth, xy) -> np.ndarray:
    null = chance.displaced_skill(y, p, depth, xy, n=100)
    return chance.corrected(chance.p_values(chance.pearson_given(y, p, depth), null))


def test_smooth_maps_of_their_own_are_not_called_predicted_though_they_would_be_by_shuffling(maps) -> None:
    y, p, depth, xy = maps
    assert (fdr_of(y, p, depth, xy) <= 0.05).mean() <= 0.05
    skill = chance.pearson_given(y, p, depth)
    order = [np.random.default_rng(k).permutation(len(y)) for k in range(100)]
    shuffled = np.stack([chance.pearson_given(y[rows], p, depth) for rows in order])
    assert (chance.corrected(chance.p_values(skill, shuffled)) <= 0.05).mean() > 0.3


def test_maps_that_follow_the_prediction_are_found(maps) -> None:
    y, p, depth, xy = maps
    assert (fdr_of(y + p, p, depth, xy) <= 0.05).mean() > 0.9


def test_a_gene_that_does_not_vary_has_no_p_value_and_does_not_count(maps) -> None:
    y, p, depth, xy = maps
    flat = y + p
    flat[:, 0] = 1.0
    found = fdr_of(flat, p, depth, xy)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


def test_blocks_that_are_drawn_spread_around_the_skill(maps) -> None:
    y, p, depth, xy = maps
    drawn = chance.drawn_skill(y + p, p, depth, xy, n=60)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    skill = chance.pearson_given(y + p, p, depth)
    assert ((low < skill) & (skill < high)).mean() > 0.9
