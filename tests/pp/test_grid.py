from __future__ import annotations

import numpy as np
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Identity, get_transformation

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.places import lattice
from sq_imputer.section.slide import Slide

GLASS, PINK = (240, 235, 240), (180, 90, 150)
SIDE = 300  # pixels of 4 µm
DISC = np.array([650.0, 500.0]), 300.0  # center and radius of the tissue, in µm


@pytest.fixture
def disc():
    """A function that makes a slide with a disc of tissue; the image is turned in "um"."""

    def make(angle=0.0, tissue=True, radius=DISC[1]):
        turn = np.deg2rad(angle)
        linear = 4 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = linear, [600, 600] - linear @ [SIDE / 2, SIDE / 2]
        points = np.stack(np.meshgrid(*2 * [np.arange(SIDE) + 0.5]), axis=-1) @ linear.T + matrix[:2, 2]
        inside = tissue & (np.linalg.norm(points - DISC[0], axis=-1) < radius)
        pixels = np.where(inside, *np.array([PINK, GLASS], dtype=np.uint8)[:, :, None, None])
        systems = {"um": Affine(matrix, ("x", "y"), ("x", "y")), "global": Identity()}
        image = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=systems)
        return SpatialData(images={"he": image})

    return make


def centers_um(sdata, key="grid") -> np.ndarray:
    return Slide.from_sdata(sdata, shapes_key=key, coordinate_system="um").xy_um


def neighbors(points) -> np.ndarray:
    """Distances to the six nearest points, nearest first."""
    return np.sort(np.linalg.norm(points[:, None] - points, axis=-1), axis=1)[:, 1:7]


@pytest.mark.parametrize("angle", [0, 30, 90])
def test_circles_cover_the_tissue_and_nothing_else(disc, angle):
    sdata = disc(angle)
    assert sqi.pp.grid(sdata, spacing_um=40, diameter_um=30, coordinate_system="um") is None
    points = centers_um(sdata)
    reach = np.linalg.norm(points - DISC[0], axis=1)
    assert reach.max() < DISC[1] + 25
    assert len(points) == pytest.approx(np.pi * 300**2 / (40**2 * np.sqrt(3) / 2), rel=0.08)
    _, everywhere = lattice(np.array([[0, 0], [1300, 1300.0]]), 5)
    deep = everywhere[np.linalg.norm(everywhere - DISC[0], axis=1) < DISC[1] - 45]
    assert np.linalg.norm(deep[:, None] - points, axis=-1).min(axis=1).max() < 40 / np.sqrt(3) + 1e-6
    np.testing.assert_allclose(Slide.from_sdata(sdata, coordinate_system="um").size_um, 30)


@pytest.mark.parametrize("angle", [0, 30])
def test_every_circle_is_as_far_as_asked_from_its_six_neighbors(disc, angle):
    sdata = disc(angle)
    sqi.pp.grid(sdata, spacing_um=50, coordinate_system="um")
    points = centers_um(sdata)
    inner = np.linalg.norm(points - DISC[0], axis=1) < 200
    np.testing.assert_allclose(neighbors(points)[inner], 50, rtol=1e-6)
    assert neighbors(points)[:, 0].min() > 50 - 1e-6
    rows = np.unique(points[:, 1].round(6))
    np.testing.assert_allclose(np.diff(rows), 50 * np.sqrt(3) / 2)  # along x of the system, not of the image


@pytest.mark.parametrize("angle", [0, 10, 30, 45])
def test_no_circle_lies_outside_the_image(disc, angle):
    sdata = disc(angle, radius=640)  # the tissue reaches over three borders
    sqi.pp.grid(sdata, spacing_um=10, coordinate_system="um")
    px = Slide.from_sdata(sdata, coordinate_system="um").centers_px  # rows outside would be refused here
    assert px.min() < 3 and px.max() > SIDE - 3


def test_the_lattice_fills_its_box():
    _, points = lattice(np.array([[10.0, -20.0], [510.0, 380.0]]), 25)
    assert (points >= [10, -20]).all() and (points <= [510, 380]).all()
    inner = np.stack(np.meshgrid(np.arange(35, 486, 5), np.arange(5, 356, 5)), axis=-1).reshape(-1, 1, 2)
    assert np.linalg.norm(inner - points, axis=-1).min(axis=1).max() <= 25 / np.sqrt(3) + 1e-6
    assert neighbors(points)[:, 0] == pytest.approx(25)
    assert lattice(np.array([[0.0, 0.0], [5.0, 5.0]]), 25, (25.0, 12.5))[1].shape == (0, 2)


