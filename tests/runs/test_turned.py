"""Mirror images and turns about the box of an image, and small ones about a point."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.runs.turned import AS_IT_IS, around, mirrored

BOX = np.array([[10.0, 20.0], [110.0, 70.0]])


def test_the_seven_ways_take_the_corners_of_a_box_to_corners() -> None:
    corners = np.array([[10, 20], [110, 20], [10, 70], [110, 70]], dtype=float)
    found = {turn.name: turn(corners) for turn in mirrored(BOX)}
    assert len(found) == 7
    np.testing.assert_allclose(found["mirrored along x"], corners[[1, 0, 3, 2]])
    np.testing.assert_allclose(found["turned by 180 degrees"], corners[::-1])
    np.testing.assert_allclose(found["x and y swapped"], [[10, 20], [10, 120], [60, 20], [60, 120]])
    for corner in found.values():
        low, high = corner.min(axis=0), corner.max(axis=0)
        np.testing.assert_allclose(low, BOX[0])
        assert sorted(high - low) == [50, 100]


def test_turns_and_scales_leave_their_point_where_it_is() -> None:
    middle = np.array([5.0, 7.0])
    for kind, value in (("rotation", 30.0), ("scale", 0.1)):
        np.testing.assert_allclose(around(AS_IT_IS, kind, value, middle)(middle[None]), middle[None])
    quarter = around(AS_IT_IS, "rotation", 90.0, np.zeros(2))
    np.testing.assert_allclose(quarter(np.array([[1.0, 0.0]])), [[0.0, 1.0]], atol=1e-12)
    both = around(quarter, "scale", np.log(2), np.zeros(2))
    np.testing.assert_allclose(both(np.array([[1.0, 0.0]])), [[0.0, 2.0]], atol=1e-12)
    assert both.name == "turned by 90 degrees, scaled by 2" and AS_IT_IS.name == "as it is"
    assert np.linalg.det(both.matrix) == pytest.approx(4)
