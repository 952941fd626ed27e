from __future__ import annotations

import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from sq_imputer.errors import BadInput
from sq_imputer.pixels.decode import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (700, 640, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_pixels_are_those_of_the_file(name, tmp_path):
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path) if name.endswith("png") else tifffile.imwrite(path, PIXELS)
    np.testing.assert_array_equal(decode(path), PIXELS)


def test_images_larger_than_photographs_are_read_without_a_warning(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "S1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300_000)  # the image has 448 000
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        decode(tmp_path / "S1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with pytest.raises(BadInput, match="S1.png.*Save it as TIFF"):
        decode(tmp_path / "S1.png")


def test_an_image_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="there is no image at '.*none.png'"):
        decode(tmp_path / "none.png")
