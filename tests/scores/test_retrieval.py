"""Ranks and recall of pairs, against counting by hand and against chance."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.scores import retrieval

RNG = np.random.default_rng(0)


def test_ranks_are_those_counted_by_hand():
    query = np.eye(3)
    key = np.array([[1.0, 0, 0], [2, 1, 0], [0, 1, 1]])
    above, ties, sizes = retrieval.ranked(query, key, np.zeros(3, dtype=int))
    assert above.tolist() == [1, 0, 0]  # row 1 is more like the first query than its own
    assert ties.tolist() == [0, 1, 0]  # rows 1 and 2 are as alike to the second
    assert sizes.tolist() == [3, 3, 3]
    assert retrieval.recall(above, ties, 1).tolist() == [0, 0.5, 1]
    assert retrieval.rank(above, ties).tolist() == [2, 1.5, 1]


def test_what_says_nothing_recalls_what_chance_does_to_the_last_digit():
    same = np.ones((50, 4))
    above, ties, sizes = retrieval.ranked(same, same, np.zeros(50, dtype=int))
    for k in (1, 5, 10):
        assert retrieval.recall(above, ties, k) == pytest.approx(k / 50)
        assert retrieval.chance(sizes, k) == pytest.approx(k / 50)


def test_random_vectors_recall_by_chance():
    query, key = RNG.normal(size=(2, 2000, 8))
    above, ties, sizes = retrieval.ranked(query, key, np.arange(2000) // 100)
    found, expected = retrieval.recall(above, ties, 10).mean(), retrieval.chance(sizes, 10).mean()
    assert expected == pytest.approx(0.1) and abs(found - expected) < 4 * np.sqrt(0.09 / 2000)


def test_a_batch_is_easier_than_a_section_by_what_chance_predicts():
    section = np.repeat(["A", "B"], [150, 50])
    batch = retrieval.galleries(section, "batch:64")
    assert np.bincount(batch).tolist() == [64, 64, 22, 50]  # the rest of a section is a gallery of its own
    assert np.bincount(retrieval.galleries(section, "section")).tolist() == [150, 50]
    assert set(retrieval.galleries(section, "all")) == {0}
    truth = RNG.normal(size=(200, 6))
    noisy = truth + RNG.normal(size=truth.shape)
    recalls = {}
    for name in ("batch:64", "section", "all"):
        above, ties, _ = retrieval.ranked(noisy, truth, retrieval.galleries(section, name))
        recalls[name] = retrieval.recall(above, ties, 5).mean()
    assert recalls["batch:64"] > recalls["section"] > recalls["all"]


def test_near_rows_of_the_same_section_are_left_out_of_the_gallery():
    xy = np.column_stack([np.arange(10) * 100.0, np.zeros(10)])
    xy = np.concatenate([xy, xy])
    section = np.repeat(["A", "B"], 10)
    same = np.ones((20, 2))
    how = {"xy_um": xy, "section": section, "exclude_um": 150.0}
    sizes = retrieval.ranked(same, same, np.zeros(20, dtype=int), **how)[2]
    assert sizes[0] == 19 and sizes[5] == 18  # one neighbor at the end, two within; the other section stays


def test_pieces_change_nothing(monkeypatch):
    query, key = RNG.normal(size=(2, 60, 4))
    whole = retrieval.ranked(query, key, np.zeros(60, dtype=int))
    monkeypatch.setattr(retrieval, "_AT_ONCE", 300)
    for one, other in zip(whole, retrieval.ranked(query, key, np.zeros(60, dtype=int)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("gallery", ["slide", "batch", "batch:1", "batch:x", 5])
def test_other_galleries_are_refused(gallery):
    with pytest.raises(sqi.BadInput, match="'batch:64'"):
        retrieval.galleries(["A"], gallery)
