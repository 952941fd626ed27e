from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.blocks import block_crops, whole_blocks
from sq_imputer.section.frame import Frame
from sq_imputer.section.pixel_size import PixelSize

SPEC = CropSpec(extent_um=16, size_px=16)


@pytest.fixture(scope="module")
def frame() -> Frame:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 300, 260), dtype=np.uint8)
    pyramid = Pyramid((da.from_array(pixels, chunks=(3, 64, 64)),))
    return Frame(pyramid, PixelSize(1.0, "argument"), np.eye(3), "global")


@pytest.fixture(scope="module")
def centers() -> np.ndarray:
    return np.random.default_rng(1).uniform([30, 30], [230, 270], (25, 2))


def test_the_crops_of_a_block_adjoin_around_the_middle_one(frame, centers) -> None:
    block = block_crops(frame, centers[:1], SPEC, 3)[:]
    wide = frame.crops(centers[:1], CropSpec(extent_um=48, size_px=48))[0]
    rows = [np.concatenate(list(block[3 * row : 3 * row + 3]), axis=2) for row in range(3)]
    np.testing.assert_array_equal(np.concatenate(rows, axis=1), wide)


def test_a_block_follows_the_axes_of_the_coordinate_system(frame, centers) -> None:
    flipped = Frame(frame.pyramid, frame.pixel, np.array([[-1.0, 0, 260], [0, 1, 0], [0, 0, 1]]), "flipped")
    plain, turned = (block_crops(f, centers[:1], SPEC, 3)[:] for f in (frame, flipped))
    np.testing.assert_array_equal(turned[[0, 3, 8]], plain[[2, 5, 6]][..., ::-1])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_row_comes_once_and_whole(frame, centers, batch_size, seed) -> None:
    crops = block_crops(frame, centers, SPEC, 3)
    rows = np.array([20, 3, 4, 11, 0])
    generator = None if seed is None else np.random.default_rng(seed)
    batches = list(whole_blocks(crops, 3, batch_size, rows=rows, generator=generator))
    assert sorted(np.concatenate([index for index, _ in batches]).tolist()) == sorted(rows.tolist())
    assert max(len(index) for index, _ in batches) <= batch_size
    for index, blocks in batches:
        for row, block in zip(index, blocks, strict=True):
            np.testing.assert_array_equal(block, crops[row * 9 : row * 9 + 9])


def test_small_batches_read_no_chunk_twice(frame, centers) -> None:
    crops = block_crops(frame, centers, SPEC, 3)
    list(whole_blocks(crops, 3, 2, rows=np.arange(len(centers))))
    assert crops.decodes == crops.n_chunks


def test_an_error_names_rows_and_not_the_crops_of_their_blocks(centers) -> None:
    pixels = np.zeros((3, 300, 260), np.float32)
    pixels[0, 60, 60] = np.nan
    broken = Frame(Pyramid((da.from_array(pixels, chunks=(3, 64, 64)),)), PixelSize(1.0, "argument"), np.eye(3), "g")
    crops = block_crops(broken, np.array([[60.0, 60], [200, 200]]), SPEC, 3, np.array(["s1", "s2"], dtype=object))
    with pytest.raises(BadInput, match=r"1 of 2 rows need it: 's1'\.$"):
        crops.check()
