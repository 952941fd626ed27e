from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

from sq_imputer.errors import BadInput
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.pixels.straight import WINDOW, _Sampler, straight


def lazy(pixels: np.ndarray, chunk: int = 256) -> da.Array:
    return da.from_array(pixels, chunks=(3, chunk, chunk))


def matrix(linear, shift=(0.0, 0.0)) -> np.ndarray:
    out = np.eye(3)
    out[:2, :2], out[:2, 2] = linear, shift
    return out


def checker(n: int) -> np.ndarray:
    return np.repeat((np.indices((n, n)).sum(axis=0) % 2 * 255).astype(np.uint8)[None], 3, axis=0)


def test_the_same_grid_is_the_same_image_and_beyond_it_is_white():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 300, 400), dtype=np.uint8)
    seen = straight(Pyramid((lazy(pixels),)), matrix(np.eye(2), (-3, 5)), (310, 420)).compute()
    np.testing.assert_array_equal(seen[:, :295, 3:403], pixels[:, 5:])
    assert (seen[:, 296:] == 255).all() and (seen[:, :, :2] == 255).all() and (seen[:, :, 404:] == 255).all()


def test_whole_factors_are_means_of_what_a_pixel_covers():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 320, 480), dtype=np.uint8)
    seen = straight(Pyramid((lazy(pixels),)), matrix(np.diag([4, 4])), (80, 120)).compute().astype(float)
    means = pixels.reshape(3, 80, 4, 120, 4).mean(axis=(2, 4))
    assert np.abs(seen - means).max() <= 0.5


def test_an_axis_that_keeps_its_pixels_is_not_blurred():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 100, 200), dtype=np.uint8)
    seen = straight(Pyramid((lazy(pixels),)), matrix(np.diag([2, 1])), (100, 100)).compute().astype(float)
    assert np.abs(seen - pixels.reshape(3, 100, 100, 2).mean(axis=3)).max() <= 0.5


@pytest.mark.parametrize(
    "linear", [np.diag([1.5, 1.5]), np.diag([1.0, 2.7]), [[3.1, 0.6], [-0.4, 5.2]], np.diag([9, 9])]
)
def test_a_fine_checker_becomes_gray_and_makes_no_pattern(linear):
    pixels = checker(600)
    wide = (590 / np.abs(linear).sum(axis=0)).astype(int)
    seen = straight(Pyramid((lazy(pixels),)), matrix(linear, (200.3, 5.7)), tuple(wide[::-1].tolist())).compute()
    inside = seen[0, 2:40, 2:30].astype(float)
    assert abs(inside.mean() - 127.5) < 1.5
    whole = inside[:36, :28].reshape(9, 4, 7, 4).mean(axis=(1, 3))  # what a coarser look would take for tissue
    assert whole.std() < 8


def test_blocks_know_nothing_of_each_other_and_read_what_they_show():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1500, 1500), dtype=np.uint8)
    read = []

    def note(block, block_info=None):
        read.append(block_info[None]["chunk-location"][1:])
        return block

    source = lazy(pixels).map_blocks(note, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    whole = straight(Pyramid((source,)), matrix([[0.7, 0.1], [0.0, 1.0]]), (1500, 2000))
    assert whole.chunks == ((3,), (1024, 476), (1024, 976)) and not read
    corner = whole[:, 1400:, :100].compute(scheduler="synchronous")
    assert set(read) == {(i, j) for i in (3, 4, 5) for j in range(4)}  # of rows from 1024 on, columns to 820
    np.testing.assert_array_equal(corner, whole.compute(scheduler="synchronous")[:, 1400:, :100])


def test_one_token_for_one_image_on_one_grid():
    pixels = lazy(np.zeros((3, 64, 64), np.uint8))
    names = {straight(Pyramid((pixels,)), matrix(np.diag([k, 1.0])), (32, 32)).name for k in (1, 1, 2)}
    assert len(names) == 2


def test_a_window_is_bounded_however_coarse_the_new_pixels_are():
    fine = da.zeros((3, 60_000, 60_000), dtype=np.uint8, chunks=(3, 1024, 1024))
    for factor in (1, 8, 100):
        sampler = _Sampler(Pyramid((fine,)), matrix(np.diag([factor, 2.5 * factor])))
        assert sampler.part * 2.5 * factor <= WINDOW and sampler.part * sampler.samples.max() <= WINDOW


def test_coarse_pixels_are_read_from_a_coarse_level():
    levels = tuple(da.zeros((3, n, n), dtype=np.uint8, chunks=(3, 256, 256)) for n in (1024, 512, 256))
    found = [_Sampler(Pyramid(levels), matrix(np.diag(sides))).level for sides in ([1, 1], [2, 1.9], [2, 4], [4, 9])]
    assert found == [0, 0, 1, 2]


def test_a_damaged_chunk_is_named():
    def broken(block):
        raise OSError("damaged")

    source = lazy(np.zeros((3, 64, 64), np.uint8)).map_blocks(
        broken, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    seen = straight(Pyramid((source,), name="image 'he'"), matrix(np.eye(2)), (64, 64))
    with pytest.raises(BadInput, match="image 'he', level 0.*damaged"), dask.config.set(scheduler="synchronous"):
        seen.compute()
