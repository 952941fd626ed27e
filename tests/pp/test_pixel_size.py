from __future__ import annotations

import pytest
from spatialdata.transformations import Identity, remove_transformation, set_transformation

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey


@pytest.fixture
def unscaled(section):
    """The section without its coordinate system in µm."""
    for element in ("he", "spots", "nuclei"):
        remove_transformation(section[element], "um")
    return section


def test_the_value_comes_with_its_source(section, digest):
    before = digest(section)
    found = sqi.pp.pixel_size(section)
    assert (found.mpp, found.source) == (pytest.approx(1.25), "transformation to 'um'")
    with pytest.warns(UserWarning, match="mpp=0.5 is taken .* and no source says so: 1.25 from transformation to 'um'"):
        assert sqi.pp.pixel_size(section, "he", mpp=0.5).source == "argument"
    assert digest(section) == before


def test_the_lattice_of_the_spots_says_what_the_transformation_said(unscaled):
    found = sqi.pp.pixel_size(unscaled, technology="visium")
    assert (found.mpp, found.source) == (pytest.approx(1.25), "lattice pitch of 'visium' in 'spots'")


def test_without_a_source_the_error_says_how_to_give_it(unscaled):
    with pytest.raises(BadInput, match=r"no µm per pixel is known for image 'he'.*Pass mpp=.*or technology="):
        sqi.pp.pixel_size(unscaled)
    with pytest.raises(MissingKey, match="no image 'HE'; sdata has 'he'"):
        sqi.pp.pixel_size(unscaled, "HE")


def test_the_place_of_the_spots_may_be_named(unscaled):
    set_transformation(unscaled["he"], Identity(), "raw")
    set_transformation(unscaled["spots"], Identity(), "raw")
    named = sqi.pp.pixel_size(unscaled, technology="visium", coordinate_system="raw")
    assert named == sqi.pp.pixel_size(unscaled, technology="visium")
