from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pytest
from spatialdata import SpatialData, bounding_box_query, read_zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, get_transformation

from sq_imputer.contract import CropSpec
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.levels import Place, between, find, settled
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.image import read_pyramid

RGB = (0, 1, 2)


def painted(high: int, wide: int, radius: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tissue with dark nuclei of one size at known places, 4 radii apart or more, with soft rims."""
    rng = np.random.default_rng(seed)
    grid = [np.arange(4 * radius, n - 4 * radius, 5 * radius) for n in (wide, high)]
    xy = np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2).astype(float)
    xy += rng.uniform(-radius / 2, radius / 2, xy.shape)
    image = np.full((high, wide), 235.0)
    reach = int(radius) + 3
    for x, y in xy:
        rows, columns = (np.arange(int(c) - reach, int(c) + reach + 1) for c in (y, x))
        away = np.hypot(columns + 0.5 - x, rows[:, None] + 0.5 - y)
        image[np.ix_(rows, columns)] -= 175 * np.clip(radius + 0.5 - away, 0, 1)
    return np.repeat(np.rint(image).astype(np.uint8)[None], 3, axis=0), xy


def worst(pyramid: Pyramid, xy: np.ndarray, radius: float) -> dict[int, float]:
    """Mean displacement of nuclei in crops, per level that is read, in pixels of the crop."""
    found = {}
    for level in range(len(pyramid.levels)):
        per = max(pyramid.scale(level)) * 1.02
        size = 2 * int(np.ceil(1.5 * radius / per)) + 2
        crops = Crops(pyramid, xy, CropSpec(size * per, size), mpp=1.0)
        pixels = 235 - crops[:].astype(float).mean(axis=1)
        away = np.arange(size) - (size - 1) / 2
        off = [(pixels.sum(axis=k) * away).sum(axis=1) / pixels.sum(axis=(1, 2)) for k in (1, 2)]
        found[crops.level] = float(np.abs(np.mean(off, axis=1)).max())
    return found


def element(image: np.ndarray, factors):
    """An image of several levels, each computed once: lazy ones are made anew of the finest at every look."""
    made = Image2DModel.parse(
        image, dims=("c", "y", "x"), c_coords=["r", "g", "b"], scale_factors=factors, transformations={"g": Identity()}
    )
    for level in made.values():
        level["image"].data = level["image"].data.persist(scheduler="synchronous")
    return made


@pytest.mark.parametrize(
    ("shape", "factors", "radius"),
    [
        ((519, 519), [2, 2, 2], 12),
        ((511, 518), [2, 2, 2], 12),
        ((1025, 1279), [4, 4], 24),
        ((515, 517), [3, 2], 12),
        ((512, 512), [4, 2], 12),
        ((519, 527), [8], 12),
        ((1055, 1055), [16], 24),
    ],
)
def test_crops_of_every_level_are_centered_whatever_the_size(shape, factors, radius):
    image, xy = painted(*shape, radius=radius)
    pyramid = read_pyramid(SpatialData(images={"he": element(image, factors)}), "he")
    found = worst(pyramid, xy, radius)
    assert set(found) == set(range(len(factors) + 1))
    assert max(found.values()) < 0.1


def test_sizes_over_sizes_would_be_beside_the_tissue():
    image, xy = painted(1025, 1279, radius=24)
    pyramid = read_pyramid(SpatialData(images={"he": element(image, [4, 4])}), "he")
    place = pyramid.place(2)
    assert place == Place((16.0, 16.0), (1025 % 16, 1279 % 16))  # the first pixels were dropped
    assert place.scale != pyramid.scale(2)


@pytest.mark.parametrize("low", [(107, 107), (53, 50), (49, 63), (32, 32)])
@pytest.mark.parametrize(("size", "factors"), [(640, [2, 2, 2]), (639, [4, 2])])
def test_crops_of_a_cropped_object_are_centered(low, size, factors):
    image, xy = painted(size, size, radius=12)
    sdata = SpatialData(images={"he": element(image, factors)})
    box = {"min_coordinate": list(low), "max_coordinate": [574, 574], "axes": ("x", "y")}
    cut = bounding_box_query(sdata, target_coordinate_system="g", **box)
    moved = xy - low
    kept = moved[((moved > 30) & (xy < 544)).all(axis=1)]
    assert len(kept) > 4
    assert max(worst(read_pyramid(cut, "he"), kept, 12).values()) < 0.1


def test_levels_that_were_resized_to_fit_are_read_by_their_sizes():
    from PIL import Image

    image, xy = painted(1001, 1003, radius=24)
    sizes = [(500, 501), (250, 250)]
    levels = [Image.fromarray(image[0]).resize(s[::-1], Image.Resampling.BOX) for s in sizes]
    arrays = [image, *(np.repeat(np.asarray(level)[None], 3, axis=0) for level in levels)]
    found = worst(Pyramid(tuple(map(da.from_array, arrays))), xy, 24)
    assert set(found) == {0, 1, 2}
    assert max(found.values()) < 0.1


def test_half_pixel_translations_of_other_writers_change_nothing(tmp_path):
    import json

    image, xy = painted(515, 515, radius=12)
    SpatialData(images={"he": element(image, [2, 2])}).write(tmp_path / "s.zarr")
    file = tmp_path / "s.zarr" / "images" / "he" / "zarr.json"
    meta = json.loads(file.read_text())
    scales = meta["attributes"]["ome"]["multiscales"][0]["datasets"]
    for dataset in scales:
        steps = dataset["coordinateTransformations"]
        scale = next(step["scale"] for step in steps if step["type"] == "scale")
        shift = [0.0, *((s - 1) / 2 for s in scale[1:])]
        kept = [step for step in steps if step["type"] == "scale"]
        dataset["coordinateTransformations"] = [*kept, {"type": "translation", "translation": shift}]
    file.write_text(json.dumps(meta))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = read_zarr(tmp_path / "s.zarr")
    assert get_transformation(sdata.images["he"], "g") == Identity()
    assert max(worst(read_pyramid(sdata, "he"), xy, 12).values()) < 0.1


def test_levels_of_nothing_to_see_are_not_read_and_that_is_said():
    blank = [da.full((3, n, n), 240, dtype=np.uint8, chunks=(3, 256, 256)) for n in (1031, 515, 257)]
    pyramid = Pyramid(tuple(blank), name="image 'he'")
    with pytest.warns(UserWarning, match="level 2 of image 'he' does not show where it lies.*level 0 is read"):
        crops = Crops(pyramid, np.array([[500.0, 500.0]]), CropSpec(400.0, 100), mpp=1.0)
    assert crops.level == 0


def test_a_level_of_another_picture_has_no_place():
    rng = np.random.default_rng(0)
    fine, coarse = (da.from_array(rng.integers(0, 255, (3, n, n), dtype=np.uint8)) for n in (301, 150))
    assert between(fine, coarse, RGB) is None
    assert find([fine, coarse, coarse[:, ::2, ::2]], RGB) == [Place((1.0, 1.0)), None, None]


def test_stripes_do_not_tell_where_they_begin():
    stripes = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 1, 1001), dtype=np.uint8), 1001, axis=1)
    fine = da.from_array(np.repeat(stripes, 3, axis=0))
    assert between(fine, fine[:, 1:, 1:].astype(float).reshape(3, 500, 2, 500, 2).mean(axis=(2, 4)), RGB) is None


def test_halves_of_halves_are_settled_by_their_sizes_and_read_no_pixel():
    def refuse(block):
        raise AssertionError("read")

    levels = [
        da.zeros((3, n, n), dtype=np.uint8).map_blocks(refuse, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
        for n in (64, 32, 16)
    ]
    assert settled([(64, 64), (32, 32), (16, 16)])
    assert not settled([(65, 64), (32, 32)])
    assert not settled([(64, 64), (16, 16)])
    assert find(levels, RGB)[2] == Place((4.0, 4.0))


def test_an_unreadable_place_is_passed_over():
    image, _ = painted(1031, 1031, radius=24)
    fine, coarse = (level.data for level in (element(image, [2])[f"scale{k}"]["image"] for k in (0, 1)))

    def broken(block, block_info=None):
        if block_info[None]["chunk-location"][1:] == (0, 0):
            raise OSError("damaged")
        return block

    coarse = coarse.rechunk((3, 100, 100)).map_blocks(broken, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    assert between(fine, coarse, RGB) == Place((2.0, 2.0), (1.0, 1.0))
