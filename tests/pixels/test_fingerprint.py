from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from sq_imputer.pixels import fingerprint as module
from sq_imputer.pixels.fingerprint import GRID, SIDE, fingerprint, remembered
from sq_imputer.pixels.pyramid import Pyramid


def drawn(height=900, width=1100, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def levels(pixels, chunk=256) -> tuple[da.Array, ...]:
    coarse = pixels[:, : pixels.shape[1] // 4 * 4, : pixels.shape[2] // 4 * 4]
    coarse = coarse.reshape(3, coarse.shape[1] // 4, 4, -1, 4).mean(axis=(2, 4)).astype(np.uint8)
    return tuple(da.from_array(level, chunks=(3, chunk, chunk)) for level in (pixels, coarse))


def of(arrays, channels=(0, 1, 2)) -> str:
    return fingerprint(arrays, channels)


def test_it_is_of_the_pixels_and_not_of_their_chunks():
    pixels = drawn()
    assert of(levels(pixels)) == of(levels(pixels.copy(), chunk=200))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p[:, :, ::-1],
        lambda p: np.roll(p, 1, axis=2),
        lambda p: (p * 0.98).astype(np.uint8),
        lambda p: p[::-1],
        lambda p: p[:, :-4],
    ],
    ids=["mirrored", "shifted", "dimmed", "channels", "cropped"],
)
def test_other_pixels_have_another(change):
    pixels = drawn()
    assert of(levels(pixels)) != of(levels(np.ascontiguousarray(change(pixels))))


def test_a_change_anywhere_shows_in_a_coarsest_level_that_is_read_as_a_whole():
    pixels = drawn()
    repainted = pixels.copy()
    repainted[:, 3:11, 5:13] = 255
    assert of(levels(pixels)) != of(levels(repainted))


def test_channels_that_are_not_seen_do_not_count():
    pixels = drawn()
    other = pixels.copy()
    other[2] = 0
    assert of(levels(pixels), (0, 1)) == of(levels(other), (0, 1)) != of(levels(other), (1, 0))


def test_of_a_large_image_a_few_chunks_are_read_once(monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 1000)
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.full((3, 100, 100), len(read) % 200, np.uint8)

    image = da.map_blocks(
        block, chunks=((3,), (100,) * 40, (100,) * 40), dtype=np.uint8, meta=np.empty((0, 0, 0), "u1")
    )
    fingerprint((image,), (0, 1, 2))
    assert len(read) == len(set(read)) <= GRID**2 * 4 < 1600 and SIDE < 100


def test_what_cannot_be_read_is_no_error():
    def block(block_info=None):
        raise OSError("bad disk")

    image = da.map_blocks(block, chunks=((3,), (100,), (100,)), dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))
    assert of((image,)) == of((image,)) != of((da.zeros((3, 100, 100), dtype=np.uint8),))


def test_a_pyramid_reads_its_own_once(monkeypatch):
    from sq_imputer.pixels import pyramid

    calls = []
    monkeypatch.setattr(pyramid, "fingerprint", lambda *a: calls.append(a) or "f")
    image = Pyramid(levels(drawn()))
    assert image.fingerprint == image.fingerprint == "f" and len(calls) == 1


def test_what_is_remembered_is_found_once_until_there_are_too_many():
    found, asked = {}, []
    for key in (1, 1, 2, 1, 3, 1):
        assert remembered(found, 2, key, lambda key=key: asked.append(key) or 10 * key) == 10 * key
    assert asked == [1, 2, 3, 1] and found == {3: 30, 1: 10}
