from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from spatialdata import read_zarr
from spatialdata.transformations import Identity, Scale, set_transformation

from sq_imputer.contract import CropSpec, Needs
from sq_imputer.errors import BadInput
from sq_imputer.pixels.chunks import backing
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.checks import check_inside, check_missing, check_needs
from sq_imputer.section.slide import Slide

IMAGE = np.random.default_rng(0).integers(1, 256, (3, 256, 256), dtype=np.uint8)
IDS = np.array([f"s{i}" for i in range(256)], dtype=object)
CENTERS = np.stack(np.divmod(np.arange(256), 16), axis=1)[:, ::-1] * 16.0 + 8  # one in every 16 px
SIZES = np.full(256, 4.0)
STORES = {
    "zarr v3": {},
    "zarr v2": {"zarr_format": 2},
    "split channels": {"chunks": (1, 16, 16)},
    "sharded": {"chunks": (3, 8, 8), "shards": (3, 16, 16)},
    "gzip": {"compressors": [zarr.codecs.GzipCodec()]},
}


def store(folder, name="0", image=IMAGE, **options) -> zarr.Array:
    options = {"chunks": (3, 16, 16), **options}
    array = zarr.create_array(folder / name, shape=image.shape, dtype="uint8", **options)
    array[:] = image
    return array


def pyramid(*arrays, **options) -> Pyramid:
    return Pyramid(tuple(da.from_zarr(array) for array in arrays), name="image 'he'", **options)


def remove(array, *tiles) -> None:
    """Delete the first file of each tile."""
    for y, x in tiles:
        (Path(array.store.root) / array.path / array.metadata.encode_chunk_key((0, y, x))).unlink()


def missing(found: Pyramid, how="error", centers=CENTERS, sizes=SIZES) -> None:
    check_missing(found, centers, sizes, IDS[: len(centers)], "shapes 'spots'", how)


# Chunks that are not there -----------------------------------------------------------------------


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_nothing_is_said_of_a_complete_store(options, tmp_path):
    missing(pyramid(store(tmp_path, **options)))


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_rows_on_missing_chunks_are_an_error_beyond_one_in_a_hundred(options, tmp_path):
    array = store(tmp_path, **options)
    remove(array, (0, 1), (3, 2))
    with pytest.warns(UserWarning, match=r"2 chunk files of image 'he' that shapes 'spots' .*2 of 256 .*'s1', 's50';"):
        missing(pyramid(array))
    remove(array, (15, 15))
    with pytest.raises(BadInput, match=r"3 chunk files of .*('0/c|'0/0).* 3 of 256 rows lie there \(1.17%\).*'s255'; "):
        missing(pyramid(array))
    missing(pyramid(array), "fill")


def test_a_row_is_counted_where_its_footprint_reaches(tmp_path):
    array = store(tmp_path)
    remove(array, (0, 1))
    near = np.array([[14.0, 8], [12, 8], [8, 18], [200, 200]])
    with pytest.raises(BadInput, match=r"1 of 4 rows lie there \(25.00%\): 's0';"):
        missing(pyramid(array), centers=near, sizes=np.array([5.0, 5, 4, 9]))
    with pytest.raises(BadInput, match=r"2 of 4 rows lie there \(50.00%\): 's0', 's1';"):
        missing(pyramid(array), centers=near, sizes=np.array([5.0, 8.5, 4, 9]))


def test_a_background_of_the_fill_value_has_no_files_and_is_fine(tmp_path):
    image = IMAGE.copy()
    image[:, 128:] = 0
    array = store(tmp_path, image=image)
    assert not (tmp_path / "0" / "c" / "0" / "8").exists()
    missing(pyramid(array), centers=CENTERS[:128], sizes=SIZES[:128])
    with pytest.raises(BadInput, match=r"128 chunk files .* 128 of 256 rows lie there \(50.00%\)"):
        missing(pyramid(array))


def test_every_level_is_looked_at(tmp_path):
    levels = [store(tmp_path), store(tmp_path, "1", IMAGE[:, ::2, ::2])]
    missing(pyramid(*levels))
    remove(levels[1], (0, 0))
    with pytest.raises(BadInput, match=r"1 chunk files .*'1/c/0/0/0'.* 4 of 256 .*'s0', 's1', 's16', 's17';"):
        missing(pyramid(*levels))