def test_the_circles_go_wherever_the_image_goes(disc):
    sdata = disc(30)
    sqi.pp.grid(sdata)
    systems = (get_transformation(sdata[name], get_all=True) for name in ("he", "grid"))
    assert len({frozenset(found) for found in systems}) == 1
    in_pixels = np.column_stack([sdata["grid"].geometry.x, sdata["grid"].geometry.y])
    assert np.diff(np.unique(in_pixels[:, 1].round(6))).min() == pytest.approx(100 / 4 * np.sqrt(3) / 2)  # "global"
    assert (sdata["grid"]["radius"] == 55 / 2 / 4).all()


def test_nothing_but_the_grid_is_added(section, digest):
    before = digest(section)
    sqi.pp.grid(section, spacing_um=80)
    assert digest(section, without=("grid",)) == before
    slide = Slide.from_sdata(section, shapes_key="grid")
    assert not slide.measured.any() and slide.frame.pixel == sqi.pp.pixel_size(section)
    assert Slide.from_sdata(section).keys["shapes_key"] == "spots"  # still the one that the table annotates


def test_a_store_gets_the_grid_at_once(stored, digest):
    before, others = digest(stored), digest(stored, without=("table",))
    sqi.pp.grid(stored, key_added="places")
    there = spatialdata.read_zarr(stored.path)
    assert digest(stored, without=("places",)) == before
    assert digest(there, without=("places", "table")) == others
    np.testing.assert_array_equal(centers_um(there, "places"), centers_um(stored, "places"))


def test_a_taken_name_is_refused_unless_it_may_be_replaced(disc):
    sdata = disc()
    sqi.pp.grid(sdata)
    first = sdata["grid"]
    with pytest.raises(
        BadInput, match="'grid' is taken; shapes in use: 'grid'. Pass overwrite=True .* or another key_added"
    ):
        sqi.pp.grid(sdata, spacing_um=50)
    assert sdata["grid"] is first
    sqi.pp.grid(sdata, spacing_um=50, overwrite=True)
    assert len(sdata["grid"]) > 3 * len(first)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"spacing_um": 0}, BadInput, "spacing_um is 0; expected a positive length in µm"),
        ({"spacing_um": np.nan}, BadInput, "spacing_um is nan"),
        ({"diameter_um": -5}, BadInput, "diameter_um is -5"),
        ({"spacing_um": 5000}, BadInput, "no point of a lattice of 5000 µm lies on tissue; pass a smaller spacing_um"),
        ({"key_added": "a/b"}, BadInput, "'a/b' is not a name for an element"),
        ({"key_added": "he"}, BadInput, "'he' names one of the images already"),
        ({"image_key": "HE"}, MissingKey, "no image 'HE'; sdata has 'he'"),
        ({"coordinate_system": "crop"}, MissingKey, "image 'he' is not in 'crop'; it is in 'um', 'global'"),
    ],
)
def test_what_makes_no_grid_is_refused_and_nothing_is_changed(disc, digest, options, kind, message):
    sdata = disc()
    before = digest(sdata)
    with pytest.raises(kind, match=message):
        sqi.pp.grid(sdata, **options)
    assert digest(sdata) == before


@pytest.mark.parametrize("angle", [0, 30])
def test_glass_alone_is_an_error(disc, angle):
    sdata = disc(angle, tissue=False)
    with pytest.raises(BadInput, match="no tissue was found. Pass shapes to predict at instead of a grid"):
        sqi.pp.grid(sdata)
    assert not list(sdata.shapes)


def test_a_grid_that_misses_the_measured_spots_warns_and_says_how_many(section):
    import shapely
    from geopandas import GeoDataFrame
    from spatialdata.models import ShapesModel

    spots = section.shapes["spots"]
    middle = float(np.median(spots.geometry.x))
    share = float((spots.geometry.x < middle).mean())
    half = GeoDataFrame(geometry=[shapely.box(-1e4, -1e4, middle, 1e4)])
    section.shapes["left"] = ShapesModel.parse(half, transformations=get_transformation(spots, get_all=True))
    with pytest.warns(UserWarning, match=rf"of 59 measured spots \({share:.0%}\) lie on 'left'.* pp.tissue"):
        sqi.pp.grid(section, spacing_um=80, tissue_key="left")
    assert section.shapes["grid"].geometry.x.max() < middle


def test_the_share_of_measured_spots_is_logged(section, caplog):
    with caplog.at_level("INFO", logger="sq_imputer"):
        sqi.pp.grid(section, spacing_um=80)
    assert "of 59 measured spots" in caplog.text and "lie on the tissue that was found" in caplog.text
