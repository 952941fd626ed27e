"""Reference spots are marked where they lie, without a window."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sq_imputer.widget._looked import MARK, SECTION_PX, places_of


def test_reference_spots_are_marked_where_they_lie_and_sections_that_are_not_open_are_left_out(home):
    slide = home.slide()
    middle = slide.frame.box_um.mean(axis=0)
    rows = [(slide.section, 0.4, *middle), ("elsewhere", 0.6, 10.0, 10.0)]
    found = pd.DataFrame(rows, columns=["section", "weight", "x_um", "y_um"])
    [(said, pixels)] = places_of(found, {slide.section: slide})
    assert said == f"{slide.section}: 0.40 of the weight" and max(pixels.shape) == SECTION_PX
    marked = np.argwhere((pixels == MARK).all(axis=-1))
    assert len(marked) == 25
    np.testing.assert_allclose(marked.mean(axis=0), np.array(pixels.shape[:2]) / 2, atol=1)
