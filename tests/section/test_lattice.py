from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.errors import BadInput
from sq_imputer.section.lattice import (
    TECHNOLOGIES,
    beside,
    cells,
    is_staggered,
    lattice_um,
    mpp_of_lattice,
    pitch,
    positions,
    steps_um,
)


def array_positions(technology: str, size: int = 12) -> np.ndarray:
    rows, cols = np.divmod(np.arange(size * size), size)
    return np.column_stack([rows, cols if technology == "st" else 2 * cols + rows % 2])


def pixels(array_rc, technology, mpp, angle=0.0, mirror=False):
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy = lattice_um(array_rc, technology) * ([-1, 1] if mirror else [1, 1])
    return xy @ turn / mpp + [500, 300]


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_nearest_neighbors_are_one_pitch_apart(technology):
    xy = lattice_um(array_positions(technology), technology)
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(distance.min(axis=1), TECHNOLOGIES[technology], rtol=1e-9)


@pytest.mark.parametrize("technology", TECHNOLOGIES)
@pytest.mark.parametrize(("angle", "mirror"), [(0, False), (0.3, False), (np.pi / 2, True)])
def test_pixel_size_is_exact_when_rotated_or_mirrored(technology, angle, mirror):
    array_rc = array_positions(technology)
    assert mpp_of_lattice(pixels(array_rc, technology, 0.69, angle, mirror), array_rc, technology) == pytest.approx(
        0.69
    )


def test_jitter_does_not_bias_the_pixel_size():
    array_rc = array_positions("st", 20)
    xy = pixels(array_rc, "st", 0.69) + np.random.default_rng(0).normal(0, 20, (400, 2))
    assert mpp_of_lattice(xy, array_rc, "st") == pytest.approx(0.69, rel=0.005)


def test_misplaced_spots_do_not_move_the_pixel_size():
    array_rc = array_positions("visium")
    xy = pixels(array_rc, "visium", 0.5)
    xy[::10] += 3000
    assert mpp_of_lattice(xy, array_rc, "visium") == pytest.approx(0.5, rel=1e-3)


def test_spots_without_a_position_are_left_out():
    array_rc = array_positions("st").astype(float)
    xy = pixels(array_rc, "st", 0.5)
    xy[3], array_rc[7] = np.nan, np.nan
    assert mpp_of_lattice(xy, array_rc, "st") == pytest.approx(0.5)


def test_spots_on_a_line_are_an_error():
    array_rc = np.column_stack([np.zeros(10), np.arange(10)])
    with pytest.raises(BadInput, match="array positions of 10 spots do not span a lattice.*mpp="):
        mpp_of_lattice(pixels(array_rc, "st", 0.5), array_rc, "st")


def test_spots_at_one_pixel_are_an_error():
    array_rc = array_positions("st")
    with pytest.raises(BadInput, match="pixel positions"):
        mpp_of_lattice(np.full((len(array_rc), 2), 7.0), array_rc, "st")


def test_swapped_visium_rows_and_columns_are_an_error():
    array_rc = array_positions("visium")
    with pytest.raises(BadInput, match="3.00 times more.*swapped"):
        mpp_of_lattice(pixels(array_rc, "visium", 0.5), array_rc[:, ::-1], "visium")


def test_shuffled_positions_are_an_error():
    array_rc = array_positions("st")
    xy = np.random.default_rng(1).permutation(pixels(array_rc, "st", 0.5))
    with pytest.raises(BadInput):
        mpp_of_lattice(xy, array_rc, "st")


def test_unknown_technology_lists_the_known_ones():
    with pytest.raises(BadInput, match="no technology 'slide-seq'; there are 'visium', 'st', 'st2k'"):
        mpp_of_lattice(np.zeros((3, 2)), np.zeros((3, 2)), "slide-seq")


@pytest.mark.parametrize("technology", TECHNOLOGIES)
def test_pitch_of_a_lattice_is_that_of_its_technology(technology):
    xy = lattice_um(array_positions(technology), technology)
    assert pitch(xy) == pytest.approx(TECHNOLOGIES[technology])
    assert pitch(xy, xy[:1]) == pitch(np.concatenate([xy, xy])) == pitch(xy)


def test_pitch_is_a_median_over_the_spots_of_all_sections():
    line = np.column_stack([np.arange(5.0), np.zeros(5)])
    assert pitch(line, 10 * line[:2]) == 1 and pitch(line[:2], 10 * line) == 10


def test_fewer_than_two_places_have_no_pitch():
    assert np.isnan(pitch()) and np.isnan(pitch(np.zeros((1, 2)), np.zeros((3, 2))))


def turned(xy, angle):
    turn = np.deg2rad(angle)
    return xy @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


@pytest.mark.parametrize(
    ("technology", "angle", "steps"),
    [
        ("visium", 0, (50, 86.6025)),
        ("visium", 90, (86.6025, 50)),
        ("visium", 180, (50, 86.6025)),
        ("visium", 15, (100, 100)),
        ("st", 0, (200, 200)),
        ("st", 90, (200, 200)),
    ],
)
def test_a_lattice_has_steps_of_its_own_along_both_axes(technology, angle, steps):
    xy = turned(lattice_um(array_positions(technology), technology), angle)
    assert steps_um(xy) == pytest.approx(steps, rel=1e-4)
    jittered = xy + np.random.default_rng(0).normal(0, 3, xy.shape)
    assert steps_um(jittered, xy[:0]) == pytest.approx(steps, rel=0.06)


