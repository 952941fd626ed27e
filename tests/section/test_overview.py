from __future__ import annotations

import numpy as np
import pytest
from drawn import GLASS, PINK, PLACES, centers, disc

from sq_imputer.section.frame import read_frame
from sq_imputer.section.overview import picture


@pytest.mark.parametrize("how", PLACES.values(), ids=PLACES)
def test_the_picture_shows_the_section_in_the_axes_of_its_system(slide, how):
    rgb, extent = picture(read_frame(slide(disc, **how)), 300)
    assert max(rgb.shape[:2]) <= 300 and rgb.dtype == np.uint8
    x, y = centers(rgb.shape, extent)
    reach = np.hypot(x - 900, y - 500)
    inside = (x > 0) & (x < 1600) & (y > 0) & (y < 1200)
    assert inside.mean() > 0.25
    np.testing.assert_allclose(rgb[reach < 280].mean(axis=0), PINK, atol=2)
    np.testing.assert_allclose(rgb[(reach > 320) & inside].mean(axis=0), GLASS, atol=8)


def test_the_picture_is_no_finer_than_asked(slide):
    frame = read_frame(slide(disc, mpp=2.0))
    rgb, extent = picture(frame, 5000)
    assert (extent[1] - extent[0]) / rgb.shape[1] == pytest.approx(2.0, rel=0.01)
    rgb, extent = picture(frame, 5000, least_um=16)
    assert (extent[1] - extent[0]) / rgb.shape[1] == pytest.approx(16, rel=0.02)
    np.testing.assert_allclose(frame.box_um, [[0, 0], [1600, 1200]], atol=1e-6)
