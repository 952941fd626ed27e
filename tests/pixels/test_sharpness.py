"""What a picture resolves, where it was blurred, blown up, compressed or noisy by a known amount."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from sq_imputer.pixels.sharpness import TRIANGLE, copies, pixels_resolved

TILE = 128


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """`(512, 512)` gray values as sharp as their pixels: nuclei of many sizes have a spectrum without a scale."""
    rng = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None])
    frequency[0, 0] = 1
    waves = frequency**-1.25 * np.exp(2j * np.pi * rng.random(frequency.shape))
    field = np.fft.irfft2(waves, s=(1024, 1024))
    field = 255 / (1 + np.exp(-field / field.std()))  # dark nuclei, bright lumina
    return np.asarray(Image.fromarray(field.astype(np.uint8)).resize((512, 512), Image.Resampling.BILINEAR))


def seen(picture: np.ndarray) -> float:
    """What is measured of the tiles in the middle of a picture."""
    middle = (np.array(picture.shape) - 4 * TILE) // 2
    part = picture[middle[0] : middle[0] + 4 * TILE, middle[1] : middle[1] + 4 * TILE]
    return pixels_resolved(part.reshape(4, TILE, 4, TILE).swapaxes(1, 2).reshape(-1, TILE, TILE))


def enlarged(picture: np.ndarray, times: int, how: str) -> np.ndarray:
    size = (picture.shape[1] * times, picture.shape[0] * times)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling[how]))


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def noisy(picture: np.ndarray, sd: float) -> np.ndarray:
    return (picture + np.random.default_rng(0).normal(0, sd, picture.shape)).round().clip(0, 255)


def test_a_sharp_picture_resolves_its_pixels(tissue):
    assert seen(tissue) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("quality", [90, 70, 50])
def test_compression_alone_is_no_blur(tissue, quality):
    assert seen(compressed(tissue, quality)) < 1.5


@pytest.mark.parametrize("sd", [2, 6])
def test_noise_alone_is_no_blur(tissue, sd):
    assert seen(noisy(tissue, sd)) < 1.25


@pytest.mark.parametrize("times", [2, 4])
@pytest.mark.parametrize("how", ["BILINEAR", "BICUBIC", "LANCZOS", "NEAREST"])
def test_an_enlarged_picture_resolves_no_more(tissue, times, how):
    assert times * 0.9 < seen(enlarged(tissue, times, how)) < times * 1.5


@pytest.mark.parametrize("times", [2, 4])
@pytest.mark.parametrize("change", [lambda x: compressed(x, 80), lambda x: noisy(x, 3)], ids=["jpeg", "noise"])
def test_it_is_found_below_compression_and_noise(tissue, times, change):
    assert times * 0.9 < seen(change(enlarged(tissue, times, "BICUBIC"))) < times * 1.5


@pytest.mark.parametrize("sd", [1.0, 2.0, 3.0])
def test_a_blur_is_told_as_the_pixel_that_blurs_as_much(tissue, sd):
    blurred = gaussian_filter(tissue.astype(float), sd).round()
    assert seen(blurred) == pytest.approx(np.hypot(sd, TRIANGLE) / TRIANGLE, rel=0.15)


def test_copies_are_counted_wherever_tiles_begin(tissue):
    tiles = np.kron(tissue[:80, :80], np.ones((3, 3)))[None]
    assert [copies(tiles[:, k:, k:]) for k in range(3)] == [3, 3, 3]
    assert copies(tissue[None, :128, :128].astype(float)) == 1


def test_what_shows_nothing_is_not_measured():
    assert pixels_resolved(np.full((3, 64, 64), 230)) is None
