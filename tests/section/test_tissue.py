from __future__ import annotations

import numpy as np
import pytest
from drawn import GLASS, PLACES, centers, disc
from spatialdata import SpatialData
from spatialdata.transformations import Identity

from sq_imputer.errors import BadInput
from sq_imputer.section.frame import read_frame
from sq_imputer.section.tissue import covers, find, tissue


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
    with pytest.raises(BadInput, match="'he' shows glass, black, and specks below 150 µm alone: no tissue was found"):
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


H_AND_E = np.array([(150, 90, 160), (205, 140, 190), (110, 60, 130), (232, 205, 226)])


def drawn(side=120, radius=40, glass=(236, 220, 234), seed=0):
    """A picture of 16 µm per pixel with a textured disc of four stains in its middle, and where the disc is."""
    rng = np.random.default_rng(seed)
    kind = np.kron(rng.integers(0, 4, (side // 2, side // 2)), np.ones((2, 2), int))
    y, x = np.mgrid[:side, :side] - side / 2
    disc = np.hypot(x, y) < radius
    rgb = np.where(disc[..., None], H_AND_E[kind], np.array(glass)) + rng.integers(-2, 3, (side, side, 3))
    return rgb.clip(0, 255).astype(np.uint8), disc


def overlap(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


def everywhere(rgb):
    return np.ones(rgb.shape[:2], dtype=bool)


CHANGES = {
    "as drawn": lambda rgb: rgb,
    "darker to one side": lambda rgb: rgb * np.linspace(0.5, 1, rgb.shape[1])[None, :, None],
    "one half dark": lambda rgb: np.where(np.arange(rgb.shape[1])[None, :, None] < 60, rgb * 0.5, rgb),
    "dim": lambda rgb: rgb * 0.55,
    "gray marks": lambda rgb: np.where((np.indices(rgb.shape[:2]) // 4 % 3 == 0).all(0)[..., None], rgb * 0.6, rgb),
}


@pytest.mark.parametrize("glass", [(240, 240, 240), (236, 220, 234), (240, 240, 252)], ids=["white", "pink", "blue"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_stained_tissue_is_told_from_glass_in_any_light(change, glass):
    rgb, disc = drawn(glass=glass)
    rgb = change(rgb.astype(float)).astype(np.uint8)
    assert overlap(find(rgb, everywhere(rgb), 16.0), disc) > 0.85


@pytest.mark.parametrize("value", [0, 12, 255])
@pytest.mark.parametrize(
    "sides", [((0, 0), (24, 0)), ((15, 0), (0, 0)), ((20, 20), (20, 20))], ids=["left", "top", "frame"]
)
def test_what_the_scanner_did_not_see_is_no_tissue_and_hides_none(sides, value):
    rgb, disc = drawn()
    rgb, disc = np.pad(rgb, (*sides, (0, 0)), constant_values=value), np.pad(disc, sides)
    mask = find(rgb, everywhere(rgb), 16.0)
    assert overlap(mask, disc) > 0.85
    assert not mask[(rgb == value).all(axis=-1)].any()


@pytest.mark.parametrize("strip", [0, 10])
def test_a_crop_without_glass_is_all_tissue(strip):
    rgb, _ = drawn(side=60, radius=100)
    rgb = np.pad(rgb, ((0, 0), (strip, 0), (0, 0)))
    mask = find(rgb, everywhere(rgb), 16.0)
    assert mask[:, strip:].all() and not mask[:, :strip].any()


@pytest.mark.parametrize("strip", [0, 10])
def test_a_crop_without_tissue_has_none(strip):
    rgb, _ = drawn(radius=0)
    rgb = np.pad(rgb, ((0, 0), (strip, 0), (0, 0)))
    assert not find(rgb, everywhere(rgb), 16.0).any()
    assert not find(np.zeros_like(rgb), everywhere(rgb), 16.0).any()


def test_a_picture_without_color_is_told_by_its_shades():
    rgb, disc = drawn()
    gray = np.repeat(rgb.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert overlap(find(gray, everywhere(gray), 16.0), disc) > 0.85


def test_points_are_covered_where_the_mask_is():
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    points = np.array([[125.0, 215], [115, 215], [125, 205], [1e6, 0], [-5, 215], [125, 1e6]])
    np.testing.assert_array_equal(covers(mask, (100, 140, 230, 200), points), [True, False, False, False, False, False])


@pytest.mark.parametrize("name", ["C2", "B4", "MOB1"])
def test_real_spots_lie_on_the_tissue_that_is_found_and_glass_does_not(real_data, name):
    from sq_imputer import datasets
    from sq_imputer.section.slide import Slide

    reader, folder = (datasets.mob, "mob") if name.startswith("MOB") else (datasets.her2st, "her2st")
    slide = Slide.from_sdata(reader(real_data / folder, [name])[name])
    mask, extent = tissue(slide.frame)
    spots = slide.xy_um[slide.measured]
    assert covers(mask, extent, spots).mean() > 0.95
    away = spots.max(axis=0) + [1000, 0]
    assert not covers(mask, extent, np.column_stack([np.full(99, away[0]), np.linspace(0, away[1], 99)])).any()
