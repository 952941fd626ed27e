from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.contract import CropSpec, Needs
from sq_imputer.section.points import at_points

SPEC = CropSpec(100.0, 32)


@pytest.fixture
def slide(section):
    return sqi.Slide.from_sdata(section)


def test_points_where_spots_are_look_as_these_do(slide):
    points = at_points(slide, slide.xy_um[3:9], 55.0)
    np.testing.assert_array_equal(points.crops(SPEC)[:], slide.crops(SPEC)[3:9])
    np.testing.assert_allclose(points.xy_um, slide.xy_um[3:9], atol=1e-9)
    assert not points.measured.any() and points.counts is None and points.section == slide.section


def test_features_of_points_are_scaled_as_those_of_the_spots(slide):
    needs = Needs(SPEC, ("texture",), per_section=True)
    points = at_points(slide, slide.xy_um[:2], 55.0)
    for own, whole in zip(points.moments(needs), slide.moments(needs), strict=True):
        np.testing.assert_array_equal(own, whole)


def test_points_off_the_image_and_none_at_all_are_said(slide):
    with pytest.raises(sqi.BadInput, match="1 of 2 points lie outside image 'he', the first at"):
        at_points(slide, [slide.xy_um[0], slide.frame.box_um[1] + 5], 55.0)
    with pytest.raises(sqi.BadInput, match="no point of section 'P1'"):
        at_points(slide, np.empty((0, 2)), 55.0)
