from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from sq_imputer.widget._region import ERRORS, NONE, PATCHES, Known, means, patch_errors

SIDE = 40
XY = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2) * 100.0


def smooth(seed: int, width: float = 3.0) -> np.ndarray:
    """Errors of standard deviation 1 that agree over some spots."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), width, mode="wrap")
    return (field / field.std()).reshape(-1)


def test_the_interval_covers_the_mean_of_patches_whose_errors_agree_and_the_naive_one_does_not():
    area, covered, naive, n = 600.0 * 600.0, [], [], 0
    for seed in range(60):
        error = smooth(seed)
        predicted = np.zeros(len(XY))
        measured = predicted + error
        hidden = (XY >= 1500).all(axis=1) & (XY < 2100).all(axis=1)  # the region: nobody knows its errors
        known = Known(XY[~hidden], measured[~hidden, None], predicted[~hidden, None])
        found = means(["A"], predicted[hidden, None], None, area, known, np.zeros((~hidden).sum(), dtype=bool))
        assert found["interval"].tolist() == [PATCHES]
        truth = measured[hidden].mean()
        covered.append(found["low"].iloc[0] <= truth <= found["high"].iloc[0])
        half = 1.96 * error[~hidden].std() / np.sqrt(hidden.sum())
        naive.append(abs(truth) <= half)
        n += 1
    assert np.mean(covered) >= 0.88
    assert np.mean(naive) < 0.6


def test_without_measured_spots_all_errors_are_taken_to_agree():
    predicted, std = np.ones((500, 1)), np.full((500, 1), 0.5)
    found = means(["A"], predicted, std, 1e6, None, None).loc["A"]
    assert found["interval"] == ERRORS and found["spots"] == 0 and np.isnan(found["measured"])
    np.testing.assert_allclose([found["low"], found["high"]], [1 - 1.96 * 0.5, 1 + 1.96 * 0.5], atol=1e-4)


def test_a_model_without_uncertainty_and_without_left_out_spots_has_no_interval():
    known = Known(XY, np.zeros((len(XY), 1)), None)  # the model has seen them
    found = means(["A"], np.ones((5, 1)), None, 1e6, known, np.arange(len(XY)) < 3).loc["A"]
    assert found["interval"] == NONE and np.isnan(found["low"])
    assert found["spots"] == 3 and found["measured"] == 0


def test_patches_as_large_as_the_tissue_say_nothing():
    assert patch_errors(XY, smooth(0)[:, None], XY.max() ** 2) is None
    assert patch_errors(XY[:5], smooth(0)[:5, None], 100.0) is None


def test_genes_that_were_not_measured_inside_are_empty():
    measured = np.full((len(XY), 2), np.nan)
    measured[:10, 0] = 2.0
    found = means(["A", "B"], np.ones((5, 2)), None, 1e6, Known(XY, measured, None), np.ones(len(XY), dtype=bool))
    assert found["spots"].tolist() == [10, 0] and found["measured"].iloc[0] == 2 and np.isnan(found["measured"].iloc[1])
