from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from sq_imputer.data.chunks import DaskBlocks, Tiles, ZarrChunks, ZstdFiles, backing, source, to_rgb
from sq_imputer.data.pyramid import Pyramid
from sq_imputer.errors import BadInput

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 70, 90), dtype=np.uint8)
STORED = {
    "zstd": {},
    "zstd, zarr v2": {"zarr_format": 2},
    "split channels": {"chunks": (1, 32, 32)},
    "sharded": {"shards": (4, 64, 64)},
    "transposed": {"filters": [zarr.codecs.TransposeCodec(order=(2, 1, 0))]},
    "gzip": {"compressors": [zarr.codecs.GzipCodec()]},
    "zarr v2, Fortran order": {"zarr_format": 2, "order": "F"},
    "big endian": {"serializer": zarr.codecs.BytesCodec(endian="big"), "dtype": "float32"},
    "float": {"dtype": "float32"},
}
BY_FILE = {"zstd", "zstd, zarr v2", "split channels", "float"}


def store(folder, image=IMAGE, **options) -> zarr.Array:
    options = {"chunks": (4, 32, 32), "dtype": "uint8", **options}
    array = zarr.create_array(folder / "image.zarr", shape=image.shape, **options)
    array[:] = image if options["dtype"] == "uint8" else image / np.float32(255)
    return array


def whole(pyramid: Pyramid) -> np.ndarray:
    tiles = Tiles(pyramid, 0)
    out = np.zeros((3, *tiles.extent), np.uint8)
    for y, x, pixels in tiles.read(list(np.ndindex(*tiles.shape))).values():
        out[:, y : y + pixels.shape[1], x : x + pixels.shape[2]] = pixels
    return out


@pytest.mark.parametrize("kind", STORED)
def test_every_way_of_storing_reads_the_same_pixels(kind, tmp_path):
    array = store(tmp_path, **STORED[kind])
    lazy = da.from_zarr(array)
    assert type(source(lazy)) is (ZstdFiles if kind in BY_FILE else ZarrChunks)
    np.testing.assert_array_equal(whole(Pyramid((lazy,))), IMAGE[:3])


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning", "ignore::UserWarning")
def test_images_read_by_spatialdata_are_read_from_their_files(tmp_path):
    from spatialdata import SpatialData, read_zarr
    from spatialdata.models import Image2DModel

    he = Image2DModel.parse(IMAGE[:3], dims=("c", "y", "x"), scale_factors=[2], chunks=(3, 32, 32))
    SpatialData(images={"he": he}).write(tmp_path / "slide.zarr")
    levels = read_zarr(tmp_path / "slide.zarr")["he"]
    pyramid = Pyramid(tuple(levels[name]["image"].data for name in ("scale0", "scale1")))
    assert all(type(source(level)) is ZstdFiles for level in pyramid.levels)
    np.testing.assert_array_equal(whole(pyramid), IMAGE[:3])


