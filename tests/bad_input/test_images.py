"""Images and transformations that cannot be used: rows 1 to 14, 23 to 30, 52 and 54 of the table of bad input.

Ids that begin with "f" are rows of the table of faults: no common coordinate system (f17), µm per pixel (f18).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spatialdata import SpatialData, deepcopy, read_zarr
from spatialdata.models import Image2DModel, ShapesModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    get_transformation,
    remove_transformation,
    set_transformation,
)

import sq_imputer as sqi
from sq_imputer import BadInput, CropSpec, MissingKey
from sq_imputer.pixels.chunks import backing
from sq_imputer.section.slide import Slide

SPEC = CropSpec(80, 32)
XY = ("x", "y")


@pytest.fixture(scope="session")
def toy() -> SpatialData:
    """A section of 59 spots on an image of 640 px at 1.25 µm, in chunks of 128 px. Shared: tests take copies."""
    found = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    put(found, pixels(found))
    return found


@pytest.fixture
def sdata(toy) -> SpatialData:
    return deepcopy(toy)


@pytest.fixture(scope="session")
def whole_on_disk(toy, tmp_path_factory) -> Path:
    """A store of the same, to be copied."""
    sdata = deepcopy(toy)
    put(sdata, pixels(sdata), scales=[2])
    sdata.write(tmp_path_factory.mktemp("on_disk") / "section.zarr")
    return sdata.path


@pytest.fixture
def on_disk(whole_on_disk, tmp_path) -> SpatialData:
    """The same, backed by a store."""
    return read_zarr(shutil.copytree(whole_on_disk, tmp_path / "section.zarr"))


def pixels(sdata) -> np.ndarray:
    element = sdata.images["he"]
    level = next(iter(element["scale0"].ds.values())) if hasattr(element, "children") else element
    return np.asarray(level.data)


def put(sdata, values, names=("r", "g", "b"), scales=None) -> None:
    """Replace the pixels of the image."""
    where = get_transformation(sdata.images["he"], get_all=True)
    how = {"dims": ("c", "y", "x"), "c_coords": None if names is None else list(names), "scale_factors": scales}
    sdata.images["he"] = Image2DModel.parse(values, transformations=where, chunks=(len(values), 128, 128), **how)


def at(sdata, centers_px):
    """Circles at pixels of the image, of the size of the spots."""
    where = get_transformation(sdata.images["he"], get_all=True)
    radius = float(sdata.shapes["spots"]["radius"].iloc[0])
    return ShapesModel.parse(np.asarray(centers_px, float), geometry=0, radius=radius, transformations=where)


def predict(sdata, **keys) -> Callable:
    config = keys.pop("config", {"size_px": 64, "context_um": ()})
    return lambda: sqi.tl.predict(sdata, "ridge", genes=12, n_folds=2, config=config, **keys)


# Pixels ------------------------------------------------------------------------------------------


def rgba(values):
    return np.concatenate([values, np.full_like(values[:1], 255)])


def with_nan(values, value=np.nan, n=3):
    found = (values / 255).astype(np.float32)
    found[0, 320, 320 : 320 + n] = value
    return found


NAMED = "set_channel_names('he', ['r', 'g', 'b'"
IMAGES = [
    pytest.param(
        lambda x: {"values": np.moveaxis(x, 0, -1), "names": None},
        ["has 640 channels", "expected r, g, b", "Is it (y, x, c)? Parse it with dims=('y', 'x', 'c')"],
        id="01-yxc",
    ),
    pytest.param(
        lambda x: {"values": x[:1], "names": None}, ["has 1 channels", "r, g, b", "It is gray"], id="02-grayscale"
    ),
    pytest.param(
        lambda x: {"values": rgba(x), "names": None},
        ["has 4 channels (c = '0', '1', '2', '3')", "If the fourth is alpha", NAMED + ", 'a'])"],
        id="03-rgba-without-names",
    ),
    pytest.param(
        lambda x: {"values": x, "names": "rrb"}, ["duplicate channel names: 'r', 'r', 'b'", NAMED], id="05-twice"
    ),
    pytest.param(
        lambda x: {"values": x.astype(np.uint16) * 16},
        ["dtype uint16", "expected uint8, or float in [0, 1]", "Divide it by its white"],
        id="06-uint16",
    ),
    pytest.param(
        lambda x: {"values": x.astype(np.float32)},
        ["level 0", "values from", "[0, 1] is expected", "Divide it by its white (255?), or store it as uint8", "rows"],
        id="07-float-to-255",
    ),
    pytest.param(
        lambda x: {"values": with_nan(x)},
        [
            "chunk (0, 2, 2)",
            "3 of 49152 values",
            "NaN or infinite",
            "[0, 1] is expected",
            "Fill them",
            "of 59 rows need it: '",
        ],
        id="08-nan",
    ),
    pytest.param(
        lambda x: {"values": with_nan(x, np.inf, 1)}, ["1 of 49152 values", "NaN or infinite", "rows need"], id="08-inf"
    ),
    pytest.param(lambda x: {"values": x > 99}, ["dtype bool", "expected uint8", "It is a mask"], id="09-bool"),
    pytest.param(
        lambda x: {"values": np.stack([x[0]] * 5), "names": ["DAPI", "CD3", "CD8", "CK", "AF"]},
        ["has 5 channels (c = 'dapi', 'cd3', 'cd8', 'ck', 'af')", "expected r, g, b", "H&E, not fluorescence"],
        id="14-fluorescence",
    ),
    pytest.param(
        lambda x: {"values": np.stack([x[0]] * 3), "names": ["DAPI", "CD3", "CD8"]},
        ["has 3 channels", "not fluorescence", "image_key="],
        id="14-fluorescence-of-3",
    ),
]


@pytest.mark.parametrize(("change", "holds"), IMAGES)
def test_an_image_that_is_no_rgb_is_refused(sdata, refused, change, holds):
    put(sdata, **change(pixels(sdata)))
    refused(sdata, predict(sdata), BadInput, "image 'he'", *holds)


@pytest.mark.parametrize("side", [pytest.param("y", id="10-no-rows"), pytest.param("x", id="10-no-columns")])
def test_an_image_without_pixels_is_refused(sdata, refused, side):
    sdata.images["he"] = sdata.images["he"].isel({side: slice(0)})
    refused(sdata, predict(sdata), BadInput, "image 'he' is empty", "0", "expected at least a pixel", "image_key=")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        pytest.param(rgba, "rgba", id="03-rgba"),
        pytest.param(lambda x: rgba(x)[[3, 2, 0, 1]], "abrg", id="03-abrg"),
        pytest.param(lambda x: x[::-1], "bgr", id="04-bgr"),
        pytest.param(lambda x: (x / 255).astype(np.float32), "rgb", id="07-float-to-1"),
        pytest.param(lambda x: x, None, id="03-rgb-without-names"),
    ],
)
def test_an_image_that_says_what_it_is_shows_the_same(toy, sdata, values, names):
    put(sdata, values(pixels(sdata)), names)
    np.testing.assert_array_equal(sqi.pp.crops(sdata, SPEC)[:], sqi.pp.crops(toy, SPEC)[:])


@pytest.mark.parametrize("color", [pytest.param(255, id="11-white"), pytest.param(0, id="11-black")])
def test_an_image_of_one_color_is_warned_of(sdata, warned, color):
    put(sdata, np.full_like(pixels(sdata), color))
    told = ("no tissue-like crop in image 'he'", "8 of 59", f"({color}, {color}, {color})", "expected", "image_key=")
    warned(sdata, predict(sdata), *told)


# Files -------------------------------------------------------------------------------------------


def chunk_file(sdata, y: int, x: int, level: int = 0) -> Path:
    array = backing(Slide.from_sdata(sdata).frame.pyramid.levels[level])
    return Path(array.store.root, array.path, array.metadata.encode_chunk_key((0, y, x)))


@pytest.mark.parametrize(
    "level", [pytest.param(0, id="12-missing-chunk"), pytest.param(1, id="12-missing-chunk-of-a-coarser-level")]
)
def test_missing_chunks_are_refused_or_taken_as_they_are(on_disk, refused, level):
    chunk_file(on_disk, 1, 1, level).unlink()
    holds = ["1 chunk files of image 'he'", "shapes 'spots'", "/1/1'", "of 59 rows lie there", "expected none"]
    refused(on_disk, predict(on_disk), BadInput, *holds, "Copy the store again", "missing='fill'")
    on_disk.path = None  # the result stays in memory
    predict(on_disk, missing="fill")()
    assert "ridge" in on_disk.tables["imputed"].layers


@pytest.mark.parametrize("n", [pytest.param(120, id="12-missing-under-one-in-a-hundred")])
def test_missing_chunks_under_few_rows_are_warned_of(on_disk, warned, n):
    diagonal = np.linspace(100, 600, n)
    centers = np.concatenate([[[590, 200]], np.column_stack([diagonal, diagonal])])
    on_disk.shapes["many"] = at(on_disk, centers)
    chunk_file(on_disk, 1, 4).unlink()
    told = ("1 chunk files of image 'he'", "1 of 121 rows lie there (0.83%): '0'")
    warned(on_disk, lambda: sqi.pp.crops(on_disk, SPEC, shapes_key="many", table_key=None), *told)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda packed: packed[: len(packed) // 2], id="13-truncated"),
        pytest.param(lambda packed: packed[:4] + bytes([packed[4] ^ 255]) + packed[5:], id="13-bit-flipped"),
        pytest.param(lambda packed: b"", id="13-empty"),
        pytest.param(lambda packed: b"\x89PNG" + packed, id="13-no-zstd"),
    ],
)
def test_a_damaged_chunk_is_refused(on_disk, refused, damage):
    file = chunk_file(on_disk, 2, 2)
    file.write_bytes(damage(file.read_bytes()))
    where = ["chunk (0, 2, 2) of image 'he', level 0", "images/he"]
    refused(on_disk, predict(on_disk), BadInput, *where, "cannot be read", "copy it again", "of 59 rows need it: '")


# Places ------------------------------------------------------------------------------------------


def affine(matrix) -> Affine:
    return Affine(np.asarray(matrix, float), XY, XY)


def scaled(x, y) -> Scale:
    return Scale([x, y], axes=XY)


def to_all(sdata, element: str, transformation) -> None:
    for name in get_transformation(sdata[element], get_all=True):
        set_transformation(sdata[element], transformation, name)


def move(sdata, share: float) -> None:
    """Shift spots to the right until this share of them lies on the image."""
    x = np.sort(sdata.shapes["spots"].geometry.x.to_numpy())
    limit = 641 if share == 0 else x[round(share * len(x)) - 1] + 0.1
    shift = 640 - (limit if share else x[0] - 1)
    to_all(sdata, "spots", affine([[1, 0, shift], [0, 1, 0], [0, 0, 1]]))


SPOTS = "rows of shapes 'spots' lie outside image 'he' (640 x 640 px)"


@pytest.fixture
def pixels_only(sdata) -> SpatialData:
    """A section whose elements meet in pixels, and nowhere else."""
    for element in ("he", "spots"):
        remove_transformation(sdata[element], "um")
    return sdata


@pytest.mark.parametrize(
    ("share", "lost", "fix"),
    [
        pytest.param(0.95, 3, "or pass outside='pad' to see white there", id="23-few-outside"),
        pytest.param(0.4, 33, "Check the transformations of both.", id="23-most-outside"),
        pytest.param(0.0, 59, "Only 0% lie on it", id="23-all-outside"),
    ],
)
def test_spots_outside_the_image_are_refused(pixels_only, refused, share, lost, fix):
    move(pixels_only, share)
    refused(pixels_only, predict(pixels_only, mpp=1.25), BadInput, f"{lost} of 59 {SPOTS}", "expected all", "'", fix)


@pytest.mark.parametrize(
    "share", [pytest.param(0.95, id="23-few-padded"), pytest.param(0.4, id="23-most-cannot-be-padded")]
)
def test_at_least_half_of_the_spots_lie_on_the_image_even_with_padding(pixels_only, refused, share):
    move(pixels_only, share)
    where = {"mpp": 1.25, "outside": "pad"}
    if share > 0.5:
        predict(pixels_only, **where)()
        assert len(pixels_only.tables["imputed"]) == 59  # no row is dropped
    else:
        holds = [f"33 of 59 {SPOTS}", "Only 44%", "at least 50% with outside='pad'", "Check the transformations"]
        refused(pixels_only, predict(pixels_only, **where), BadInput, *holds)


@pytest.mark.parametrize("mpp", [pytest.param(1.25, id="24-crop-larger-than-the-image")])
def test_a_crop_larger_than_the_image_is_refused(sdata, refused, mpp):
    holds = ["crops of 801 µm are larger than image 'he'", "800 x 800 µm", "640 x 640 px", "extent_um", "mpp="]
    config = {"extent_um": 801.0, "size_px": 400, "context_um": ()}
    refused(sdata, predict(sdata, config=config, buffer_um=50.0), BadInput, *holds)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(CropSpec(80, 64), id="25-fractional-centers"),
        pytest.param(CropSpec(75, 32), id="25-fractional-centers-and-resampled"),
    ],
)
def test_crops_have_one_shape_wherever_they_lie(sdata, spec):
    corners = [[0, 0], [640, 640], [0.5, 320.25], [639.9, 0.1]]
    inside = np.random.default_rng(0).uniform(0, 640, (40, 2))
    sdata.shapes["any"] = at(sdata, np.concatenate([corners, inside]))
    found = sqi.pp.crops(sdata, spec, shapes_key="any", table_key=None)
    assert found[:].shape == (44, 3, spec.size_px, spec.size_px)
    half = spec.size_px // 2
    assert (found[0][:, : half - 1] == 255).all() and (found[0][:, half + 1 :, half + 1 :] < 255).any()


TURN = np.array([[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]])
AWAY = affine([[1, 0, 500], [0, 1, 0], [0, 0, 1]])
PLACES = [
    pytest.param("he", scaled(0.3, 0.3), [SPOTS, "lie on it", "Check"], id="26-only-the-image-is-scaled"),
    pytest.param("he", AWAY, [SPOTS, "lie on it", "Check"], id="26-only-the-image-is-moved"),
    pytest.param("he", scaled(1, 2), ["scaled by 2 and 1 along two", "pp.straighten(sdata, 'he'"], id="27-anisotropic"),
    pytest.param(
        "spots",
        scaled(1, 2),
        ["scaled by 2 and 1 along two", "spatialdata.transform(sdata['spots']"],
        id="27-anisotropic-shapes",
    ),
    pytest.param("he", scaled(np.nan, 1), ["cannot be inverted", "nan", "Set a new one"], id="28-scale-nan"),
    pytest.param("he", scaled(0, 1), ["cannot be inverted", "0.0", "Set a new one"], id="28-scale-zero"),
    pytest.param("spots", scaled(np.nan, 1), ["cannot be inverted", "nan"], id="28-scale-nan-of-shapes"),
    pytest.param("he", affine([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), ["cannot be inverted"], id="29-singular"),
    pytest.param("he", affine([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]), ["is sheared", "Resample"], id="27-sheared"),
]


@pytest.mark.parametrize(("element", "transformation", "holds"), PLACES)
def test_a_transformation_that_places_nothing_is_refused(pixels_only, refused, element, transformation, holds):
    to_all(pixels_only, element, transformation)
    refused(pixels_only, predict(pixels_only, mpp=1.25), BadInput, *holds, "he" if element == "he" else "spots")


@pytest.mark.parametrize("name", [pytest.param("aligned", id="30-unknown-system")])
def test_an_unknown_coordinate_system_is_answered_with_the_known(sdata, refused, name):
    holds = ["image 'he'", "shapes 'spots'", f"'{name}'", "the image has", "'global', 'um'", "Pass coordinate_system="]
    refused(sdata, predict(sdata, coordinate_system=name), MissingKey, *holds)


@pytest.mark.parametrize("_", [pytest.param(None, id="f17-no-common-system")])
def test_elements_that_share_no_system_are_refused(sdata, refused, _):
    set_transformation(sdata["spots"], {"elsewhere": Identity()}, set_all=True)
    holds = ["image 'he' ('global', 'um')", "shapes 'spots' ('elsewhere')", "share no coordinate system", "add one"]
    refused(sdata, predict(sdata), BadInput, *holds)


@pytest.mark.parametrize("turn", [pytest.param(TURN, id="f16-turned-together")])
def test_image_and_spots_may_be_turned_together(toy, sdata, turn):
    for element in ("he", "spots"):
        set_transformation(sdata[element], affine(turn), "turned")
        for name in ("global", "um"):
            remove_transformation(sdata[element], name)
    here = Slide.from_sdata(sdata, mpp=1.25)
    np.testing.assert_allclose(here.centers_px, Slide.from_sdata(toy).centers_px)
    np.testing.assert_allclose(here.frame.axes, turn[:2, :2].T, atol=1e-12)


# Resolution --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mpp", "holds"),
    [
        pytest.param(None, ["no µm per pixel is known", "it has 'global'", "Pass mpp="], id="f18-missing"),
        pytest.param(0, ["0 µm per pixel (from argument)", "expected 0.05 to 20", "Pass mpp="], id="f18-zero"),
        pytest.param(25, ["25 µm per pixel (from argument)", "expected 0.05 to 20", "Pass mpp="], id="f18-25"),
        pytest.param(float("nan"), ["mpp is nan", "expected a number"], id="f18-nan"),
        pytest.param(-1.0, ["mpp is -1", "expected a number"], id="f18-negative"),
    ],
)
def test_a_pixel_size_that_is_missing_or_senseless_is_refused(pixels_only, refused, mpp, holds):
    refused(pixels_only, predict(pixels_only, mpp=mpp), BadInput, *holds)


FINE = {"extent_um": 100.0, "context_um": ()}


@pytest.mark.parametrize("size", [pytest.param(200, id="52-coarser-than-a-fitted-model")])
def test_an_image_too_coarse_for_a_fitted_model_is_refused(sdata, refused, size):
    other = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=3)["P1"]
    model = sqi.tl.fit(other, "ridge", genes=3, config={**FINE, "size_px": 40})
    fine = type(model)(replace(model.config, size_px=size))
    fine.__dict__.update({name: value for name, value in model.__dict__.items() if name != "config"})
    fine.provenance["resolved_mpp"] = [0.5]
    holds = ["its pixels are 1.25, from transformation to 'um'", "the model was fitted at 0.5", "at most 1.5 times"]
    way_out = ("tl.fit(..., resolution=", "image_key=", "mpp=")
    refused(sdata, lambda: sqi.tl.predict(sdata, fine), BadInput, *holds, *way_out)


def test_a_fitted_model_knows_how_fine_its_images_were(sdata):
    model = sqi.tl.fit(sdata, "ridge", genes=3, config={**FINE, "size_px": 40})
    assert model.provenance["training_mpp"] == pytest.approx(1.25)


@pytest.mark.parametrize("size", [pytest.param(200, id="52-more-than-twice-coarser")])
def test_an_image_too_coarse_for_a_model_is_warned_of(sdata, warned, size):
    warned(
        sdata,
        predict(sdata, config={**FINE, "size_px": size}),
        "image 'he' has 1.25 µm",
        "2.5 times coarser",
        "size_px",
    )


@pytest.mark.parametrize("key", [pytest.param(None, id="54-two-images")])
def test_of_two_images_one_must_be_named(sdata, refused, key):
    sdata.images["other"] = sdata.images["he"]
    holds = ["image_key is not given", "2 images: 'he', 'other'", "Pass image_key="]
    refused(sdata, predict(sdata, image_key=key), MissingKey, *holds)
