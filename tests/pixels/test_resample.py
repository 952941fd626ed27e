"""Moving a crop by a fraction of a pixel is resizing it to its own size, and takes less time."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from sq_imputer.contract import CropSpec
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.pixels.resample import resize, shift

SIZE = 20
WINDOW = np.random.default_rng(0).integers(0, 256, (3, 30, 30), dtype=np.uint8)


def moved(corner, way=shift) -> np.ndarray:
    out = np.empty((3, SIZE, SIZE), np.uint8)
    way(WINDOW, np.array(corner), out)
    return out


@pytest.mark.parametrize("corner", [(3.0, 4.5), (2.25, 5.0), (4.7, 3.1), (2.999, 2.001)])
def test_a_moved_crop_is_one_resized_to_its_own_size(corner):
    expected = moved(corner, lambda window, at, out: resize(window, at, (SIZE, SIZE), out))
    assert np.abs(moved(corner).astype(int) - expected).max() <= 2


def test_a_crop_on_whole_pixels_is_what_is_there():
    np.testing.assert_array_equal(moved((3.0, 4.0)), WINDOW[:, 4:24, 3:23])


def test_crops_at_the_resolution_of_a_coarser_level_are_its_own_pixels():
    fine = np.random.default_rng(1).integers(0, 256, (3, 128, 128), dtype=np.uint8)
    coarse = np.rint(fine.reshape(3, 64, 2, 64, 2).mean(axis=(2, 4))).astype(np.uint8)
    pyramid = Pyramid((da.from_array(fine, chunks=(3, 50, 50)), da.from_array(coarse, chunks=(3, 50, 50))))
    crops = Crops(pyramid, np.array([[64.0, 60.0], [65.0, 60.0]]), CropSpec(2 * SIZE, SIZE), mpp=1.0)
    assert crops.level == 1
    np.testing.assert_array_equal(crops[0], coarse[:, 20:40, 22:42])
    between = (coarse[:, 20:40, 22:42].astype(int) + coarse[:, 20:40, 23:43]) / 2
    assert np.abs(crops[1] - between).max() <= 0.5
