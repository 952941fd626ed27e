"""Places that differ by rounding are one place, whatever wrote them."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer import places


def lattice(nx=30, ny=20, pitch=100.0):
    x, y = np.meshgrid(np.arange(nx), np.arange(ny))
    return np.column_stack([x.ravel(), y.ravel()]) * pitch


def moved(xy, by=places.TOLERANCE_UM, seed=0):
    return xy + np.random.default_rng(seed).uniform(-by, by, np.shape(xy))


def test_values_within_the_tolerance_of_one_number_share_its_rank():
    values = np.array([300.0, 100, 200, 100, 300])
    np.testing.assert_array_equal(places.ranks(values), [2, 0, 1, 0, 2])
    for seed in range(20):
        np.testing.assert_array_equal(places.ranks(moved(values, seed=seed)), [2, 0, 1, 0, 2])


def test_no_grid_has_an_edge_that_parts_them():
    for center in np.random.default_rng(0).uniform(-1e5, 1e5, 200).tolist() + [0.0, 0.0005, 0.001, 0.5, 1e4]:
        assert set(places.ranks(moved(np.full(9, center)))) == {0}


def test_values_apart_have_ranks_in_their_order():
    values = np.random.default_rng(0).permutation(50) * 0.01
    np.testing.assert_array_equal(places.ranks(values), np.argsort(np.argsort(values)))


def test_values_without_a_gap_between_them_are_not_all_one():
    values = np.random.default_rng(0).permutation(np.linspace(0, 1, 10_001))  # each a tenth of a thousandth apart
    rank = places.ranks(values)
    assert rank.max() + 1 == pytest.approx(1 / places.APART_UM, rel=0.1)
    assert (np.diff(rank[np.argsort(values)]) >= 0).all()
    assert max(np.ptp(values[rank == k]) for k in range(20)) <= places.APART_UM


@pytest.mark.parametrize("axis", [0, 1])
def test_the_order_along_an_axis_is_that_of_the_lattice_without_rounding(axis):
    xy = lattice()
    exact = np.lexsort((xy[:, 1 - axis], xy[:, axis]))
    np.testing.assert_array_equal(places.order(xy, axis), exact)
    np.testing.assert_array_equal(places.order(moved(xy), axis), exact)
    assert (np.lexsort((moved(xy)[:, 1 - axis], moved(xy)[:, axis])) != exact).any()  # what plain sorting makes of it


def test_a_place_counts_once_however_it_was_rounded():
    xy = lattice(4, 3)
    np.testing.assert_array_equal(places.distinct(np.concatenate([xy, moved(xy)])), np.arange(12))


@pytest.mark.parametrize("n", [0, 1])
def test_few_places_have_ranks_too(n):
    xy = np.zeros((n, 2))
    assert places.grades(xy).shape == (n, 2)
    assert len(places.order(xy)) == len(places.distinct(xy)) == n


@pytest.mark.parametrize("n", [1, 8, 600, 10_000])
def test_a_summary_is_of_places_and_not_of_their_last_bits(n):
    xy = np.random.default_rng(0).uniform(0, 5000, (n, 2)).round(2)
    xy[0] = 0.0
    kept = places.summary(xy)
    for again in (moved(xy, 1e-9), moved(xy), xy + 1e-9, np.where(xy == 0, -0.0, xy), xy.astype(np.float32)):
        assert places.alike(kept, places.summary(again))
    assert not places.alike(kept, places.summary(xy + 0.05))
    assert not places.alike(kept, places.summary(xy[:-1]))
    one = xy.copy()
    one[n // 2] += 1.0
    assert not places.alike(kept, places.summary(one))
    if n > 1:
        assert not places.alike(kept, places.summary(xy[::-1]))


def test_what_is_no_summary_is_like_none():
    assert not places.alike("8d2f", places.summary(lattice())) and not places.alike(None, [1.0])


@pytest.mark.parametrize("square", [False, True])
def test_points_of_a_lattice_lie_in_the_box_and_stay_where_they_are(square):
    from scipy.spatial import cKDTree

    boxes = np.array([[0, 0], [300, 200.0]]), np.array([[-95.5, 80.0], [205.0, 310.0]])
    (nodes, xy), (others, elsewhere) = (places.lattice(box, 10.0, (3.0, 4.0), square=square) for box in boxes)
    assert (xy >= boxes[0][0]).all() and (xy <= boxes[0][1]).all()
    assert len(xy) == pytest.approx(6e4 / (100 * (1 if square else 0.75**0.5)), rel=0.04)
    near = cKDTree(xy).query(xy, k=(5 if square else 7))[0][:, 1:]
    inner = ((xy > 12) & (xy < boxes[0][1] - 12)).all(axis=1)
    np.testing.assert_allclose(near[inner], 10.0)
    at = {tuple(node): place for node, place in zip(nodes.tolist(), xy, strict=True)}
    both = [
        (place, at[tuple(node)]) for node, place in zip(others.tolist(), elsewhere, strict=True) if tuple(node) in at
    ]
    assert len(both) > 100
    np.testing.assert_array_equal(*zip(*both, strict=True))
