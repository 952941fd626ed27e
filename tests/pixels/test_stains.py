"""Light and stains, of pixels made of known ones."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.pixels import stains
from sq_imputer.pixels.stains import angle_between, stain_vectors, white_point

WHITE = np.array([240.0, 220.0, 235.0])
STAINS = np.array([[0.75, 0.58, 0.32], [0.25, 0.85, 0.46]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    amounts = rng.gamma(1.0, 0.5, (4000, 2)) * (rng.random((4000, 2)) < 0.6)
    return np.rint(WHITE * np.exp(-amounts @ STAINS))


def test_the_light_is_that_of_unstained_pixels(pixels):
    np.testing.assert_allclose(white_point(pixels), WHITE, atol=1)


def test_both_stains_are_found_hematoxylin_first(pixels):
    for one, other in zip(stain_vectors(pixels, WHITE), STAINS, strict=True):
        assert angle_between(one, other) < 4


def test_glass_has_no_stains():
    assert stain_vectors(np.full((500, 3), 240), WHITE) is None


# One stain for all crops --------------------------------------------------------------------------


def stained(vectors: np.ndarray, most: np.ndarray, seed: int = 0) -> np.ndarray:
    """A crop of two stains in patches, in random amounts."""
    rng = np.random.default_rng(seed)
    amounts = rng.random((64 * 64, 2)) * (rng.random((64 * 64, 2)) < 0.5) * most
    return (255 * np.exp(-amounts @ vectors)).T.reshape(3, 64, 64).astype(np.uint8)


def test_the_same_tissue_in_another_stain_becomes_alike():
    other = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    one, two = stained(stains.TARGET, stains.TARGET_MOST), stained(other, np.array([1.2, 0.7]))
    before = np.abs(one.astype(float) - two).mean()
    after = np.abs(stains.normalized(one).astype(float) - stains.normalized(two)).mean()
    assert after < 0.35 * before


def test_a_crop_without_stain_stays_as_it_is():
    blank = np.full((3, 64, 64), 240, dtype=np.uint8)
    np.testing.assert_array_equal(stains.normalized(blank), blank)


def test_amounts_are_the_best_of_those_that_are_not_negative():
    from scipy.optimize import minimize

    vectors = stains.TARGET / np.linalg.norm(stains.TARGET, axis=1, keepdims=True)
    density = np.random.default_rng(0).normal(0.3, 0.5, (12, 3))
    found = stains._amounts(density, vectors)
    for one, amounts in zip(density, found, strict=True):

        def cost(c, one=one):
            return 0.5 * ((one - c @ vectors) ** 2).sum() + stains.SPARSE * c.sum()

        best = minimize(cost, [0.1, 0.1], bounds=[(0, None)] * 2)
        assert cost(amounts) <= best.fun + 1e-6
