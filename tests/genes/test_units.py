from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from sq_imputer.errors import BadInput
from sq_imputer.genes.units import UNITS, counting_variance, to_unit

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(2, (30, 5))
DEPTH = COUNTS.sum(axis=1) + RNG.integers(0, 50, 30)  # of a library of more genes than these


@pytest.mark.parametrize("form", [csr_matrix, csc_matrix, np.asarray])
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("log1p_cp10k", np.log(1 + 1e4 * COUNTS / DEPTH[:, None])),
        ("log1p_counts", np.log(1 + COUNTS)),
        ("log2_counts", np.log2(1 + COUNTS)),
        ("log10_cp10k_panel", np.log10(1 + 1e4 * COUNTS / COUNTS.sum(axis=1, keepdims=True))),
    ],
)
def test_units_are_their_formulas(form, unit, expected):
    values = to_unit(form(COUNTS), DEPTH, unit)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("unit", UNITS)
def test_a_row_without_counts_is_zero_and_counts_stay_as_they_were(unit):
    counts = csr_matrix(np.array([[0, 0], [1, 3]]))
    before = counts.toarray()
    assert (to_unit(counts, np.array([0, 4]), unit)[0] == 0).all()
    np.testing.assert_array_equal(counts.toarray(), before)


def test_an_unknown_unit_is_answered_with_the_known():
    with pytest.raises(BadInput, match="no unit 'tpm'; there are 'log1p_cp10k', 'log1p_counts', 'log2_counts'"):
        to_unit(csr_matrix(COUNTS), DEPTH, "tpm")
    with pytest.raises(BadInput, match="no unit 'log10_cp10k_panel' of which this is known; there are 'log1p_cp10k'"):
        counting_variance(np.ones((30, 5)), DEPTH, "log10_cp10k_panel")
