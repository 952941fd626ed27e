from __future__ import annotations

import pickle
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import torch
from shapely import Point, box
from shapely.affinity import affine_transform
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Affine, Scale, Sequence, get_transformation, set_transformation

import sq_imputer as sqi
from sq_imputer.contract import CropSpec, Needs
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.nn.turns import Turn
from sq_imputer.pixels.chunks import Tiles
from sq_imputer.section import maps
from sq_imputer.section.slide import Slide

NEEDS = Needs(CropSpec(96.0, 48), ("texture",), neighbors=3, maps=("edges", "nuclei"), maps_px=16)


@pytest.fixture(scope="module")
def sdata():
    return sqi.datasets.toy(1, size_px=520, mpp=1.25, seed=11)["P1"]


@pytest.fixture(scope="module")
def slide(sdata) -> Slide:
    return Slide.from_sdata(sdata)


@pytest.fixture(scope="module")
def drawn(slide) -> np.ndarray:
    return slide.maps(NEEDS)


def covered(sdata, slide: Slide, extent_um: float) -> np.ndarray:
    """Share of the squares around rows that the nuclei that were drawn cover."""
    labels, half = np.asarray(sdata.labels["nuclei"].data) > 0, round(extent_um / 1.25 / 2)
    padded = np.pad(labels, half)
    return np.array([padded[y : y + 2 * half, x : x + 2 * half].mean() for x, y in slide.centers_px.astype(int)])


@pytest.mark.parametrize("k", [3, 5])
def test_maps_are_of_the_crop_and_of_the_block_around_it(k, slide) -> None:
    """V7: the wide view covers k times the field of the crop, whose view its middle is, of pixels k times as wide."""
    needs = replace(NEEDS, neighbors=k, maps_px=15)
    drawn, side = slide.maps(needs), 15 // k
    assert drawn.shape == (len(slide), 2, 4, 15, 15) and drawn.dtype == np.uint8
    first = (15 - side) // 2
    middle = drawn[:, 1, :, first : first + side, first : first + side]
    means = drawn[:, 0].reshape(len(slide), 4, side, k, side, k).mean(axis=(3, 5))
    np.testing.assert_allclose(middle, means, atol=1)
    assert means.std(axis=(0, 2, 3)).min() > 3
    np.testing.assert_array_equal(slide.maps(replace(needs, neighbors=0))[:, 0], drawn[:, 0])


def test_nuclei_that_are_found_are_those_that_were_drawn(drawn, sdata, slide) -> None:
    said = drawn[:, 0, 1].astype(float).mean((1, 2)) / 255
    assert np.corrcoef(said, covered(sdata, slide, 96.0))[0, 1] > 0.6


def test_into_which_pieces_a_section_is_cut_changes_next_to_nothing(sdata, monkeypatch) -> None:
    monkeypatch.setattr(maps.boundaries, "threshold", lambda samples: 0.1)
    found = []
    for side in (160, 512):
        monkeypatch.setattr(maps, "PIECE", side)
        found.append(Slide.from_sdata(sdata).maps(NEEDS).astype(int))
    assert (np.abs(found[0] - found[1]) > 8).mean() < 0.01  # an image is resampled by other pixels at other borders


TURNS = {
    "turned by 90": (Turn(flip_y=True, swap=True), [[0, -1], [1, 0]]),
    "mirrored": (Turn(flip_x=True), [[-1, 0], [0, 1]]),
    "turned and mirrored": (Turn(swap=True), [[0, 1], [1, 0]]),
}


def lying(sdata, linear):
    """The same section, turned or mirrored in its coordinate system."""
    other = pickle.loads(pickle.dumps(sdata))
    step = Affine(np.block([[np.array(linear), np.zeros((2, 1))], [0, 0, 1]]), ("x", "y"), ("x", "y"))
    for element in (other.images["he"], other.labels["nuclei"], other.shapes["spots"]):
        systems = get_transformation(element, get_all=True)
        set_transformation(element, {name: Sequence([at, step]) for name, at in systems.items()}, set_all=True)
    return other


@pytest.mark.parametrize("way", TURNS)
def test_a_section_that_lies_otherwise_has_the_same_maps_turned(way, sdata, drawn) -> None:
    """V3: they lie along the axes of the coordinate system, as crops do; exact where nothing is found in the image."""
    turn, linear = TURNS[way]
    other = lying(sdata, linear)
    found, expected = Slide.from_sdata(other).maps(NEEDS), turn.picture(torch.from_numpy(drawn)).numpy()
    for channel in range(4):
        assert np.corrcoef(found[:, :, channel].ravel(), expected[:, :, channel].ravel())[0, 1] > 0.99
    own, needs = {"nuclei_key": "nuclei"}, replace(NEEDS, maps=("nuclei",))
    one, another = (Slide.from_sdata(each, **own).maps(needs) for each in (sdata, other))
    np.testing.assert_array_equal(another, turn.picture(torch.from_numpy(one)).numpy())