CHANGES = {
    "slice": lambda x: x[:, :64, :64],
    "flip": lambda x: x[:, ::-1],
    "sum": lambda x: x + np.uint8(1),
    "cast": lambda x: x.astype("float32") / 255,
    "rechunk": lambda x: x.rechunk((4, 30, 40)),
    "map": lambda x: x.map_blocks(lambda block: block // 2),
    "concatenate": lambda x: da.concatenate([x, x], axis=1),
    "persist": lambda x: x.persist(scheduler="synchronous"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_array_that_was_changed_is_computed_not_read_from_the_file(change, tmp_path):
    lazy = CHANGES[change](da.from_zarr(store(tmp_path)))
    assert backing(lazy) is None
    assert isinstance(source(lazy), DaskBlocks)
    expected = to_rgb(lazy.compute(scheduler="synchronous"))
    np.testing.assert_array_equal(whole(Pyramid((lazy,))), expected)


def test_an_array_that_hides_a_function_behind_the_names_of_zarr_is_computed(tmp_path):
    array = store(tmp_path)
    # what from_array builds with a lock or a getter of its own has the same layers
    locked = da.from_array(array, chunks=array.chunks, lock=True)
    shifted = da.from_array(array, chunks=array.chunks, getitem=lambda x, i: x[i] // 2)
    assert backing(da.from_array(array, chunks=array.chunks)) is not None
    assert backing(locked) is None
    assert backing(shifted) is None


def test_dask_chunks_may_be_larger_than_those_of_zarr_and_irregular(tmp_path):
    lazy = da.from_zarr(store(tmp_path), chunks=(4, 64, 64))
    assert Tiles(Pyramid((lazy,)), 0).shape == (3, 3)
    np.testing.assert_array_equal(whole(Pyramid((lazy,))), IMAGE[:3])
    irregular = da.from_array(IMAGE, chunks=((4,), (10, 45, 15), (60, 30)))
    np.testing.assert_array_equal(whole(Pyramid((irregular,))), IMAGE[:3])


@pytest.mark.parametrize("kind", ["zstd", "zstd, zarr v2", "sharded"])
def test_a_missing_chunk_holds_the_fill_value(kind, tmp_path):
    array = zarr.create_array(
        tmp_path / "empty.zarr", shape=IMAGE.shape, chunks=(4, 32, 32), dtype="uint8", fill_value=7, **STORED[kind]
    )
    assert (whole(Pyramid((da.from_zarr(array),))) == 7).all()


def test_only_the_chunks_of_channels_in_use_are_read(tmp_path):
    array = store(tmp_path, chunks=(1, 32, 32))
    for file in (tmp_path / "image.zarr" / "c" / "1").rglob("*"):
        if file.is_file():
            file.write_bytes(b"broken")
    pyramid = Pyramid((da.from_zarr(array),), channels=(3, 2, 0))
    assert Tiles(pyramid, 0).chunks_per_tile == 3
    np.testing.assert_array_equal(whole(pyramid), IMAGE[[3, 2, 0]])


@pytest.mark.parametrize("split", [(4, 32, 32), (2, 32, 32), (1, 32, 32)])
def test_alpha_and_channel_order_do_not_depend_on_the_chunks(split, tmp_path):
    pyramid = Pyramid((da.from_zarr(store(tmp_path, chunks=split)),), channels=(3, 0, 1), alpha=2)
    np.testing.assert_array_equal(whole(pyramid), to_rgb(IMAGE, (3, 0, 1), 2))


def test_alpha_is_composited_over_white():
    color = np.array([[10], [100], [200]], np.uint8)
    for opacity, expected in {0: [255, 255, 255], 255: [10, 100, 200], 51: [206, 224, 244]}.items():
        block = np.vstack([color, [[opacity]]])[:, :, None].astype(np.uint8)
        np.testing.assert_array_equal(to_rgb(block, alpha=3).ravel(), expected)
        np.testing.assert_array_equal(to_rgb(block / 255, alpha=3).ravel(), expected)


def test_floats_are_rounded_to_the_nearest_level():
    block = np.array([0, 0.5 / 255 - 1e-6, 0.5 / 255 + 1e-6, 1]).reshape(1, 1, 4).repeat(3, axis=0)
    np.testing.assert_array_equal(to_rgb(block)[0, 0], [0, 0, 1, 255])


@pytest.mark.parametrize("value", [255, -1, np.nan])
def test_floats_outside_zero_to_one_are_an_error(value):
    block = np.full((3, 2, 2), 0.5, np.float32)
    block[0, 0, 0] = value
    with pytest.raises(BadInput, match=r"\[0, 1\] is expected"):
        to_rgb(block)


@pytest.mark.parametrize("kind", ["zstd", "sharded"])
def test_a_broken_chunk_is_named(kind, tmp_path):
    array = store(tmp_path, **STORED[kind])
    files = [file for file in (tmp_path / "image.zarr" / "c").rglob("*") if file.is_file()]
    for file in files:
        file.write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"chunk \(0, 1, 2\) of .*image.zarr"):
        Tiles(Pyramid((da.from_zarr(array),)), 0).read([(1, 2)])
