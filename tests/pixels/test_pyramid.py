from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from sq_imputer.errors import BadInput
from sq_imputer.pixels.pyramid import Pyramid


def zeros(*shape, dtype=np.uint8):
    return da.zeros(shape, dtype=dtype)


def test_scale_follows_from_the_shapes():
    pyramid = Pyramid((zeros(3, 100, 61), zeros(3, 50, 30)))
    assert pyramid.shape == (100, 61)
    assert pyramid.scale(0) == (1, 1)
    assert pyramid.scale(1) == (2, 61 / 30)


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        ((), {}, "no pyramid level"),
        ((zeros(3, 0, 5),), {}, r"level 0 .* shape \(3, 0, 5\)"),
        ((zeros(5, 5),), {}, r"shape \(5, 5\)"),
        ((zeros(3, 5, 5, dtype=np.uint16),), {}, "uint16; uint8, or float"),
        ((zeros(3, 9, 9), zeros(2, 4, 4)), {}, "level 1 of the image has 2 channels"),
        ((zeros(3, 9, 9),), {"alpha": 3}, "has 3 channels"),
        ((zeros(3, 9, 9),), {"channels": (0, 1, -1)}, "has 3 channels"),
    ],
)
def test_unusable_images_are_named(levels, options, message):
    with pytest.raises(BadInput, match=message):
        Pyramid(levels, **options)


def test_messages_call_the_image_by_its_name():
    with pytest.raises(BadInput, match=r"level 0 of image 'he' has 3 channels"):
        Pyramid((zeros(3, 9, 9),), alpha=3, name="image 'he'")