def test_levels_are_looked_at_where_they_lie(tmp_path):
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(0, 256, (3, 66, 66), dtype=np.uint8), 16, axis=1).repeat(16, axis=2)[:, :1055, :1055]
    coarse = image[:, 15:, 15:].reshape(3, 65, 16, 65, 16).mean(axis=(2, 4)).astype(np.uint8)  # the first are dropped
    levels = [store(tmp_path, image=image, chunks=(3, 256, 256)), store(tmp_path, "1", coarse)]
    near = np.array([[265.0, 265.0]])  # 15.6 in pixels of the level; its size would have it at 16.3
    found = pyramid(*levels)
    assert found.place(1).origin == (15.0, 15.0)
    remove(levels[1], (1, 1))
    missing(found, centers=near, sizes=np.array([4.0]))
    remove(levels[1], (0, 0))
    with pytest.raises(BadInput, match=r"1 chunk files .*/c/0/0/0'.* 1 of 1 rows lie there"):
        missing(found, centers=near, sizes=np.array([4.0]))


def test_only_channels_in_use_count(tmp_path):
    array = store(tmp_path, chunks=(1, 16, 16))
    remove(array, (0, 1), (0, 2), (0, 3))  # of channel 0
    missing(pyramid(array, channels=(1, 2, 1)))
    with pytest.raises(BadInput, match="3 of 256 rows"):
        missing(pyramid(array, channels=(1, 2, 1), alpha=0))


def test_rows_beside_the_image_and_images_in_memory_are_not_looked_up(tmp_path):
    array = store(tmp_path)
    remove(array, (0, 0))
    missing(pyramid(array), centers=np.array([[-500.0, 8], [600, 600], [1e300, -1e300]]), sizes=np.full(3, 4.0))
    missing(Pyramid((da.from_zarr(array) + np.uint8(0),)))
    missing(Pyramid((da.from_array(IMAGE),)))


def test_an_unknown_way_is_answered_with_the_known(tmp_path):
    with pytest.raises(BadInput, match="missing is 'pad'; expected 'error' or 'fill'"):
        missing(pyramid(store(tmp_path)), "pad")


def test_a_slide_of_a_stored_section_looks_for_its_chunks(planted, tmp_path):
    planted.section(scales=[2]).write(tmp_path / "section.zarr")
    sdata = read_zarr(tmp_path / "section.zarr")
    Slide.from_sdata(sdata)
    remove(backing(Slide.from_sdata(sdata).frame.pyramid.levels[0]), (0, 0))
    with pytest.raises(BadInput, match=r"image 'he' that shapes 'spots' lie on.*1 of 8 rows .*'0'; .*missing='fill'"):
        Slide.from_sdata(sdata)
    assert (Slide.from_sdata(sdata, missing="fill").crops(CropSpec(4, 4))[0] == 0).all()


# Rows beside the image ---------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "inside"), [(0, 100), (26, 90), (1000, 0)])
def test_rows_outside_are_refused_with_the_share_that_lies_on_the_image(shift, inside):
    found, centers = Pyramid((da.from_array(IMAGE),), name="image 'he'"), CENTERS - [shift, 0]
    if inside == 100:
        check_inside(found, centers, IDS, "shapes 'spots'", "error")
        return
    lost, shown = {90: (32, "88%"), 0: (256, "0%")}[inside]
    with pytest.raises(
        BadInput, match=rf"{lost} of 256 rows of shapes 'spots' lie .* Only {shown} lie on it; expected"
    ):
        check_inside(found, centers, IDS, "shapes 'spots'", "error")


def test_no_padding_helps_where_most_rows_lie_outside():
    found = Pyramid((da.from_array(IMAGE),), name="image 'he'")
    check_inside(found, CENTERS - [128, 0], IDS, "shapes 'spots'", "pad")
    for outside in ("pad", "error"):
        with pytest.raises(BadInput, match=r"144 of 256 rows .* Only 44% .* Check the transformations of both\.$"):
            check_inside(found, CENTERS - [144, 0], IDS, "shapes 'spots'", outside)


# Crops -------------------------------------------------------------------------------------------


def test_crops_finer_than_the_image_are_warned_of(planted):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Slide.from_sdata(planted.section()).check(Needs(crop=CropSpec(40, 80)))
    for size in (84, 320):
        with pytest.warns(UserWarning, match=rf"'he' has 1 µm per .*times coarser than crops of 40 µm in {size} px"):
            Slide.from_sdata(planted.section()).check(Needs(crop=CropSpec(40, size)))


