from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.errors import BadInput
from sq_imputer.widget._lattice import region_of

SQUARE = np.array([[0, 0], [1000, 0], [1000, 1000], [0, 1000]], dtype=float)


def test_points_lie_inside_as_far_apart_as_asked():
    from scipy.spatial import cKDTree

    region = region_of(SQUARE, 50.0)
    assert region.holds(region.xy_um).all() and region.area_um2 == 1e6
    nearest = cKDTree(region.xy_um).query(region.xy_um, k=2)[0][:, 1]
    np.testing.assert_allclose(nearest, 50.0)
    assert len(region.xy_um) == pytest.approx(1e6 / (50**2 * np.sqrt(3) / 2), rel=0.1)


def test_the_finest_usual_spacing_is_taken_that_has_few_enough_points():
    region = region_of(SQUARE, most=2000)
    assert region.spacing_um == 50.0 and len(region.nodes) <= 2000
    assert len(region_of(SQUARE / 10, most=2000).nodes) > 400


def test_the_lattice_stays_where_it_is():
    one, other = region_of(SQUARE, 50.0), region_of(SQUARE + [333.3, -120.7], 50.0)
    by_node = {tuple(node): place for node, place in zip(one.nodes.tolist(), one.xy_um, strict=True)}
    shared = [(tuple(n), p) for n, p in zip(other.nodes.tolist(), other.xy_um, strict=True) if tuple(n) in by_node]
    assert len(shared) > 100
    for node, place in shared:
        np.testing.assert_array_equal(place, by_node[node])


@pytest.mark.parametrize(
    ("corners", "spacing", "said"),
    [
        (SQUARE[:2], 50.0, "corners of shape"),
        (SQUARE[[0, 2, 1, 3]], 50.0, "crosses itself"),
        (SQUARE, 1.0, "Draw a smaller one, or choose a larger spacing"),
        (SQUARE / 1e3 + 20.3, 200.0, "no point of a lattice"),
        (SQUARE, -1.0, "positive distance"),
    ],
)
def test_what_is_no_region_is_said(corners, spacing, said):
    with pytest.raises(BadInput, match=said):
        region_of(corners, spacing)
