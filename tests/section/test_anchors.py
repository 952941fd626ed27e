"""A disc of tissue, half of it pale and half dark: what its rows are scaled by, however few of them are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale

from sq_imputer.contract import CropSpec, Needs
from sq_imputer.places import lattice
from sq_imputer.section.anchors import POINTS, anchored
from sq_imputer.section.slide import Slide

SIDE, MPP, RADIUS_UM = 400, 4.0, 600.0
MIDDLE = np.array([800.0, 800.0])
GLASS, PALE, DARK = (240, 238, 240), (215, 150, 200), (130, 60, 150)
NEEDS = Needs(CropSpec(40.0, 10), ("counting",), per_section=True)


@pytest.fixture(scope="module")
def image():
    places = (np.stack(np.meshgrid(*2 * [np.arange(SIDE) + 0.5]), axis=-1)) * MPP - MIDDLE
    colors = np.where(places[..., :1] < 0, PALE, DARK) + np.random.default_rng(0).integers(-9, 10, (SIDE, SIDE, 1))
    pixels = np.where(np.linalg.norm(places, axis=-1, keepdims=True) < RADIUS_UM, colors, GLASS).astype(np.uint8)
    to_um = {"um": Scale([MPP, MPP], axes=("x", "y"))}
    return Image2DModel.parse(np.moveaxis(pixels, -1, 0), dims=("c", "y", "x"), transformations=to_um)


@pytest.fixture
def disc(image, planted):
    """A function that makes an object with the rows that are asked for at a part of the disc, and maybe spots."""

    def make(wanted, spots=None) -> SpatialData:
        _, xy_um = lattice([MIDDLE - RADIUS_UM, MIDDLE + RADIUS_UM], 45.0)
        to_um = {"um": Scale([1.0, 1.0], axes=("x", "y"))}
        from_middle = xy_um - MIDDLE
        on = np.linalg.norm(from_middle, axis=1) < RADIUS_UM - 50
        shapes = {"grid": planted.circles(xy_um[on & wanted(from_middle)], transformations=to_um)}
        if spots is None:
            return SpatialData(images={"he": image}, shapes=shapes)
        at = xy_um[on & spots(from_middle)]
        shapes["spots"] = planted.circles(at, transformations=to_um)
        counts = np.ones((len(at), 6))
        tables = {"table": planted.table(np.arange(len(at)), counts=counts)}
        return SpatialData(images={"he": image}, shapes=shapes, tables=tables)

    return make


def everywhere(from_middle):
    return np.ones(len(from_middle), dtype=bool)


def a_dark_region(from_middle):
    return (np.abs(from_middle - [250, 0]) < 110).all(axis=1)


def test_a_small_region_is_scaled_as_all_tissue_is(disc, counting):
    sdata = disc(a_dark_region)
    slide = Slide.from_sdata(sdata)
    alone, found = slide.moments(NEEDS)[0], anchored(slide, sdata).moments(NEEDS)[0]
    whole = Slide.from_sdata(disc(everywhere)).moments(NEEDS)[0]
    np.testing.assert_allclose(alone, DARK, atol=3)
    np.testing.assert_allclose(found, whole, atol=8)
    assert np.abs(alone - whole).min() > 20  # what would have been taken off the region


def test_few_rows_are_scaled_so_as_well(disc, counting):
    sdata = disc(a_dark_region)
    slide = anchored(Slide.from_sdata(sdata).take(np.arange(3)), sdata)
    assert slide.anchor is not None
    bare = replace(Slide.from_sdata(sdata), centers_px=np.full((1, 2), 250.0), size_um=np.ones(1))
    assert bare.moments(NEEDS) is None
    assert len(anchored(replace(bare, measured=np.zeros(1, dtype=bool)), sdata).anchor) <= POINTS


def test_rows_all_over_the_tissue_are_scaled_by_themselves(disc):
    sdata = disc(everywhere)
    slide = Slide.from_sdata(sdata)
    assert anchored(slide, sdata) is slide


def test_spots_beside_a_region_scale_it(disc):
    sdata = disc(a_dark_region, spots=everywhere)
    slide = Slide.from_sdata(sdata, shapes_key="grid")
    spots = Slide.from_sdata(sdata, shapes_key="spots")
    anchor = anchored(slide, sdata).anchor
    assert 300 < len(anchor) == min(len(spots), POINTS)
    near = np.abs(anchor.xy_um[:, None] - spots.xy_um).max(axis=-1).min(axis=1)
    assert near.max() < 1e-6
    assert anchored(spots, sdata) is spots


def test_where_nothing_tells_tissue_rows_stay_as_they_are(disc, planted):
    sdata = disc(a_dark_region)
    glass = np.full((3, SIDE, SIDE), 240, dtype=np.uint8)
    to_um = {"um": Scale([MPP, MPP], axes=("x", "y"))}
    sdata.images["he"] = Image2DModel.parse(glass, dims=("c", "y", "x"), transformations=to_um)
    slide = Slide.from_sdata(sdata)
    assert anchored(slide, sdata) is slide
