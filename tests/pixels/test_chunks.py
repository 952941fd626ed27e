from __future__ import annotations

import gzip

import dask.array as da
import numpy as np
import pytest
import zarr
from numcodecs import zstd

from sq_imputer.errors import BadInput
from sq_imputer.pixels.chunks import (
    BadChunk,
    DaskBlocks,
    Tiles,
    ZarrChunks,
    ZstdFiles,
    backing,
    source,
    to_rgb,
    zstd_size,
)
from sq_imputer.pixels.pyramid import Pyramid

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
    with pytest.raises(BadInput, match=r"chunk \(0, 1, 2\) of image 'he', level 0 \(.*image.zarr\) cannot.*copy"):
        Tiles(Pyramid((da.from_zarr(array),), name="image 'he'"), 0).read([(1, 2)])


def file_of(folder):
    return folder / "image.zarr" / "c" / "0" / "1" / "2"


DAMAGES = {
    "empty": lambda packed: b"",
    "cut": lambda packed: packed[: len(packed) // 2],
    "another codec": lambda packed: gzip.compress(packed),
    "a chunk of another size": lambda packed: zstd.compress(bytes(100), 1),
    "no end of bytes": lambda packed: b"\x28\xb5\x2f\xfd\xe0" + (1 << 40).to_bytes(8, "little") + packed[9:],
}


@pytest.mark.parametrize("kind", ["zstd", "zstd, zarr v2", "gzip"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_told_whatever_the_damage(kind, damage, tmp_path):
    array = store(tmp_path, **STORED[kind])
    file = tmp_path / "image.zarr" / "0.1.2" if array.metadata.zarr_format == 2 else file_of(tmp_path)
    packed = file.read_bytes()
    if kind == "gzip" and damage == "another codec":
        pytest.skip("gzip of gzip is a chunk of another size")
    file.write_bytes(DAMAGES[damage](packed))
    with pytest.raises(BadChunk, match=r"chunk \(0, 1, 2\) .* cannot be read: .*The file is damaged: copy it again."):
        Tiles(Pyramid((da.from_zarr(array),)), 0).read([(1, 2)])


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path):
    array = store(tmp_path)
    file_of(tmp_path).unlink()
    file_of(tmp_path).mkdir()
    with pytest.raises(BadChunk, match=r"Is a directory.*Check the disk and the permissions.$"):
        Tiles(Pyramid((da.from_zarr(array),)), 0).read([(1, 2)])


def test_an_array_that_cannot_be_computed_is_told_as_such():
    lazy = da.from_array(IMAGE, chunks=(4, 32, 32)).map_blocks(lambda block: block // 0 + {}, dtype="uint8")
    with pytest.raises(BadChunk, match=r"chunk \(0, 0, 0\) of .*dask array.*Look at how this array is computed, and"):
        Tiles(Pyramid((lazy,)), 0).read([(0, 0)])


@pytest.mark.parametrize(("kind", "name"), [("zstd", "image.zarr"), ("gzip", "image.zarr"), ("sharded", "image.zarr")])
def test_a_chunk_of_more_than_two_gigabytes_is_refused_before_it_is_decoded(kind, name, tmp_path):
    side = 30_000
    options = {"dtype": "uint8", **STORED[kind], "chunks": (4, side, side)}
    if kind == "sharded":
        options["shards"] = (4, side, 2 * side)
    array = zarr.create_array(tmp_path / name, shape=(4, 70, 90), **options)
    with pytest.raises(BadInput, match=rf"one chunk of the image, level 0 \(.*{name}\) takes 3.4 GB; at most 2 GB"):
        Tiles(Pyramid((da.from_zarr(array, chunks=(4, 35, 45)),)), 0)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 300, 70_000, 1_000_000])
def test_the_size_that_a_zstd_frame_declares_is_read_from_its_head(size):
    assert zstd_size(zstd.compress(bytes(size), 1)) == size
    assert zstd_size(b"broken") is None
    assert zstd_size(b"\x28\xb5\x2f\xfd\x00\x00") is None  # a stream, of which nobody knew the size
