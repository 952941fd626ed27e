from __future__ import annotations

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.models import Image3DModel
from spatialdata.transformations import Identity

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pixels.crops import Crops
from sq_imputer.section.image import find_image, read_pyramid

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 30, 40), dtype=np.uint8)


@pytest.fixture
def sdata(planted):
    return planted.section()


def seen(element) -> np.ndarray:
    """The whole image as crops see it."""
    pyramid = read_pyramid(SpatialData(images={"he": element}), "he")
    side = max(pyramid.shape)
    crop = Crops(pyramid, np.array([[side / 2, side / 2]]), CropSpec(side, side), mpp=1.0)[0]
    return crop[:, : pyramid.shape[0], : pyramid.shape[1]]


def test_the_only_image_needs_no_name(sdata):
    assert find_image(sdata, None) == "he"


def test_of_several_images_one_must_be_named(sdata):
    sdata.images["other"] = sdata.images["he"]
    with pytest.raises(MissingKey, match="2 images: 'he', 'other'. Pass image_key="):
        find_image(sdata, None)
    assert find_image(sdata, "other") == "other"


def test_a_missing_image_is_answered_with_those_there_are(sdata):
    with pytest.raises(MissingKey, match="no image 'HE'; sdata has 'he'. Pass image_key="):
        find_image(sdata, "HE")
    with pytest.raises(MissingKey, match="sdata has no image"):
        find_image(SpatialData(), None)


@pytest.mark.parametrize("names", [("r", "g", "b"), ("b", "g", "r"), ("Green", "Red", "Blue"), None])
def test_channels_are_put_in_order_by_name_where_they_have_one(planted, names):
    order = [0, 1, 2] if names is None else [[n[0].lower() for n in names].index(c) for c in "rgb"]
    element = planted.image(PIXELS[:3], {"um": Identity()}, channels=names)
    np.testing.assert_array_equal(seen(element), PIXELS[:3][order])


@pytest.mark.parametrize("names", [("r", "g", "b", "a"), ("alpha", "red", "green", "blue")])
@pytest.mark.parametrize("as_float", [False, True])
def test_alpha_is_composited_over_white(planted, names, as_float):
    alpha, rgb = (0, [1, 2, 3]) if names[0] == "alpha" else (3, [0, 1, 2])
    opacity = PIXELS[alpha] / 255
    pixels = (PIXELS / 255).astype(np.float32) if as_float else PIXELS
    expected = PIXELS[rgb] * opacity + 255 * (1 - opacity)
    np.testing.assert_allclose(seen(planted.image(pixels, {"um": Identity()}, channels=names)), expected, atol=0.51)


def test_a_float_image_is_the_uint8_image(planted):
    element = planted.image((PIXELS[:3] / 255).astype(np.float32), {"um": Identity()})
    np.testing.assert_array_equal(seen(element), PIXELS[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 255, r"image 'he', level 0 .*float image with values from .* to 255; .*Divide it by its white"),
        (lambda x: np.where(x > 0.5, np.nan, x), r"\d+ of 3600 values of a float image are NaN or infinite; \[0, 1\]"),
        (lambda x: np.where(x == 1, -np.inf, x), r"are NaN or infinite.* 1 of 1 rows need it: '0'"),
    ],
)
def test_floats_outside_0_to_1_are_refused_when_they_are_read(planted, change, message):
    element = planted.image(change(PIXELS[:3] / 255), {"um": Identity()})
    with pytest.raises(BadInput, match=message):
        seen(element)


@pytest.mark.parametrize(
    ("pixels", "channels", "message"),
    [
        (PIXELS[:1], None, r"has 1 channels \(c = '0'\); expected r, g, b, or these and a. It is gray.*image_key="),
        (
            np.concatenate([PIXELS, PIXELS[:1]]),
            ["dapi", "cd3", "cd8", "ck", "af"],
            r"has 5 channels \(c = 'dapi', 'cd3', .*not fluorescence",
        ),
        (PIXELS, None, r"has 4 channels .*set_channel_names\('he', \['r', 'g', 'b', 'a'\]\)"),
        (PIXELS, ["dapi", "r", "g", "b"], "has 4 channels"),
        (PIXELS[:3], ["r", "r", "b"], "duplicate channel names"),
        (PIXELS.transpose(1, 2, 0), None, r"has 30 channels.*Is it \(y, x, c\)\? Parse it with dims="),
        (PIXELS[:3].astype(np.uint16), None, "has dtype uint16; expected uint8, or float"),
        (PIXELS[:3] > 9, None, "has dtype bool.*It is a mask, not an image"),
        (PIXELS[:3].transpose(1, 2, 0)[:16], None, r"has 16 channels.*Is it \(y, x, c\)\? Parse it with dims="),
    ],
)
def test_images_that_are_not_rgb_are_refused_before_any_pixel_is_read(planted, pixels, channels, message):
    sdata = SpatialData(images={"he": planted.image(pixels, {"um": Identity()}, channels=channels)})
    with pytest.raises(BadInput, match=f"image 'he' .*{message}"):
        read_pyramid(sdata, "he")


def test_an_image_of_nothing_or_of_a_volume_is_refused(planted):
    flat = planted.image(PIXELS[:3], {"um": Identity()})
    with pytest.raises(BadInput, match=r"image 'he' is empty \(40 x 0 px\); expected"):
        read_pyramid(SpatialData(images={"he": flat[:, :0]}), "he")
    volume = Image3DModel.parse(np.zeros((3, 2, 4, 5), np.uint8), dims=("c", "z", "y", "x"))
    with pytest.raises(BadInput, match=r"has dimensions \('c', 'z', 'y', 'x'\); expected \('c', 'y', 'x'\)"):
        read_pyramid(SpatialData(images={"he": volume}), "he")


def test_levels_of_a_pyramid_come_finest_first(planted):
    sdata = planted.section(scales=[2, 2])
    assert [level.shape for level in read_pyramid(sdata, "he").levels] == [
        (3, 240, 320),
        (3, 120, 160),
        (3, 60, 80),
    ]