def test_the_object_may_have_nuclei_of_its_own(sdata) -> None:
    slide = Slide.from_sdata(sdata, nuclei_key="nuclei")
    drawn = slide.maps(NEEDS)
    np.testing.assert_allclose(drawn[:, 0, 1].mean((1, 2)) / 255, covered(sdata, slide, 96.0), atol=0.03)
    assert slide.encoded(NEEDS)["nuclei"] == {
        "name": "nuclei", "revision": 1, "way": "of the object", "source": "nuclei"
    }  # fmt: skip
    assert slide.encoded(NEEDS)["edges"]["way"] == "pixel differences"
    np.testing.assert_array_equal(slide.take([4, 2]).maps(NEEDS), drawn[[4, 2]])


@pytest.fixture(scope="module")
def own(sdata):
    """Makes the maps of nuclei around the first rows; they are an element whose data `steps` take to the image."""

    def make(element, *steps) -> np.ndarray:
        other = pickle.loads(pickle.dumps(sdata))
        systems = get_transformation(sdata.images["he"], get_all=True)
        set_transformation(element, {name: Sequence([*steps, at]) for name, at in systems.items()}, set_all=True)
        other["own"] = element
        first = Slide.from_sdata(other, nuclei_key="own", shapes_key="spots").take(range(6))
        return first.maps(replace(NEEDS, maps=("nuclei",))).astype(int)

    return make


@pytest.fixture(scope="module")
def corners(slide) -> np.ndarray:
    """Of nuclei near the first rows."""
    return np.floor(slide.centers_px[:6]).astype(int) + [3, -10]


def painted(corners, scale=1):
    """Labels of 12 x 24 pixels of the image."""
    labels = np.zeros((scale * 520, scale * 520), dtype=np.int32)
    for number, (x, y) in enumerate(scale * corners, start=1):
        labels[y : y + scale * 24, x : x + scale * 12] = number
    return Labels2DModel.parse(labels, dims=("y", "x"))


def outlined(geometry):
    return ShapesModel.parse(geopandas.GeoDataFrame(geometry=list(geometry)))


def test_polygons_and_labels_say_the_same(own, corners) -> None:
    one, other = own(outlined(box(x, y, x + 12, y + 24) for x, y in corners)), own(painted(corners))
    assert one[:, 0, 0].max() == 255 and np.abs(one - other).mean() < 2


def test_polygons_in_units_of_their_own_fall_on_the_same_pixels(own, corners) -> None:
    """Of another scale, turned, mirrored and moved, as their transformation says."""
    plain = [box(x, y, x + 11.3, y + 23.7) for x, y in corners + 0.13]
    step = np.array([[0.2, 0.3, 40], [0.3, -0.2, -25], [0, 0, 1]])
    back = np.linalg.inv(step)
    there = [affine_transform(one, [*back[:2, :2].ravel(), *back[:2, 2]]) for one in plain]
    expected = own(outlined(plain))
    np.testing.assert_array_equal(own(outlined(there), Affine(step, ("x", "y"), ("x", "y"))), expected)
    assert expected[:, 0, 0].max() == 255 and not np.array_equal(own(outlined(there)), expected)


def test_labels_of_another_scale_fall_on_the_same_pixels(own, corners) -> None:
    fine = own(painted(corners, scale=2), Scale([0.5, 0.5], axes=("x", "y")))
    np.testing.assert_array_equal(fine, own(painted(corners)))


def test_circles_are_nuclei_as_round_as_their_radius(own, corners) -> None:
    expected = own(outlined(Point(*xy).buffer(7.2) for xy in corners + 0.13))
    half = ShapesModel.parse((corners + 0.13) / 2, geometry=0, radius=3.6)
    np.testing.assert_array_equal(own(half, Scale([2.0, 2.0], axes=("x", "y"))), expected)
    assert expected[:, 0, 0].max() == 255


def test_maps_are_drawn_once(slide, drawn, monkeypatch) -> None:
    monkeypatch.setattr(Tiles, "_read", lambda *_: pytest.fail("pixels were read"))
    batch = next(iter(slide.take([3, 1]).maps(NEEDS)))
    np.testing.assert_array_equal(batch, drawn[3])


def test_what_cannot_be_drawn_says_so(sdata) -> None:
    with pytest.raises(MissingKey, match="no labels or shapes 'cells'; sdata has .*nuclei.*Pass nuclei_key="):
        Slide.from_sdata(sdata, nuclei_key="cells")
    with pytest.raises(BadInput, match=r"Needs.maps is \('glands',\); expected a tuple of some of 'edges'"):
        Needs(CropSpec(), ("texture",), maps=("glands",))
    with pytest.raises(BadInput, match="Needs.maps are seen beside features, and Needs.encoders is empty"):
        Needs(CropSpec(), maps=("edges",))