@pytest.mark.parametrize("by", [0.0, 1e-13, 9e-4])
@pytest.mark.parametrize("technology", ["visium", "st"])
def test_every_spot_of_an_array_has_the_cell_of_its_array_position(technology, by):
    array = array_positions(technology)
    xy = lattice_um(array, technology) + [1234.5, 777.7]
    xy = xy + np.random.default_rng(0).choice([-by, by], xy.shape)
    found = cells(xy, xy.min(axis=0), steps_um(xy))
    np.testing.assert_array_equal(found, array[:, ::-1] - array[:, ::-1].min(axis=0))


@pytest.mark.parametrize("by", [1e-13, 9e-4])
def test_places_half_way_between_cells_do_not_hang_on_rounding(by):
    xy = np.arange(40.0).reshape(-1, 2) * 50
    moved = xy + np.random.default_rng(0).choice([-by, by], xy.shape)
    np.testing.assert_array_equal(cells(moved, np.zeros(2), 100.0), cells(xy, np.zeros(2), 100.0))


def test_few_places_have_no_steps():
    assert np.isnan(steps_um(np.zeros((1, 2)))).all()


def test_staggered_arrays_are_known():
    assert is_staggered(array_positions("visium")) and is_staggered(array_positions("visium") + [1, 0])
    assert not is_staggered(array_positions("st")) and not is_staggered(np.full((5, 2), np.nan))


# Places that differ by 1 between neighbors ---------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("jitter", [0.0, 0.08])
def test_places_of_a_square_lattice_are_its_columns_and_rows(jitter, missing):
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(35), np.arange(30))
    there = rng.random(x.size) >= missing
    true = np.column_stack([x.ravel(), y.ravel()])[there]
    xy = 200.0 * true + 200 * jitter * rng.normal(size=true.shape)
    found, hexagonal = positions(xy)
    assert hexagonal == -1
    assert (found == true - true.min(axis=0)).all(axis=1).mean() > 0.99
    array, _ = positions(xy, true)
    np.testing.assert_array_equal(array, true - true.min(axis=0))
    mirrored, _ = positions(xy, np.column_stack([-true[:, 1], true[:, 0]]))  # printed the other way
    np.testing.assert_array_equal(mirrored, true - true.min(axis=0))


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_six_neighbors_on_a_hexagonal_lattice_have_axial_steps(axis, array):
    col, row = np.meshgrid(np.arange(40), np.arange(24))
    doubled = np.column_stack([2 * col.ravel() + row.ravel() % 2, row.ravel()])
    xy = (doubled * [50.0, 50 * np.sqrt(3)])[:, [axis, 1 - axis]]
    found, hexagonal = positions(xy, doubled if array else None)
    assert hexagonal == axis and len(np.unique(found, axis=0)) == len(found)
    middle = np.argmin(((xy - xy.mean(axis=0)) ** 2).sum(axis=1))
    near = np.argsort(((xy - xy[middle]) ** 2).sum(axis=1))[1:7]
    assert {tuple(map(int, step)) for step in found[near] - found[middle]} == {
        (1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)
    }  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_steps_on_a_hexagonal_lattice_outlive_holes_and_jitter(seed, axis):
    rng = np.random.default_rng(seed)
    col, row = np.meshgrid(np.arange(50), np.arange(60))
    doubled = np.column_stack([2 * col.ravel() + row.ravel() % 2, row.ravel()])[rng.random(col.size) >= 0.3]
    xy = (doubled * [50.0, 50 * np.sqrt(3)])[:, [axis, 1 - axis]]
    true = np.column_stack([(doubled[:, 0] - doubled[:, 1]) // 2, doubled[:, 1]])
    one, other = np.argwhere(np.triu(np.linalg.norm(xy[:, None] - xy, axis=2) < 120, 1)).T
    found, hexagonal = positions(xy + rng.normal(0, 4, xy.shape))
    assert hexagonal == axis
    same = ((found[one] - found[other]) == (true[one] - true[other])).all(axis=1)
    assert len(same) > 4000 and same.mean() > 0.99


def test_cells_have_places_near_where_they_lie():
    xy = np.random.default_rng(0).random((400, 2)) * 200
    found, hexagonal = positions(xy)
    assert hexagonal == -1
    assert np.corrcoef(found[:, 0], xy[:, 0])[0, 1] > 0.99 and np.corrcoef(found[:, 1], xy[:, 1])[0, 1] > 0.99
    assert (positions(np.zeros((2, 2)))[0] == 0).all() and (positions(np.zeros((5, 2)))[0] == 0).all()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_beside_a_place_of_a_square_lattice_are_those_of_three_times_three(missing):
    rng = np.random.default_rng(0)
    there = rng.random((20, 25)) >= missing
    row, col = np.nonzero(there)
    value = rng.normal(size=len(row))
    grid = np.pad(np.zeros(there.shape), 1)
    grid[row + 1, col + 1] = value
    sums = sum(grid[1 + dr + row, 1 + dc + col] for dr in (-1, 0, 1) for dc in (-1, 0, 1))
    for array in (None, np.column_stack([col, row])):
        among = beside(200.0 * np.column_stack([col, row]), array)
        np.testing.assert_allclose(among @ value, sums, atol=1e-9)
        assert set(among.data) == {1} and (among != among.T).nnz == 0


@pytest.mark.parametrize("axis", [0, 1])
def test_beside_a_place_of_a_hexagonal_lattice_are_six(axis):
    col, row = np.meshgrid(np.arange(30), np.arange(24))
    doubled = np.column_stack([2 * col.ravel() + row.ravel() % 2, row.ravel()])
    xy = (doubled * [50.0, 50 * np.sqrt(3)])[:, [axis, 1 - axis]]
    near = np.linalg.norm(xy[:, None] - xy, axis=2) < 120
    for array in (None, doubled):
        np.testing.assert_array_equal(beside(xy, array).toarray() > 0, near)