def test_features_of_a_model_are_held_to_its_resolution_and_others_are_not(planted, counting):
    slide, spec = Slide.from_sdata(planted.section()), CropSpec(40, 400)
    assert slide.features("counting", spec).shape == (8, 3)
    with pytest.warns(UserWarning, match="10.0 times coarser"):
        slide.all_features(Needs(crop=spec, encoders=("counting",)))


def test_a_section_is_checked_once(planted):
    slide, needs = Slide.from_sdata(planted.section()), Needs(crop=CropSpec(20, 100), context_um=(40.0, 60.0))
    with pytest.warns(UserWarning, match="times coarser") as told:
        slide.take([0, 1]).with_genes(["G0"]).check(needs)
        slide.check(needs)
        next(slide.batches(needs))
    assert len(told) == 1


def test_crops_larger_than_the_image_are_refused(planted):
    slide = Slide.from_sdata(planted.section())
    slide.check(Needs(crop=CropSpec(320, 32)))
    with pytest.raises(BadInput, match=r"crops of 321 µm are larger than image 'he': 320 x 240 µm \(320 x 240 px"):
        slide.check(Needs(crop=CropSpec(321, 64)))


def test_contexts_may_be_larger_than_the_image(planted, counting):
    slide, needs = Slide.from_sdata(planted.section()), Needs(CropSpec(40, 32), ("counting",), context_um=(800.0,))
    slide.check(needs)
    assert slide.all_features(needs).shape == (8, 6)


@pytest.mark.parametrize("color", [0, 255, 128])
@pytest.mark.parametrize("as_float", [False, True])
def test_an_image_of_one_color_is_warned_of(planted, color, as_float):
    sdata = planted.section()
    pixels = np.full((3, 240, 320), color, np.uint8)
    pixels = pixels / np.float32(255) if as_float else pixels
    sdata["he"] = planted.image(pixels, {"um": Identity()})
    with pytest.warns(UserWarning, match=rf"no tissue-like crop in image 'he': 8 of 8 .*such as \({color}, "):
        next(Slide.from_sdata(sdata).batches(Needs(crop=CropSpec(40, 40))))


def test_a_few_empty_crops_among_others_are_nothing_special(planted):
    sdata = planted.section()
    pixels = np.array(sdata["he"].data)
    pixels[:, :, :240] = 255
    sdata["he"] = planted.image(pixels, {"um": Identity()})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        Slide.from_sdata(sdata).check(Needs(crop=CropSpec(40, 40)))


def test_values_that_are_no_colors_are_found_before_the_encoder_runs(planted, counting):
    sdata = planted.section()
    pixels = np.array(sdata["he"].data) / 255
    pixels[1, 175, 250] = np.nan
    sdata["he"] = planted.image(pixels, {"um": Identity()})
    slide = Slide.from_sdata(sdata)
    with pytest.raises(BadInput, match=r"'he'.*1 of \d+ values .* NaN or infinite.* 1 of 8 rows need it: 's7'\.$"):
        slide.all_features(Needs(crop=CropSpec(40, 40), encoders=("counting",)))
    assert counting.seen == 0


def test_the_pixel_size_in_the_message_says_where_it_came_from(planted):
    sdata = planted.section()
    set_transformation(sdata["he"], Scale([9, 9], axes=("x", "y")), "um")
    set_transformation(sdata["spots"], Scale([9, 9], axes=("x", "y")), "um")
    with pytest.warns(UserWarning, match=r"has 9 µm per pixel \(from transformation to 'um'\), 9.0 times coarser"):
        Slide.from_sdata(sdata).check(Needs(crop=CropSpec(40, 40)))


@pytest.mark.parametrize("neighbors", [0, 1, 3])
def test_needs_that_a_slide_meets_pass(neighbors):
    needs = Needs(crop=CropSpec(), neighbors=neighbors)
    check_needs(needs)
    with pytest.raises(BadInput, match="Needs.crop is None"):
        check_needs(replace(needs, crop=None))


def test_a_model_of_dna_is_not_asked_about_a_section():
    with pytest.raises(BadInput, match="the model reads DNA, and all rows of a section have the same"):
        check_needs(Needs(sequence=100))
