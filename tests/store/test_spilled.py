import numpy as np

from sq_imputer.store.spilled import Spilled


def test_rows_in_a_file_are_those_of_an_array(tmp_path) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    spilled, order = Spilled(tmp_path / "rows", values.shape), np.random.default_rng(1).permutation(50)
    for rows in np.array_split(order, 7):
        spilled[rows] = values[rows]
    assert len(spilled) == 50 and spilled.shape == values.shape and spilled.dtype == np.float32
    for rows in (np.arange(10, 20), order[:9], np.array([4]), slice(3, 40, 2), values[:, 0] > 0, slice(0, 0)):
        np.testing.assert_array_equal(spilled[rows], values[rows])
    np.testing.assert_array_equal(spilled[7], values[7])
    np.testing.assert_array_equal(np.asarray(spilled), values)
