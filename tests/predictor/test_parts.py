from __future__ import annotations

import numpy as np
import pytest
import torch

from sq_imputer.predictor.parts import Labels, in_order, share_left


def test_labels_are_of_the_measured_rows_of_all_sources(arrays) -> None:
    measured = np.array([True, False, True, True])
    sources = [arrays(np.zeros((4, 1)), features=np.ones((4, 1)), measured=m) for m in (measured, ~measured)]
    groups, sections, xy = Labels.of(sources)
    assert sections.tolist() == [0, 0, 0, 1] and len(set(groups)) == 1
    np.testing.assert_array_equal(xy, np.concatenate([sources[0].xy_um[measured], sources[1].xy_um[~measured]]))


def test_twice_the_rows_take_off_half_of_what_half_of_them_add() -> None:
    noise, per_row, spread = torch.tensor([1.0, 4.0]), torch.tensor([20.0, 80.0]), torch.tensor([2.0, 4.0])
    error = {n: noise + per_row / n for n in (50, 100, 200)}
    assert share_left(error[100], error[50], spread) == pytest.approx(float((error[200] / error[100])[0]))
    assert share_left(error[100], 0.9 * error[100], spread) == 1  # it never gets worse
    assert share_left(error[100], 9 * error[100], spread) == 0.5
    assert 0.5 <= share_left(torch.zeros(2), torch.zeros(2), torch.zeros(2)) <= 1


def test_sections_have_an_order_that_is_not_that_of_a_list(arrays) -> None:
    def named(section: str, mean: float, rows: int = 4):
        return arrays(np.full((rows, 2), mean), features=np.ones((rows, 1)), section=section)

    first, second = named("A", 9.0), named("B", 1.0)
    assert in_order([second, first]) == in_order([first, second]) == [first, second]
    numbered = named("spots-1", 2.0), named("spots-2", 1.0), named("spots-3", 3.0, rows=2)
    again = named("spots-2", 2.0), named("spots-3", 1.0), named("spots-1", 3.0, rows=2)  # listed otherwise
    assert (
        [s.expression[0, 0] for s in in_order(numbered)] == [s.expression[0, 0] for s in in_order(again)] == [3, 1, 2]
    )
