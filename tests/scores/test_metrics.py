"""Scores per gene against closed forms, scipy and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sq_imputer.errors import BadInput
from sq_imputer.scores import metrics

CORRELATIONS = {
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "given": lambda y, p: metrics.pearson_given(y, p, np.linspace(500, 900, len(y))),
}


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    y = rng.gamma(2, size=(80, 6))
    return y, 0.5 * y + rng.normal(size=y.shape)


@pytest.mark.parametrize(("score", "scipy_score"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlations_are_those_of_scipy(pair, score, scipy_score):
    expected = [scipy_score(y, p)[0] for y, p in zip(*(side.T for side in pair), strict=True)]
    np.testing.assert_allclose(CORRELATIONS[score](*pair), expected, atol=1e-12)


def test_pearson_given_depth_is_the_closed_form_of_a_partial_correlation(pair):
    y, p = pair
    depth = np.random.default_rng(1).integers(200, 5000, len(y))
    y, p = y + np.log(depth)[:, None], p + 2 * np.log(depth)[:, None]
    for gene in range(y.shape[1]):
        (_, yp, yd), (_, _, pd), _ = np.corrcoef([y[:, gene], p[:, gene], np.log(depth)])
        expected = (yp - yd * pd) / np.sqrt((1 - yd**2) * (1 - pd**2))
        assert metrics.pearson_given(y, p, depth)[gene] == pytest.approx(expected, abs=1e-12)


def test_a_score_that_is_all_depth_vanishes_given_depth():
    rng = np.random.default_rng(2)
    depth = rng.lognormal(7, 0.5, size=2000)
    y, p = (np.log(depth)[:, None] + 0.3 * rng.normal(size=(2000, 5)) for _ in range(2))
    assert metrics.pearson(y, p).min() > 0.6
    assert np.abs(metrics.pearson_given(y, p, depth)).max() < 0.08


def test_equal_depth_takes_nothing_away(pair):
    np.testing.assert_allclose(metrics.pearson_given(*pair, np.full(80, 1000)), metrics.pearson(*pair), atol=1e-12)


@pytest.mark.parametrize("name", CORRELATIONS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_gene_is_nan_on_either_side_and_its_neighbors_are_not(pair, name, side, dtype):
    sides = [part.astype(dtype) for part in pair]
    sides[side][:, 2] = 0.1
    sides[side][:, 4] = 0
    assert np.flatnonzero(np.isnan(CORRELATIONS[name](*sides))).tolist() == [2, 4]


@pytest.mark.parametrize("name", CORRELATIONS)
def test_rounding_noise_around_a_constant_is_constant(pair, name):
    y, p = pair
    p[:, 1] = 3 * (1 + 1e-7 * np.random.default_rng(0).normal(size=len(p)))
    assert np.flatnonzero(np.isnan(CORRELATIONS[name](y, p))).tolist() == [1]


def test_the_depth_only_baseline_has_no_score_given_depth_even_in_float32(pair):
    y, _ = pair
    depth = np.random.default_rng(1).integers(200, 5000, len(y))
    p = metrics.depth_only(y, depth, depth).astype(np.float32)
    assert np.isnan(metrics.pearson_given(y, p, depth)).all()
    assert not np.isnan(metrics.pearson(y, p)).any()


def test_a_gene_seen_once_in_many_spots_is_not_constant():
    y = np.zeros((20_000, 1), dtype=np.float32)
    y[7] = 0.7
    assert metrics.pearson(y, y)[0] == pytest.approx(1)


def test_missing_and_infinite_values_score_nan_without_a_warning(pair):
    y, p = pair
    y[3, 0], p[4, 1] = np.nan, np.inf
    for score in CORRELATIONS.values():
        assert np.flatnonzero(np.isnan(score(y, p))).tolist() == [0, 1]


def test_mse_and_r2_are_their_definitions_and_the_mean_explains_nothing(pair):
    y, p = pair
    np.testing.assert_allclose(metrics.mse(y, p), np.mean((y - p) ** 2, axis=0))
    np.testing.assert_allclose(metrics.r2(y, p), 1 - np.mean((y - p) ** 2, axis=0) / y.var(axis=0))
    np.testing.assert_allclose(metrics.r2(y, metrics.mean_only(y, len(y))), 0, atol=1e-12)


def test_rvd_of_a_calibrated_mean_is_one_minus_rho_squared_squared():
    rng = np.random.default_rng(0)
    p = rng.normal(size=(200_000, 1))
    y = p + rng.normal(size=p.shape)  # rho² = 1/2
    assert metrics.rvd(y, p)[0] == pytest.approx(0.25, abs=0.01)
    assert metrics.rvd(y, y[::-1])[0] == pytest.approx(0, abs=1e-12)


def test_gene_correlation_agreement_sees_structure_that_gene_scores_do_not():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 30)) + 0.1 * rng.normal(size=(400, 30))
    shuffled_spots = y[rng.permutation(400)]
    shuffled_genes = y[:, rng.permutation(30)]
    y[:, 3] = 1.0
    assert metrics.genes_correlation_agreement(y, shuffled_spots) > 0.99
    assert abs(metrics.genes_correlation_agreement(y, shuffled_genes)) < 0.3
    assert np.isnan(metrics.genes_correlation_agreement(y[:, 2:5], y[:, 2:5]))


def test_depth_only_is_least_squares_per_gene():
    rng = np.random.default_rng(0)
    train, test = rng.lognormal(7, size=60), rng.lognormal(7, size=9)
    y = rng.normal(size=(60, 3)) + np.log(train)[:, None] * [1, 0, -2]
    expected = [np.polyval(np.polyfit(np.log(train), gene, 1), np.log(test)) for gene in y.T]
    np.testing.assert_allclose(metrics.depth_only(y, train, test), np.transpose(expected), atol=1e-9)
    np.testing.assert_allclose(metrics.depth_only(y, np.full(60, 800), test), metrics.mean_only(y, 9))


def planted(depth, n=1500, n_genes=40, seed=0):
    """Gamma-Poisson counts over a library of 10 × the panel, and the log1p CP10k of the true rates."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(4, size=(n, n_genes)) * rng.lognormal(0, 1, size=n_genes)
    share *= 0.1 / share.sum(axis=1, keepdims=True)
    counts, rest = rng.poisson(share * depth), rng.poisson(0.9 * depth, size=n)
    return counts, counts.sum(axis=1) + rest, np.log1p(1e4 * share)


