"""Blending of maps that are planted: one crop is itself, two overlap as the formula says, blocks do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.errors import BadInput
from sq_imputer.section import mosaic as module
from sq_imputer.section.mosaic import Mosaic, Spool


@pytest.fixture
def planted(tmp_path):
    """Makes a mosaic of maps (n, G, K, K) at centers."""

    def make(maps, centers, extent_um=8.0, mpp=1.0) -> Mosaic:
        maps = np.asarray(maps, dtype=np.float32)
        spool = Spool(tmp_path / "maps", maps.shape[1:])
        order = np.random.default_rng(0).permutation(len(maps))
        spool.write(order, maps[order])
        return Mosaic(spool, np.asarray(centers, dtype=float), extent_um, mpp)

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_the_file_gives_back_what_it_was_given_in_any_order(planted, rng):
    maps = rng.normal(size=(5, 3, 4, 4)).astype(np.float32)
    spool = planted(maps, np.zeros((5, 2))).spool
    np.testing.assert_array_equal(spool.read(np.array([3, 0])), maps[[3, 0]])
    np.testing.assert_array_equal(spool.read(np.array([4, 1]), 2), maps[[4, 1], 2])


def test_one_crop_is_its_map(planted, rng):
    maps = rng.normal(size=(1, 2, 8, 8))
    image = planted(maps, [[104.0, 54.0]])
    assert image.origin_um.tolist() == [100, 50]
    np.testing.assert_allclose(image.to_dask().compute(), maps[0], rtol=1e-6)


@pytest.mark.parametrize(("mpp", "repeat"), [(0.5, 2), (2.0, None)])
def test_a_map_is_flat_in_its_cells_and_averaged_by_area(planted, rng, mpp, repeat):
    maps = rng.normal(size=(1, 1, 8, 8))
    shown = planted(maps, [[4.0, 4.0]], mpp=mpp).to_dask().compute()[0]
    if repeat:
        expected = maps[0, 0].repeat(2, axis=0).repeat(2, axis=1)
    else:
        expected = maps[0, 0].reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-6)


def test_two_crops_are_blended_by_their_distance_to_the_middle(planted):
    image = planted([np.full((1, 8, 8), 1.0), np.full((1, 8, 8), 3.0)], [[4.0, 4.0], [8.0, 4.0]])
    shown = image.to_dask().compute()[0]
    x = np.arange(12) + 0.5
    first, second = (np.clip(1 - np.abs(x - middle) / 4, 0, None) for middle in (4, 8))
    np.testing.assert_allclose(shown, np.tile((first + 3 * second) / (first + second), (8, 1)), rtol=1e-5)


def test_pixels_that_no_crop_covers_are_nan(planted):
    shown = planted(np.ones((2, 1, 4, 4)), [[4.0, 4.0], [24.0, 4.0]]).to_dask().compute()[0]
    assert np.isnan(shown[:, 8:20]).all() and (shown[:, :8] == 1).all() and (shown[:, 20:] == 1).all()


def test_a_constant_stays_constant_at_any_place_and_resolution(planted, rng):
    centers = rng.uniform(0, 40, (30, 2))
    for mpp in (0.37, 1.0, 2.9):
        shown = planted(np.full((30, 1, 5, 5), 2.5), centers, mpp=mpp).to_dask().compute()
        np.testing.assert_allclose(shown[np.isfinite(shown)], 2.5, rtol=1e-5)


def test_blocks_do_not_change_the_image(planted, rng, monkeypatch):
    image = planted(rng.normal(size=(20, 2, 6, 6)), rng.uniform(0, 50, (20, 2)), mpp=0.7)
    whole = image.to_dask()
    monkeypatch.setattr(module, "BLOCK", 17)
    parts = image.to_dask()
    assert whole.numblocks == (2, 1, 1) and min(parts.numblocks[1:]) > 2
    np.testing.assert_allclose(parts.compute(), whole.compute(), rtol=1e-5, atol=1e-6)


def test_making_the_image_reads_nothing(planted):
    image = planted(np.ones((1, 1, 4, 4)), [[4.0, 4.0]])
    image.spool.path.unlink()
    assert image.to_dask().shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("mpp", "message"),
    [(0.0, "at most the 8 µm of a crop"), (9.0, "at most the 8 µm of a crop"), (np.nan, "mpp is nan")],
)
def test_a_resolution_that_cannot_be_is_an_error(planted, mpp, message):
    with pytest.raises(BadInput, match=message):
        planted(np.ones((1, 1, 4, 4)), [[4.0, 4.0]], mpp=mpp)
