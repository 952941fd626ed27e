"""Splits: disjoint, buffered, by patient; a shared patient is asked for by name."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sq_imputer.errors import BadInput
from sq_imputer.scores import splits


def lattice(nx=30, ny=20, pitch=100.0):
    x, y = np.meshgrid(np.arange(nx), np.arange(ny))
    return np.column_stack([x.ravel(), y.ravel()]) * pitch


@pytest.mark.parametrize("n_blocks", [1, 2, 3, 5, 7, 16, 600])
def test_blocks_are_all_there_and_equal_to_within_one_spot(n_blocks):
    sizes = np.bincount(splits.spatial_blocks(lattice(), n_blocks))
    assert len(sizes) == n_blocks
    assert np.ptp(sizes) <= 1


def test_blocks_do_not_overlap_and_are_compact():
    xy = np.random.default_rng(0).uniform(size=(1000, 2)) * [4000, 1000]
    labels = splits.spatial_blocks(xy, 6)
    boxes = [(xy[labels == k].min(axis=0), xy[labels == k].max(axis=0)) for k in range(6)]
    for i, (low, high) in enumerate(boxes):
        for other_low, other_high in boxes[:i]:
            assert ((high < other_low) | (other_high < low)).any()
        assert np.max(high - low) / np.min(high - low) < 2.5


@pytest.mark.parametrize("make", [splits.spatial_blocks, splits.strips])
def test_the_order_of_the_rows_does_not_matter(make):
    xy, order = lattice(), np.random.default_rng(0).permutation(600)
    np.testing.assert_array_equal(make(xy, 7)[order], make(xy[order], 7))


@pytest.mark.parametrize("axis", [0, 1])
def test_strips_are_ordered_along_their_axis(axis):
    xy = lattice()
    labels = splits.strips(xy, 4, axis=axis)
    assert np.ptp(np.bincount(labels)) <= 1
    assert all(xy[labels == k, axis].max() <= xy[labels == k + 1, axis].min() for k in range(3))


@pytest.mark.parametrize("buffer_um", [0.0, 150.0, 200.0])
def test_every_spot_is_tested_once_and_no_training_spot_is_within_the_buffer(buffer_um):
    xy = lattice()
    parts = list(splits.folds(xy, 5, buffer_um=buffer_um))
    np.testing.assert_array_equal(sum(part.test.astype(int) for part in parts), 1)
    for part in parts:
        distance = cdist(xy, xy[part.test]).min(axis=1)
        np.testing.assert_array_equal(part.train, distance > buffer_um)


def test_spots_in_the_same_place_are_never_on_both_sides():
    xy = np.repeat(lattice(10, 3), 2, axis=0)
    for part in splits.folds(xy, 7, buffer_um=0):
        assert not {tuple(p) for p in xy[part.train]} & {tuple(p) for p in xy[part.test]}


def test_folds_take_labels_of_any_kind():
    xy = lattice()
    parts = splits.folds(xy, buffer_um=100, blocks=np.where(xy[:, 0] < 1500, "left", "right"))
    assert [part.name for part in parts] == ["block left", "block right"]
    assert xy[parts[0].test, 0].max() < 1500


def test_a_training_set_that_is_too_small_says_what_to_change():
    with pytest.raises(BadInput, match=r"fold 0: 0 of 600 spots .* 300 are tested and 300 lie within buffer_um=5000"):
        splits.folds(lattice(), 2, buffer_um=5000)
    with pytest.raises(BadInput, match="smaller buffer_um, or more folds"):
        splits.folds(lattice(4, 3), 6, buffer_um=100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: splits.folds(lattice(2, 2), 5, buffer_um=0), "n_folds is 5 and there are 4 measured spots"),
        (lambda: splits.folds(lattice(), 1, buffer_um=0), "n_folds is 1; expected a whole number, 2 or more"),
        (lambda: splits.folds(lattice(), 5, buffer_um=-1), "buffer_um is -1"),
        (lambda: splits.folds(lattice(), buffer_um=0, blocks=[0, 1]), "2 labels for 600 spots"),
        (lambda: splits.strips(lattice(2, 2), 5), "5 strips asked for"),
        (lambda: splits.spatial_blocks(np.full((4, 2), np.nan), 2), "8 values not finite"),
        (lambda: splits.by_patient(["p", "p"]), "needs 2 patients"),
        (lambda: splits.by_section(["1", "1"], ["p", "p"]), "needs 2 sections"),
        (lambda: splits.by_section(["1"], ["p", "p"]), "1 section labels and 2 patient labels"),
        (lambda: splits.inner_split(["p"], ["s"], None), "1 rows cannot be split"),
        (lambda: splits.inner_split(["p"] * 9, ["s"] * 9, None, fraction=1.0), "fraction is 1.0"),
    ],
    ids=range(11),
)
def test_errors_name_what_was_found(call, message):
    with pytest.raises(BadInput, match=message):
        call()


def test_by_patient_holds_out_all_sections_of_a_patient():
    parts = splits.by_patient(["C", "C", "B", "A", "B"])
    assert [part.name for part in parts] == ["C", "B", "A"]
    assert parts[1].test.tolist() == [False, False, True, False, True]
    for part in parts:
        np.testing.assert_array_equal(part.train, ~part.test)
        assert not part.shares_patient


def test_a_section_split_that_shares_a_patient_is_asked_for_by_name_and_labelled():
    sections, groups = ["C2", "C3", "B4"], ["C", "C", "B"]
    with pytest.raises(BadInput, match="'C2', 'C3' have a patient"):
        splits.by_section(sections, groups)
    parts = splits.by_section(sections, groups, share_patient=True)
    assert {part.name: part.shares_patient for part in parts} == {"C2": True, "C3": True, "B4": False}


def test_sections_of_the_same_name_in_two_patients_are_two_sections():
    parts = splits.by_section(["1", "1"], ["p", "q"])
    assert [part.name for part in parts] == ["p 1", "q 1"]
    assert [part.test.tolist() for part in parts] == [[True, False], [False, True]]


def test_an_unknown_patient_counts_as_shared():
    with pytest.raises(BadInput, match="share_patient=True"):
        splits.by_section(["1", "2"], ["", ""])


def rows_of(patients, sections_each, xy):
    groups, sections = [], []
    for patient in range(patients):
        for section in range(sections_each):
            groups += [f"p{patient}"] * len(xy)
            sections += [f"s{section}"] * len(xy)
    return np.array(groups), np.array(sections), np.tile(xy, (patients * sections_each, 1))


def test_the_inner_split_keeps_patients_whole_when_there_are_more_than_two():
    groups, sections, xy = rows_of(4, 2, lattice(5, 4))
    held = splits.inner_split(groups, sections, xy, fraction=0.25)
    assert len(set(groups[held])) == 1
    assert not set(groups[held]) & set(groups[~held])


def test_the_inner_split_keeps_sections_whole_when_there_are_one_or_two_patients():
    groups, sections, xy = rows_of(2, 3, lattice(5, 4))
    held = splits.inner_split(groups, sections, xy, fraction=0.1)
    names = np.char.add(groups, sections)
    assert len(set(names[held])) == 1
    assert not set(names[held]) & set(names[~held])


@pytest.mark.parametrize("n_sections", [1, 2])
def test_the_inner_split_of_few_sections_is_a_block_of_each(n_sections):
    groups, sections, xy = rows_of(1, n_sections, lattice())
    held = splits.inner_split(groups, sections, xy, fraction=0.1)
    for section in set(sections):
        inside = xy[held & (sections == section)]
        assert len(inside) == 60
        assert np.ptp(inside, axis=0).max() <= 1100  # compact: 60 spots of pitch 100


@pytest.mark.parametrize(("patients", "sections_each"), [(5, 1), (1, 6), (1, 1)])
def test_the_inner_split_depends_on_its_seed_and_on_nothing_else(patients, sections_each):
    rows = rows_of(patients, sections_each, lattice(10, 10))
    np.testing.assert_array_equal(splits.inner_split(*rows, seed=3), splits.inner_split(*rows, seed=3))
    assert len({splits.inner_split(*rows, seed=seed).tobytes() for seed in range(8)}) > 1


def test_rows_without_a_place_are_drawn_one_by_one():
    held = splits.inner_split([""] * 200, [""] * 200, None, fraction=0.2)
    assert held.sum() == 40


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_smallest_inner_splits_have_both_sides(n):
    for groups in (["p"] * n, [f"p{i}" for i in range(n)]):
        held = splits.inner_split(groups, ["s"] * n, np.zeros((n, 2)))
        assert 0 < held.sum() < n


WRITTEN = {
    "float32": lambda xy: xy.astype(np.float32).astype(float),
    "shifted": lambda xy: (xy + 12345.678) - 12345.678,
    "in pixels and back": lambda xy: xy / 0.6913 * 0.6913,
    "in another system": lambda xy: xy + 1e6 / 3,
    "moved": lambda xy: xy + np.random.default_rng(0).uniform(-9e-4, 9e-4, xy.shape),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("shape", [(30, 20), (20, 20), (18, 20)])
def test_splits_do_not_hang_on_rounding(write, shape):
    xy = lattice(*shape, pitch=100.1)
    again = write(xy)
    for n in (2, 3, 5, 7, 10):
        np.testing.assert_array_equal(splits.spatial_blocks(again, n), splits.spatial_blocks(xy, n))
        np.testing.assert_array_equal(splits.strips(again, n, axis=1), splits.strips(xy, n, axis=1))
    one = [""] * len(xy)
    np.testing.assert_array_equal(splits.inner_split(one, one, again), splits.inner_split(one, one, xy))
    for buffer_um in (0.0, 100.1, 100.1 * 2**0.5, 200.2):  # distances at which spots lie
        for part, other in zip(
            splits.folds(again, 3, buffer_um=buffer_um), splits.folds(xy, 3, buffer_um=buffer_um), strict=True
        ):
            np.testing.assert_array_equal(part.train, other.train)
            np.testing.assert_array_equal(part.test, other.test)
