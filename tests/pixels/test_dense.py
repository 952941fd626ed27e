from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sq_imputer.contract import CropSpec
from sq_imputer.encoders import get_encoder
from sq_imputer.errors import BadInput
from sq_imputer.pixels.dense import STRIDES, Dense
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.features import compute

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 320, 448
IMAGE = gaussian_filter(RNG.uniform(0, 255, (3, HEIGHT, WIDTH)), (0, 1.5, 1.5))
IMAGE = np.clip(4 * (IMAGE - IMAGE.mean()) + 150, 0, 255).astype(np.uint8)
CENTERS = np.concatenate([RNG.uniform((0, 0), (WIDTH, HEIGHT), (12, 2)), [[0, 0], [WIDTH, HEIGHT], [224, 160]]])
SPEC = CropSpec(64, 64)


def pyramid(image=IMAGE, chunk=100):
    return Pyramid((da.from_array(np.ascontiguousarray(image), chunks=(3, chunk, chunk)),))


def features(spec=SPEC, *, image=IMAGE, centers=CENTERS, mpp=1.0, stride=None, chunk=100, swap=False):
    encoder = get_encoder("texture")
    known = {"mpp": mpp, "block": encoder.block, "halo": encoder.halo, "stride": stride, "swap": swap}
    return compute(Dense(pyramid(image, chunk), centers, spec, **known), encoder, device="cpu")


def apart(found, expected):
    """Largest difference in standard deviations of the feature."""
    return (np.abs(found - expected) / np.maximum(expected.std(axis=0), 1e-3)).max()


@pytest.mark.parametrize("spec", [CropSpec(48.3, 40), CropSpec(150, 64)])
def test_the_size_of_blocks_changes_nothing(spec):
    alone = features(spec, stride=32)
    assert all(apart(features(spec, stride=stride), alone) < 1e-3 for stride in (None, 512))


def test_neither_do_the_other_rows_nor_the_chunks():
    assert apart(features()[5:8], features(centers=CENTERS[5:8])) < 1e-3
    assert apart(features(chunk=64), features()) < 1e-3


@pytest.mark.parametrize("spec", [CropSpec(64, 64), CropSpec(100, 64)])
def test_a_mirrored_and_a_turned_image_have_the_same_features(spec):
    expected = features(spec)
    mirrored = features(spec, image=IMAGE[:, :, ::-1], centers=[WIDTH, 0] + CENTERS * [-1, 1])
    turned = features(spec, image=IMAGE.transpose(0, 2, 1), centers=CENTERS[:, ::-1], swap=True)
    assert apart(mirrored, expected) < 1e-3 and apart(turned, expected) < 1e-3
    assert apart(features(spec, centers=CENTERS + 8), expected) > 0.1  # places are told apart


def test_features_move_with_the_place_and_do_not_jump():
    expected = features()
    assert apart(features(centers=CENTERS + 1e-4), expected) < 1e-3


def test_an_image_that_is_coarser_is_blown_up_four_times_at_most():
    centers = CENTERS[:4]
    blown = features(CropSpec(64, 1000), centers=centers)
    assert apart(blown, features(CropSpec(64, 256), centers=centers)) < 1e-3
    assert apart(features(CropSpec(64, 75), centers=centers), features(CropSpec(64, 64), centers=centers)) < 1e-3
    assert apart(blown, features(CropSpec(64, 128), centers=centers)) > 0.1


@pytest.mark.parametrize("value", [0, 255])
def test_windows_on_an_image_of_one_color_are_finite_and_alike(value):
    values = features(image=np.full_like(IMAGE, value), centers=RNG.uniform(110, 200, (40, 2)), stride=512)
    assert np.isfinite(values).all() and np.ptp(values, axis=0).max() < 1e-3


def test_windows_on_whole_pixels_hold_what_the_image_holds():
    dense = Dense(pyramid(), CENTERS[-1:], CropSpec(64, 64), mpp=1.0, block=32, halo=32)
    [part] = dense.batches(np.array([0]))
    (y, x), side = part.low[0].astype(int), 64
    np.testing.assert_array_equal(part.pixels[0, :, y : y + side, x : x + side], IMAGE[:, 128:192, 192:256])


def test_blocks_grow_with_the_density_of_the_windows():
    near = RNG.uniform(100, 200, (500, 2))
    known = {"mpp": 1.0, "block": 32, "halo": 32}
    few = Dense(pyramid(), CENTERS[:1], CropSpec(64, 64), **known)
    many = Dense(pyramid(), near, CropSpec(64, 64), **known)
    assert few.stride == STRIDES[0] < many.stride
    assert many.described < 500 * few.described / 20


def test_portions_are_of_whole_blocks_and_hold_every_row_once():
    dense = Dense(pyramid(), CENTERS, CropSpec(64, 64), mpp=1.0, block=32, halo=32, stride=32)
    portions = dense.groups(3)
    assert sorted(np.concatenate(portions)) == list(range(len(CENTERS)))
    assert all(len(portion) >= 3 for portion in portions[:-1])


def test_a_damaged_chunk_names_rows_that_need_it():
    def broken(block):
        raise OSError("torn")

    image = da.concatenate(
        [pyramid().levels[0][:, :, :400], da.zeros((3, HEIGHT, 48), dtype=np.uint8, chunks=-1)], axis=2
    )
    image = da.map_blocks(
        lambda part, block_info=None: broken(part) if block_info[0]["chunk-location"][2] == 4 else part,
        image,
        dtype=np.uint8,
    )
    centers, names = np.array([[50.0, 50], [430, 50]]), np.array(["left", "right"], dtype=object)
    dense = Dense(Pyramid((image,)), centers, CropSpec(32, 32), mpp=1.0, block=32, halo=32, stride=32, names=names)
    with pytest.raises(BadInput, match="1 of 2 rows need it: 'right'"):
        compute(dense, get_encoder("texture"), device="cpu")


def test_what_a_journal_has_is_not_computed_again(tmp_path):
    from sq_imputer.store.journal import Journal, Part

    encoder = get_encoder("texture")
    dense = Dense(pyramid(), CENTERS, CropSpec(64, 64), mpp=1.0, block=32, halo=32)
    with Journal(tmp_path / "journal", {"of": "a test"}) as journal:
        first = compute(dense, encoder, journal=Part(journal, "A"), device="cpu")
        encoder.maps = None  # would fail
        np.testing.assert_array_equal(compute(dense, encoder, journal=Part(journal, "A"), device="cpu"), first)
    assert torch.isfinite(torch.from_numpy(first)).all()
