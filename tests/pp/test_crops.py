from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.contract import CropSpec
from sq_imputer.errors import MissingKey
from sq_imputer.section.slide import Slide


def test_crops_are_those_of_the_slide_by_index_in_batches_and_by_dask(section, digest):
    before, spec = digest(section), CropSpec(80, 32)
    crops = sqi.pp.crops(section, spec)
    expected = Slide.from_sdata(section).crops(spec)[:]
    np.testing.assert_array_equal(crops[:], expected)
    np.testing.assert_array_equal(crops[[3, 1]], expected[[3, 1]])
    index, pixels = zip(*crops.batches(7), strict=True)
    np.testing.assert_array_equal(np.concatenate(pixels), expected[np.concatenate(index)])
    np.testing.assert_array_equal(crops.to_dask().compute(scheduler="synchronous"), expected[crops.order])
    assert digest(section) == before


def test_the_pixels_are_those_under_the_spot(section):
    crops = sqi.pp.crops(section, CropSpec(50, 40))  # as fine as the image: cut, not resampled
    spots, image = section["spots"], np.asarray(section["he"]["scale0"]["image"])
    for row in (0, len(spots) // 2, len(spots) - 1):
        x, y = spots.geometry.iloc[row].x, spots.geometry.iloc[row].y
        left, top = np.floor(np.array([x, y]) - 20 + 0.5).astype(int)
        if 0 <= left <= 600 and 0 <= top <= 600:
            np.testing.assert_array_equal(crops[row], image[:, top : top + 40, left : left + 40])


def test_without_a_spec_a_crop_is_112_um_in_224_pixels(section):
    crops = sqi.pp.crops(section)
    assert crops.spec == CropSpec(112, 224) and len(crops) == len(section["spots"])
    assert crops[0].shape == (3, 224, 224)


def test_keys_are_handed_on(section):
    with pytest.raises(MissingKey, match="no shapes 'cells'; sdata has 'spots'"):
        sqi.pp.crops(section, shapes_key="cells")
    with pytest.warns(UserWarning, match="mpp=2.5 is taken"):
        wide = sqi.pp.crops(section, CropSpec(100, 40), mpp=2.5)
    assert np.ptp(wide[0] - sqi.pp.crops(section, CropSpec(50, 40))[0]) == 0
