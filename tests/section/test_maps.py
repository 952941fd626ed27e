from __future__ import annotations

from dataclasses import replace

import geopandas
import numpy as np
import pytest
from shapely import box

import sq_imputer as sqi
from sq_imputer.contract import CropSpec, Needs
from sq_imputer.errors import BadInput, MissingKey
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


def test_maps_are_of_the_crop_and_of_the_block_around_it(drawn, slide) -> None:
    """V7: the wide view covers three times (five, by default) the field of the crop, around the same center."""
    assert drawn.shape == (len(slide), 2, 4, 16, 16) and drawn.dtype == np.uint8
    inner = drawn[:, 1, 0, 5:11, 5:11].astype(float).mean((1, 2))  # somewhat more than a third of it
    assert np.corrcoef(inner, drawn[:, 0, 0].astype(float).mean((1, 2)))[0, 1] > 0.9
    alone = replace(NEEDS, neighbors=0)
    np.testing.assert_array_equal(slide.maps(alone)[:, 0], drawn[:, 0])


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


def test_the_object_may_have_nuclei_of_its_own(sdata) -> None:
    slide = Slide.from_sdata(sdata, nuclei_key="nuclei")
    drawn = slide.maps(NEEDS)
    np.testing.assert_allclose(drawn[:, 0, 1].mean((1, 2)) / 255, covered(sdata, slide, 96.0), atol=0.03)
    assert slide.encoded(NEEDS)["nuclei"] == {
        "name": "nuclei", "revision": 1, "way": "of the object", "source": "nuclei"
    }  # fmt: skip
    assert slide.encoded(NEEDS)["edges"]["way"] == "pixel differences"
    np.testing.assert_array_equal(slide.take([4, 2]).maps(NEEDS), drawn[[4, 2]])


def test_polygons_and_labels_say_the_same(sdata, slide) -> None:
    from spatialdata.models import Labels2DModel, ShapesModel
    from spatialdata.transformations import get_transformation

    how = {"transformations": get_transformation(sdata.images["he"], get_all=True)}
    corners = (slide.centers_px[:6] + [3, -10]).astype(int)
    labels = np.zeros((520, 520), dtype=np.int32)
    for number, (x, y) in enumerate(corners, start=1):
        labels[y : y + 24, x : x + 12] = number
    boxes = geopandas.GeoDataFrame(geometry=[box(x, y, x + 12, y + 24) for x, y in corners])
    sdata.shapes["boxes"] = ShapesModel.parse(boxes, **how)
    sdata.labels["mask"] = Labels2DModel.parse(labels, dims=("y", "x"), **how)
    one, other = (
        Slide.from_sdata(sdata, nuclei_key=key, shapes_key="spots").take(range(6)).maps(NEEDS).astype(int)
        for key in ("boxes", "mask")
    )
    assert one[:, 0, 1].max() == 255 and np.abs(one - other).mean() < 2


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
