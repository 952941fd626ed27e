"""Rows are found again by place and by counts; what is only alike is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sq_imputer.contract import Marks
from sq_imputer.scores.overlap import codes_of, shared

LATTICE = np.stack(np.divmod(np.arange(200), 20), axis=1) * 100.0


def marked(counts, xy=LATTICE) -> Marks:
    codes = codes_of(np.asarray(counts))
    return Marks(tuple(f"G{g}" for g in range(np.shape(counts)[1])), xy, codes, np.ones(codes.shape[1], dtype=bool))


def drawn(seed: int, mean: float = 3.0, n_genes: int = 60) -> np.ndarray:
    """Counts of a section: all sections of one mean share their profile."""
    profile = np.random.default_rng(0).gamma(1.0, 1.0, n_genes)
    return np.random.default_rng(seed).poisson(mean * profile, (len(LATTICE), n_genes))


def test_a_code_is_of_four_genes_and_of_nothing_else():
    counts = np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 0], [2, 1, 3, 4, 5], [0, 0, 0, 0, 7]])
    codes = codes_of(counts)
    assert codes.shape == (4, 2) and codes.dtype == np.int16
    assert codes[0, 0] == codes[1, 0] != codes[2, 0] and codes[0, 1] == codes[2, 1]
    assert codes[3, 0] == 0 == codes[1, 1] and codes[3, 1] != 0
    np.testing.assert_array_equal(codes, codes_of(csr_matrix(counts)))
    assert codes_of(counts[:, :0]).shape == (4, 0)


def test_codes_of_other_counts_are_other_codes():
    counts = np.stack(np.divmod(np.arange(4000), 80), axis=1)
    same = len(counts) - len(np.unique(codes_of(counts)))
    assert same < 200  # 122 pairs of 4000 are expected to share one of 65,536 codes


@pytest.mark.parametrize("shift_um", [0.0, 1e-3, 5000.0], ids=["here", "rounded", "elsewhere"])
@pytest.mark.parametrize("turn", [1, -1], ids=["as it was", "mirrored"])
def test_rows_are_found_again_wherever_they_are(shift_um, turn):
    training = marked(drawn(1))
    rows = np.random.default_rng(2).permutation(200)[:30]
    target = marked(drawn(1)[rows], LATTICE[rows] * [turn, 1] + shift_um)
    assert shared(target, training).all()


def test_some_rows_of_a_section_among_others_are_found():
    other = drawn(9)
    other[40:60] = drawn(1)[40:60]
    for xy in (LATTICE, LATTICE + 0.4):
        np.testing.assert_array_equal(np.flatnonzero(shared(marked(other, xy), marked(drawn(1)))), np.arange(40, 60))


@pytest.mark.parametrize("mean", [3.0, 0.3, 0.03], ids=["spots", "bins", "sparse bins"])
def test_another_section_on_the_same_lattice_is_another(mean):
    assert not shared(marked(drawn(2, mean)), marked(drawn(1, mean))).any()
    assert shared(marked(drawn(1, mean)), marked(drawn(1, mean))).all()  # the control


def test_another_section_of_few_genes_and_counts_is_another_wherever_it_lies():
    for n_genes in (1, 4, 12):
        one, other = drawn(1, 1.0, n_genes), drawn(2, 1.0, n_genes)
        for xy in (LATTICE, LATTICE + 0.4):
            assert not shared(marked(other, xy), marked(one)).any()
        assert shared(marked(one), marked(one)).all()  # the control


def test_a_serial_section_with_the_same_mean_at_every_place_is_another():
    means = np.random.default_rng(0).gamma(1.0, 2.0, (len(LATTICE), 60))
    one, next_ = (np.random.default_rng(seed).poisson(means) for seed in (1, 2))
    assert not shared(marked(next_), marked(one)).any()


def test_codes_that_lack_a_gene_are_not_compared():
    counts, fewer = drawn(1), drawn(1)
    fewer[:, 8:12] = 0
    target = marked(fewer, LATTICE + 5000)
    assert not shared(target, marked(counts)).all()  # as if the genes had no counts
    known = np.arange(15) != 2
    assert shared(replace(target, known=known), marked(counts)).all()
    assert not shared(replace(target, known=known & False), marked(counts)).any()  # a place alone says nothing


def test_nothing_is_found_in_nothing():
    one = marked(drawn(1))
    nothing = marked(drawn(1)[:0], LATTICE[:0])
    assert shared(nothing, one).shape == (0,) and not shared(one, nothing).any()
    assert not shared(marked(drawn(1) * 0), marked(drawn(1) * 0)).any()
