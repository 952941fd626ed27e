from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.scores.moments import mean_and_std


@pytest.mark.parametrize("sizes", [(7,), (1, 1, 1), (5, 0, 2, 90)])
def test_chunks_give_what_all_rows_give(sizes) -> None:
    rows = (np.random.default_rng(0).normal(size=(sum(sizes), 4)) * [1e-3, 1, 10, 100] + [0, 1e4, -50, 3]).astype("f4")
    mean, std = mean_and_std(np.split(rows, np.cumsum(sizes)[:-1]))
    np.testing.assert_allclose(mean, rows.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, rows.astype(float).std(axis=0), rtol=1e-9)
    assert mean.dtype == std.dtype == np.float64


def test_a_column_that_never_varies_has_no_spread() -> None:
    _, std = mean_and_std([np.full((n, 2), 1234.567, dtype=np.float32) for n in (3, 8, 1)])
    assert std.tolist() == [0, 0]


def test_no_rows_have_no_mean() -> None:
    assert np.isnan(mean_and_std([])).all() and np.isnan(mean_and_std([np.zeros((0, 2))])).all()