@pytest.mark.parametrize("depth", [1_000, 5_000, 25_000])
def test_the_noise_ceiling_is_what_the_true_rates_score(depth):
    counts, library, truth = planted(depth)
    ceiling = metrics.noise_ceiling(counts, library)
    achieved = metrics.pearson(metrics.log1p_cp10k(counts, library), truth)
    assert abs(ceiling.mean() - achieved.mean()) < 0.03
    clear = achieved > 0.4  # the square root of a reliability near 0 is all sampling error
    assert np.abs(ceiling - achieved)[clear].max() < 0.1


def test_the_noise_ceiling_falls_with_depth_and_is_zero_without_signal():
    means = [metrics.noise_ceiling(*planted(depth)[:2]).mean() for depth in (25_000, 5_000, 1_000)]
    assert means[0] > means[1] + 0.1 > means[2] + 0.2
    rng = np.random.default_rng(0)
    flat = rng.poisson(3, size=(1500, 20))
    # reliability 2r/(1+r) of pure noise, r of order 1/sqrt(1500 * repeats)
    assert metrics.noise_ceiling(flat, np.full(1500, 10_000), n_repeats=20).mean() < 0.2


def test_the_noise_ceiling_is_the_same_for_sparse_counts_and_leaves_them_alone():
    counts, library, _ = planted(5_000, n=200)
    counts[:, 5] = 0
    for matrix in (sparse.csr_matrix(counts.astype(np.float32)), sparse.csc_array(counts)):
        before = matrix.copy()
        np.testing.assert_array_equal(metrics.noise_ceiling(matrix, library), metrics.noise_ceiling(counts, library))
        assert (before != matrix).nnz == 0
    assert np.flatnonzero(np.isnan(metrics.noise_ceiling(counts, library))).tolist() == [5]


def test_blocks_of_genes_do_not_change_the_noise_ceiling(monkeypatch):
    counts, library, _ = planted(5_000, n=200)
    whole = metrics.noise_ceiling(counts, library)
    monkeypatch.setattr(metrics, "_AT_ONCE", 1400)
    assert len(metrics.gene_blocks(*counts.shape)) == 6
    np.testing.assert_array_equal(metrics.noise_ceiling(counts, library), whole)


def test_bootstrap_covers_the_mean_and_narrows_with_units():
    rng = np.random.default_rng(0)
    hits, widths = 0, {}
    for units in (20, 80):
        for trial in range(200):
            values = rng.normal(0.3, 0.1, size=units)
            mean, low, high = metrics.bootstrap_mean(values, n=400, seed=trial)
            assert mean == pytest.approx(values.mean())
            hits += low <= 0.3 <= high
            widths.setdefault(units, []).append(high - low)
    assert 0.9 < hits / 400 < 0.99
    assert np.mean(widths[20]) == pytest.approx(2 * np.mean(widths[80]), rel=0.1)


def test_bootstrap_leaves_nan_units_out_and_one_unit_has_no_interval():
    assert metrics.bootstrap_mean([0.1, np.nan, 0.3], seed=3) == metrics.bootstrap_mean([0.1, 0.3], seed=3)
    assert metrics.bootstrap_mean([0.4, np.nan])[0] == 0.4
    assert np.isnan(metrics.bootstrap_mean([0.4, np.nan])[1:]).all()
    assert np.isnan(metrics.bootstrap_mean([np.nan])).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.pearson(np.ones((4, 2)), np.ones((4, 3))), r"\(4, 2\).*\(4, 3\)"),
        (lambda: metrics.mse(np.ones((1, 2)), np.ones((1, 2))), "1 spots; this score needs 2"),
        (lambda: metrics.pearson_given(np.ones((2, 2)), np.ones((2, 2)), [1, 2]), "2 spots; this score needs 3"),
        (lambda: metrics.pearson_given(np.ones((3, 2)), np.ones((3, 2)), [1, 0, 2]), "missing at 1 of 3 spots"),
        (lambda: metrics.pearson_given(np.ones((3, 2)), np.ones((3, 2)), [1, 2]), "2 values for 3 spots"),
        (lambda: metrics.noise_ceiling(np.full((3, 2), 0.5), [1, 2, 3]), "pass the raw counts"),
        (lambda: metrics.noise_ceiling(np.full((3, 2), 4), [9, 7, 9]), "sum of counts at 1 of 3"),
        (lambda: metrics.noise_ceiling(np.full((3, 2), 4), [9]), "library has 1 values for 3 spots"),
    ],
)
def test_errors_name_what_was_found(call, message):
    with pytest.raises(BadInput, match=message):
        call()


def test_the_mean_pooled_over_folds_runs_against_the_measured():
    rng = np.random.default_rng(0)
    fold = np.repeat(np.arange(5), 40)
    y = rng.normal(size=(5, 30))[fold] + rng.normal(size=(200, 30))
    pooled = np.concatenate([metrics.mean_only(y[fold != k], 40) for k in range(5)])
    assert np.isnan(metrics.pearson(y[fold == 0], pooled[fold == 0])).all()
    assert metrics.pearson(y, pooled).max() < 0
