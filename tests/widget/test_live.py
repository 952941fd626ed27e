from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.widget._lattice import region_of
from sq_imputer.widget._live import Live

GENES = ["NUC1", "GLD1", "STR1"]


@pytest.fixture(scope="module")
def ridge():
    section = sqi.datasets.toy(2, size_px=640, mpp=1.25, seed=11)["P2"]
    return sqi.tl.fit(section, "ridge", genes=GENES, config={"size_px": 32, "context_um": (200.0,)})


@pytest.fixture
def square(section):
    low, high = sqi.Slide.from_sdata(section).frame.box_um
    middle = (low + high) / 2
    return middle + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 100.0


def test_a_region_is_predicted_as_shapes_at_the_same_points_are(section, square):
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    slide, how = sqi.Slide.from_sdata(section), {"genes": GENES, "config": {"size_px": 32, "context_um": (200.0,)}}
    said = Live(slide, sqi.tl.fit(section, "ridge", **how))(region_of(square, 20.0))
    place = get_transformation(section.images["he"], get_all=True)
    px = slide.frame.to_px(said.region.xy_um)
    section.shapes["fine"] = ShapesModel.parse(px, geometry=0, radius=5.0, transformations=place)
    sqi.tl.predict(section, "ridge", shapes_key="fine", key_added="fine_imputed", **how)
    written = section.tables["fine_imputed"].layers
    np.testing.assert_allclose(said.mean, written["ridge"], atol=2e-3)
    np.testing.assert_allclose(said.std, written["ridge_std"], atol=2e-3)


def test_what_is_known_of_a_point_is_not_read_again(section, ridge, square, monkeypatch):
    live = Live(sqi.Slide.from_sdata(section), ridge)
    first = live(region_of(square, 20.0))
    assert first.new == len(first.mean)
    moved = live(region_of(square + [40.0, 0.0], 20.0))
    assert 0 < moved.new < 0.4 * len(moved.mean)
    monkeypatch.setattr(sqi.Slide, "_computed", lambda *_: pytest.fail("read again"))
    again = live(region_of(square, 20.0))
    assert again.new == 0
    np.testing.assert_array_equal(again.mean, first.mean)


def test_the_object_is_left_as_it_was(section, ridge, square, digest):
    before = digest(section)
    Live(sqi.Slide.from_sdata(section), ridge)(region_of(square, 20.0))
    assert digest(section) == before


def test_a_model_that_has_seen_the_picture_says_so(section, ridge):
    slide = sqi.Slide.from_sdata(section)
    assert not Live(slide, ridge).saw_these_spots
    own = sqi.tl.fit(section, "ridge", genes=GENES, config={"size_px": 32, "context_um": ()})
    assert Live(slide, own).saw_these_spots


def test_regions_off_the_image_and_models_that_are_not_fitted_are_said(section, ridge, square):
    slide = sqi.Slide.from_sdata(section)
    with pytest.raises(sqi.BadInput, match="lie outside image 'he'"):
        Live(slide, ridge)(region_of(square + 1e5, 20.0))
    with pytest.raises(sqi.BadInput, match="'ridge' is not fitted"):
        Live(slide, sqi.get_model("ridge")())
