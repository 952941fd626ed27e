"""Which sections an object has, and where each lies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.section.regions import find_regions, slides_of


@pytest.fixture
def joined(planted):
    return spatialdata.concatenate({"a": planted.section(), "b": planted.section()}, concatenate_tables=True)


def test_values_of_a_column_are_sections_at_the_elements_that_their_rows_annotate(joined):
    assert find_regions(joined, "region", {"layer": None}) == {
        "spots-a": {"layer": None, "shapes_key": "spots-a"},
        "spots-b": {"layer": None, "shapes_key": "spots-b"},
    }
    joined.tables["table"].obs["sample"] = np.repeat(["S1", "S2"], 8)
    assert find_regions(joined, "sample", {}) == {"S1": {"shapes_key": "spots-a"}, "S2": {"shapes_key": "spots-b"}}


def test_image_and_micrometers_of_a_section_are_found_by_what_shares_a_system(joined, planted):
    slide = sqi.Slide.from_sdata(joined, shapes_key="spots-b")
    assert slide.keys["image_key"] == "he-b" and slide.frame.pixel.mpp == pytest.approx(1.0)
    np.testing.assert_allclose(slide.xy_um, planted.centers_um, atol=1e-9)


def test_several_sections_of_one_element_are_told_apart_by_their_rows(planted):
    sdata = planted.section()
    sdata.tables["table"].obs["sample"] = pd.Categorical(["S1"] * 3 + ["S2"] * 5)
    found = find_regions(sdata, "sample", {})
    assert found["S2"] == {"shapes_key": "spots", "section_key": "sample"}
    slides = {name: sqi.Slide.from_sdata(sdata, section=name, **keys) for name, keys in found.items()}
    assert [len(slide) for slide in slides.values()] == [3, 5]
    np.testing.assert_allclose(slides["S2"].xy_um, planted.centers_um[3:], atol=1e-9)
    np.testing.assert_array_equal(slides["S2"].counts.toarray(), planted.counts[3:])


def test_a_mapping_names_sections_and_their_keys(joined):
    found = find_regions(joined, {"A": "spots-a", "B": {"shapes_key": "spots-b", "image_key": "he-b"}}, {"mpp": 1.0})
    assert found["A"] == {"mpp": 1.0, "shapes_key": "spots-a"} and found["B"]["image_key"] == "he-b"


@pytest.mark.parametrize(
    ("sections", "keys", "error", "message"),
    [
        ("sample", {}, sqi.MissingKey, "no 'sample' in obs of table 'table'; it has 'region'"),
        ("region", {"table_key": "counts"}, sqi.MissingKey, "is a column of tables.'counts'., which is not there"),
        ("region", {"shapes_key": "spots-a"}, sqi.BadInput, "Leave out shapes_key="),
        (
            "all",
            {},
            sqi.BadInput,
            "'x' of obs.'all'. lies in several elements: 'spots-a', 'spots-b'.*'region'",
        ),
        ({"A": {"shape": "spots-a"}}, {}, sqi.BadInput, "section 'A' has 'shape'; keys are 'image_key'"),
        ({"A": 3}, {}, sqi.BadInput, "section 'A' is a int"),
        ({}, {}, sqi.BadInput, "sections is empty"),
        (3, {}, sqi.BadInput, "sections is a int; expected the name of an obs column"),
    ],
)
def test_what_names_no_sections_is_refused_with_what_there_is(joined, sections, keys, error, message):
    joined.tables["table"].obs["all"] = "x"
    with pytest.raises(error, match=message):
        find_regions(joined, sections, keys)


def test_images_of_one_place_and_resolution_must_be_chosen_from(planted):
    sdata = planted.section()
    sdata.images["other"] = sdata.images["he"]
    with pytest.raises(sqi.MissingKey, match="image_key is not given and sdata has 2 images: 'he', 'other'"):
        sqi.Slide.from_sdata(sdata)


def test_of_images_of_one_place_the_finest_is_taken_and_said(planted):
    sdata, fine = planted.section(mpp=2.0), planted.section(mpp=0.5)
    sdata.images["fine"] = fine.images["he"]
    with pytest.warns(UserWarning, match="'fine' is taken, the finest of the images of this place .others: 'he'."):
        slide = sqi.Slide.from_sdata(sdata)
    assert slide.keys["image_key"] == "fine" and slide.frame.pixel.mpp == pytest.approx(0.5)


def test_patients_may_be_called_as_their_sections(joined):
    obs = joined.tables["table"].obs
    assert {one.group for one in slides_of(joined, "region", {}).values()} == {"unknown"}
    obs["patient"] = obs["region"].astype(str)
    assert [one.group for one in slides_of(joined, "region", {}).values()] == ["spots-a", "spots-b"]
