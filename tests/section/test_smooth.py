"""What an image shows around a place, looked up as a mean over a window."""

from __future__ import annotations

import numpy as np

from sq_imputer.section.slide import Slide
from sq_imputer.section.smooth import smooth


def test_windows_are_means_of_the_pixels_around_a_place(section) -> None:
    slide = Slide.from_sdata(section)
    low, high = slide.xy_um.min(axis=0) - 100, slide.xy_um.max(axis=0) + 100
    seen = smooth(slide.frame, low, high, 55.0)
    found = seen(slide.xy_um)
    assert found.shape == (len(slide), 16) and np.isfinite(found).all()
    from sq_imputer.contract import CropSpec

    crops = slide.crops(CropSpec(48.0, 32))[:].astype(float)
    density = -np.log10((crops + 1) / 256).mean(axis=(2, 3))
    for channel in range(3):
        assert np.corrcoef(found[:, 2 * channel], density[:, channel])[0, 1] > 0.97
    beside = seen(np.array([[-1e5, -1e5]]))
    assert beside[0, 6] < 0.05  # nothing is stained there
