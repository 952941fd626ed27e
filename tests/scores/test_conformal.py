"""Intervals hold what they are to hold, whatever the distribution, and no part is judged by its own errors."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.scores.conformal import coverage, widths, widths_of_parts

SKEWED = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.exponential(size=size) ** 2,
}


@pytest.mark.parametrize("draw", SKEWED.values(), ids=SKEWED)
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_new_rows_lie_inside_as_often_as_asked(draw, level) -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 3, (1500, 40))
    error = draw(rng, scale.shape) * scale
    wide = widths(error[:500], scale[:500], level)
    held = coverage(error[500:], -wide * scale[500:], wide * scale[500:])
    assert abs(held.mean() - level) < 0.01


def test_the_width_is_the_order_statistic() -> None:
    error = np.arange(1.0, 10)[:, None]
    assert widths(error, np.ones((9, 1)), 0.9) == [9] and widths(error, np.ones((9, 1)), 0.5) == [5]
    assert widths(error, np.ones((9, 1)), 0.95) == [np.inf]  # nine rows cannot say
    assert widths(2 * error, np.full((9, 1), 2.0), 0.5) == [5]


def test_rows_that_are_not_known_are_left_out() -> None:
    error = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan]])
    wide = widths(error, np.ones((3, 2)), 0.5)
    assert wide[0] == 2 and np.isnan(wide[1])
    assert np.isnan(coverage(error, error - 1, error + 1)[1])


def test_a_part_is_not_judged_by_its_own_errors() -> None:
    error = np.concatenate([np.full((50, 1), 9.0), np.ones((50, 1))])
    parts = np.repeat([0, 1], 50)
    np.testing.assert_array_equal(widths_of_parts(error, np.ones_like(error), parts, 0.9), [[1], [9]])
    with pytest.raises(sqi.BadInput, match="all rows are of one part"):
        widths_of_parts(error, error, np.zeros(100, dtype=int), 0.9)
    with pytest.raises(sqi.BadInput, match="level is 1"):
        widths(error, error, 1)
