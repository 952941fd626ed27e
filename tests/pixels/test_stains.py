"""Light and stains, of pixels made of known ones."""

from __future__ import annotations

import numpy as np
import pytest

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
