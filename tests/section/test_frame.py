from __future__ import annotations

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.transformations import Identity, Scale

from sq_imputer.errors import MissingKey
from sq_imputer.section.frame import read_frame


def disc(x, y):
    return np.hypot(x - 900, y - 500) < 300


def test_pixels_and_um_are_each_other_s_inverse(slide):
    frame = read_frame(slide(disc, angle=30, flip=True))
    points = np.array([[900.0, 500.0], [10.0, 20.0]])
    linear, offset = frame.to_um[:2, :2], frame.to_um[:2, 2]
    np.testing.assert_allclose(frame.to_px(points) @ linear.T + offset, points)
    np.testing.assert_allclose(frame.axes.T @ frame.axes, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(linear @ frame.axes, frame.pixel.mpp * np.eye(2), atol=1e-9)


def test_the_system_is_the_one_named_else_global_else_the_first(planted):
    systems = {"um": Scale([2, 2], axes=("x", "y")), "global": Identity()}
    sdata = SpatialData(images={"he": planted.image(np.zeros((3, 8, 8), np.uint8), systems)})
    assert read_frame(sdata).coordinate_system == "global"
    assert read_frame(sdata, coordinate_system="um").coordinate_system == "um"
    assert read_frame(sdata).pixel.mpp == 2
    with pytest.raises(
        MissingKey, match="image 'he' is not in 'crop'; it is in 'um', 'global'. Pass coordinate_system="
    ):
        read_frame(sdata, coordinate_system="crop")
