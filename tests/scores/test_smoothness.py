"""How smooth genes are among spots that look alike."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.scores.smoothness import feature_graph, image_eps, sampled

N = 20


@pytest.fixture(scope="module")
def tissue():
    """A lattice with patches that the image shows, genes that follow them, the place alone, or nothing; and depth."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(N), np.arange(N)), axis=-1).reshape(-1, 2) * 100.0
    phase = xy / 100.0
    shown = np.sin(phase[:, 0] * 1.1) * np.cos(phase[:, 1] * 0.9)
    hidden = np.sin(phase[:, 0] * 0.35 + 1.0) * np.cos(phase[:, 1] * 0.3)
    features = shown[:, None] * rng.normal(size=8) + 0.3 * rng.normal(size=(len(xy), 8))
    depth = np.exp(7 + shown)
    noise = rng.normal(size=(len(xy), 2))
    y = np.stack([shown + 0.5 * noise[:, 0], hidden + 0.1 * noise[:, 0], noise[:, 1], np.ones(len(xy))], axis=1)
    return y, features, xy, depth


def test_a_gene_that_the_image_shows_is_told_from_place_and_noise(tissue):
    y, features, xy, depth = tissue
    eps = image_eps(y, features, xy, depth)["image_eps"]
    assert eps[0] > 0.5
    assert abs(eps[1]) < 0.1 and abs(eps[2]) < 0.1
    assert np.isnan(eps[3])


def test_what_is_depth_is_gone_given_depth(tissue):
    y, features, xy, depth = tissue
    eps = image_eps(y, features, xy, depth)["image_eps_given_depth"]
    assert abs(eps[0]) < 0.1


def test_the_quotient_is_that_of_the_laplacian(tissue):
    y, features, xy, _ = tissue
    from sq_imputer.scores import smoothness

    graph = feature_graph(features).toarray()
    degree = graph.sum(axis=1)
    gene = y[:, 0] - (degree * y[:, 0]).sum() / degree.sum()
    expected = gene @ (np.diag(degree) - graph) @ gene / (gene**2 @ degree)
    found = smoothness._log_quotient(y[:, :1], np.ones(len(y), dtype=bool), feature_graph(features))
    np.testing.assert_allclose(np.exp(found), expected)
    np.testing.assert_array_equal(graph, graph.T)


def test_units_and_places_move_nothing(tissue):
    y, features, xy, depth = tissue
    known = image_eps(y, features, xy, depth)
    other = image_eps(3 * y + 2, features * np.arange(1, 9) + 5, xy * 0.5 + 1e4, 2 * depth)
    for name in known:
        np.testing.assert_allclose(other[name], known[name], atol=1e-6)


def test_many_rows_are_sampled_and_few_are_an_error():
    rows = sampled(20_000, seed=1)
    assert len(np.unique(rows)) == 5000 and (np.diff(rows) > 0).all() and sampled(7, 0).tolist() == list(range(7))
    with pytest.raises(sqi.BadInput, match="3 or more"):
        feature_graph(np.zeros((2, 3)))
    with pytest.raises(sqi.BadInput, match="a row per spot"):
        image_eps(np.zeros((4, 1)), np.zeros((5, 2)), np.zeros((4, 2)), np.ones(4))


def test_features_that_do_not_vary_tell_nothing(tissue):
    y, _, xy, depth = tissue
    eps = image_eps(y, np.ones((len(y), 3)), xy, depth)["image_eps"]
    assert np.isfinite(eps[:3]).all()
