"""What models see of a section is tested in test_slide.py; here, what a part of a section shares with the whole."""

from __future__ import annotations

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.section.slide import Slide


def test_a_part_takes_its_features_from_the_whole(planted, counting):
    slide = Slide.from_sdata(planted.section())
    whole = slide.features("counting", CropSpec(40.0, 10))
    part = slide.take([5, 2]).features("counting", CropSpec(40.0, 10))
    np.testing.assert_array_equal(part, whole[[5, 2]])
    assert counting.seen == len(slide)
