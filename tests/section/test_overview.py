from __future__ import annotations

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.transformations import Identity, Scale

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.overview import picture, read_frame, tissue

GLASS, PINK = (240, 235, 240), (180, 90, 150)


@pytest.fixture
def slide(planted):
    """A function that makes a slide of 1600 x 1200 µm with tissue of some shape, on an image that is placed anyhow."""

    def make(inside, mpp=4.0, angle=0.0, flip=False, glass=GLASS):
        matrix, shape = planted.place(angle, flip, mpp / 5)
        matrix[:2] *= 5
        y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
        x, y = np.moveaxis(np.stack([x, y], axis=-1) @ matrix[:2, :2].T + matrix[:2, 2], -1, 0)
        pixels = np.where(inside(x, y), *np.array([PINK, glass])[:, :, None, None])
        pixels = pixels + np.random.default_rng(0).integers(-4, 5, pixels.shape)
        pixels = pixels.clip(0, 255).astype(np.uint8)
        return SpatialData(images={"he": planted.image(pixels, {"um": planted.affine(matrix)}, scales=[2])})

    return make


def disc(x, y):
    return np.hypot(x - 900, y - 500) < 300


def centers(shape, extent) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a picture lie, in µm."""
    left, right, bottom, top = extent
    x = left + (np.arange(shape[1]) + 0.5) * (right - left) / shape[1]
    y = top + (np.arange(shape[0]) + 0.5) * (bottom - top) / shape[0]
    return np.meshgrid(x, y)


PLACES = {"as drawn": {}, "mirrored": {"flip": True}, "turned by 90": {"angle": 90}, "turned by 30": {"angle": 30}}


@pytest.mark.parametrize("how", PLACES.values(), ids=PLACES)
def test_the_picture_shows_the_section_in_the_axes_of_its_system(slide, how):
    rgb, extent = picture(read_frame(slide(disc, **how)), 300)
    assert max(rgb.shape[:2]) <= 300 and rgb.dtype == np.uint8
    x, y = centers(rgb.shape, extent)
    reach = np.hypot(x - 900, y - 500)
    inside = (x > 0) & (x < 1600) & (y > 0) & (y < 1200)
    assert inside.mean() > 0.25
    np.testing.assert_allclose(rgb[reach < 280].mean(axis=0), PINK, atol=2)
    np.testing.assert_allclose(rgb[(reach > 320) & inside].mean(axis=0), GLASS, atol=8)


@pytest.mark.parametrize("how", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("glass", [GLASS, (225, 200, 225)], ids=["white", "pink glass"])
def test_tissue_is_where_it_was_drawn(slide, how, glass):
    mask, extent = tissue(read_frame(slide(disc, glass=glass, **how)))
    truth = disc(*centers(mask.shape, extent))
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93


def test_dust_is_no_tissue_and_pinholes_are_no_glass(slide):
    def dusty(x, y):
        dust = (np.abs(x - 200) < 62) & (np.abs(y - 200) < 62)
        pinhole = np.hypot(x - 900, y - 500) < 30
        return (disc(x, y) & ~pinhole) | dust

    mask, extent = tissue(read_frame(slide(dusty)))
    x, y = centers(mask.shape, extent)
    assert not mask[x < 400].any()
    assert mask[np.hypot(x - 900, y - 500) < 200].all()


def test_dust_alone_is_no_tissue(slide):
    with pytest.raises(BadInput, match="no tissue was found in image 'he', only specks"):
        tissue(read_frame(slide(lambda x, y: (np.abs(x - 200) < 30) & (np.abs(y - 200) < 30))))


@pytest.mark.parametrize("how", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("glass", [GLASS, (225, 200, 225)], ids=["white", "pink glass"])
def test_glass_only_is_an_error(slide, how, glass):
    with pytest.raises(BadInput, match="no tissue was found. Pass shapes to predict at"):
        tissue(read_frame(slide(lambda x, y: x > 1e9, glass=glass, **how)))


@pytest.mark.parametrize("angle", [0, 30])
def test_tissue_that_reaches_the_border_of_the_image_is_found_up_to_it(slide, angle):
    frame = read_frame(slide(lambda x, y: x + y < 1300, mpp=3.3, glass=(225, 200, 225), angle=angle))
    mask, extent = tissue(frame)
    x, y = centers(mask.shape, extent)
    px = frame.to_px(np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(*x.shape, 2)
    on_image = ((px > 0) & (px < frame.pyramid.shape[::-1])).all(axis=-1)
    assert mask[(x + y < 1250) & on_image].mean() > 0.99
    assert not mask[(x + y > 1350) | ~on_image].any()


def test_glass_is_told_from_tissue_that_fills_most_of_the_image(slide):
    mask, extent = tissue(read_frame(slide(lambda x, y: x < 1000)))
    x, y = centers(mask.shape, extent)
    assert mask[(x > 0) & (x < 970) & (y > 0) & (y < 1200)].all() and not mask[x > 1030].any()


def test_an_image_of_a_few_um_is_too_small_to_tell(slide, planted):
    image = planted.image(np.zeros((3, 4, 400), np.uint8), {"um": Identity()})
    with pytest.raises(BadInput, match=r"image 'he' is too small .* to tell tissue from glass"):
        tissue(read_frame(SpatialData(images={"he": image})))


def test_the_picture_is_no_finer_than_asked(slide):
    frame = read_frame(slide(disc, mpp=2.0))
    rgb, extent = picture(frame, 5000)
    assert (extent[1] - extent[0]) / rgb.shape[1] == pytest.approx(2.0, rel=0.01)
    rgb, extent = picture(frame, 5000, least_um=16)
    assert (extent[1] - extent[0]) / rgb.shape[1] == pytest.approx(16, rel=0.02)
    np.testing.assert_allclose(frame.box_um, [[0, 0], [1600, 1200]], atol=1e-6)


def test_pixels_and_um_are_each_other_s_inverse(slide):
    frame = read_frame(slide(disc, angle=30, flip=True))
    points = np.array([[900.0, 500.0], [10.0, 20.0]])
    linear, offset = frame.to_um[:2, :2], frame.to_um[:2, 2]
    np.testing.assert_allclose(frame.to_px(points) @ linear.T + offset, points)
    np.testing.assert_allclose(frame.axes.T @ frame.axes, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(linear @ frame.axes, frame.pixel.mpp * np.eye(2), atol=1e-9)


def test_the_system_is_the_one_named_else_global_else_the_first(planted):
    systems = {"um": Scale([2, 2], axes=("x", "y")), "global": Identity()}
    sdata = SpatialData(images={"he": planted.image(np.zeros((3, 8, 8), np.uint8), systems)})
    assert read_frame(sdata).coordinate_system == "global"
    assert read_frame(sdata, coordinate_system="um").coordinate_system == "um"
    assert read_frame(sdata).pixel.mpp == 2
    with pytest.raises(
        MissingKey, match="image 'he' is not in 'crop'; it is in 'um', 'global'. Pass coordinate_system="
    ):
        read_frame(sdata, coordinate_system="crop")
