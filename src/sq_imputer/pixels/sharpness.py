"""How fine a picture truly is: the pixel that holds all that it resolves, measured from its spectrum."""

from __future__ import annotations

import numpy as np

LONGEST, BINS = 6, 28  # waves along a tile, of the longest looked at; bins of frequencies up to half a wave per pixel
SLOPE = (2.5, 0.15)  # power of sharp tissue falls with the frequency by this exponent, give or take
TRIANGLE = 6**-0.5  # standard deviation, in new pixels, of the filter by which crops are resampled
BLURS = (0.1, 12.0)  # standard deviations of a blur that are told apart, in pixels
STARTS = (0.3, 0.8, 2.0, 5.0)
FLOOR = -25.0  # log power of what is nothing
BLOCK = 8
BLANK = 0.25  # variance, in gray values of 8 bits, below which a tile shows nothing
LEAST = 32  # pixels along a tile that has a spectrum to speak of
COPIES, COPIED = 8, 0.3  # most pixels that are copies of one; change between them, to that between others


def pixels_resolved(tiles: np.ndarray) -> float | None:
    """Side of the pixel that holds all that tiles resolve, in pixels: 1 if they are as sharp as their pixels.

    The power of sharp tissue falls with the frequency by a law without a scale. What was blurred or blown up falls off
    it as a Gaussian does, into a floor of noise, or of what a compression leaves. The three are fitted to the spectrum,
    and the blur is said as the pixel to which resampling blurs as much. Pixels that are copies of each other are
    counted first.

    Parameters
    ----------
    tiles
        `(n, S, S)` gray values from 0 to 255, of tissue; of less than 33 pixels a side only copies are counted.

    Returns
    -------
    The side, or None if no tile shows anything.
    """
    tiles = np.asarray(tiles, dtype=np.float64)
    tiles = tiles[tiles.var(axis=(1, 2)) > BLANK]
    if not len(tiles):
        return None
    times = copies(tiles)
    if tiles.shape[-1] < (LEAST + 1) * times:
        return float(times)
    first = [_edge(tile, times) for tile in tiles]
    side = (tiles.shape[-1] - times) // times
    tiles = np.stack([tile[y::times, x::times][:side, :side] for tile, (y, x) in zip(tiles, first, strict=True)])
    return times * max(1.0, _blur(*spectrum(tiles)) / TRIANGLE)


def copies(tiles: np.ndarray) -> int:
    """How often every pixel of tiles `(n, S, S)` is repeated along an axis, as nearest-neighbor enlargement does."""
    found = 1
    for times in range(2, COPIES + 1):
        phases = np.sort([_changes(tile, times) for tile in tiles], axis=1)
        if (phases[:, -2] < COPIED * phases[:, -1]).mean() > 0.5:
            found = times
    return found


def blocks(tiles: np.ndarray, corners: np.ndarray) -> float:
    """How far the edges of the blocks of 8 pixels that JPEG codes stand out: 0 where nothing was compressed.

    Parameters
    ----------
    tiles
        `(n, S, S)` gray values.
    corners
        `(n, 2)` where they begin in the picture, as (y, x).
    """
    aligned = [np.roll(_changes(tile, BLOCK), x % BLOCK) for tile, (_, x) in zip(tiles, corners, strict=True)]
    change = np.mean(aligned, axis=0)
    return float(max(0.0, change.max() / (np.median(change) + 1e-6) - 1))


def _changes(tile: np.ndarray, times: int, axis: int = 1) -> np.ndarray:
    """Mean change from pixel to pixel, `(times,)` by where the pixel lies in its group."""
    change = np.abs(np.diff(tile, axis=axis)).mean(axis=1 - axis)
    return np.array([change[phase::times].mean() for phase in range(times)])


def _edge(tile: np.ndarray, times: int) -> tuple[int, int]:
    """First row and column of the first whole group of copies."""
    if times == 1:
        return 0, 0
    return tuple(int(_changes(tile, times, axis).argmax() + 1) % times for axis in (0, 1))


def spectrum(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (waves per pixel) and the logarithm of the power at them, over all directions.

    The mean over tiles is of logarithms, so that a fold or a pen stroke is one tile among others. Waves along the axes
    are left out: there lie the edges of the blocks of JPEG.
    """
    size = tiles.shape[-1]
    window = np.outer(*[np.hanning(size + 2)[1:-1]] * 2)
    waves = np.fft.rfft2((tiles - tiles.mean(axis=(1, 2), keepdims=True)) * window)
    power = np.abs(waves) ** 2 / (window**2).sum()
    y, x = np.abs(np.fft.fftfreq(size))[:, None] * size, np.fft.rfftfreq(size)[None] * size
    ring = np.rint(np.hypot(y, x)).astype(int)
    kept = (ring <= size // 2) & (np.minimum(y, x) > 1.5)
    count = np.maximum(np.bincount(ring[kept]), 1)
    rings = np.log([np.bincount(ring[kept], one[kept]) / count + 1e-9 for one in power]).mean(axis=0)
    number = np.arange(len(rings))
    edges = np.geomspace(min(LONGEST, size // 8), size // 2, BINS + 1).round(6)
    bins = [(low <= number) & (number <= high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    bins = [one for one in bins if one.any()]
    return np.array([number[one].mean() for one in bins]) / size, np.array([rings[one].mean() for one in bins])


def _blur(frequency: np.ndarray, power: np.ndarray) -> float:
    """Standard deviation, in pixels, of the blur that a spectrum shows."""
    from scipy.optimize import least_squares

    usual, give = SLOPE

    def off(law: np.ndarray) -> np.ndarray:
        level, slope, blur, floor = law
        signal = level - slope * np.log(frequency) - (2 * np.pi * np.exp(blur) * frequency) ** 2
        return np.append(np.logaddexp(signal, floor) - power, (slope - usual) / give)

    low, high = ([-np.inf, 0.5, np.log(BLURS[0]), FLOOR], [np.inf, 5.0, np.log(BLURS[1]), np.inf])
    level = power[0] + usual * np.log(frequency[0])
    starts = ([level, usual, np.log(blur), max(power.min(), FLOOR + 1)] for blur in STARTS)
    fits = [least_squares(off, start, bounds=(low, high)) for start in starts]
    return float(np.exp(min(fits, key=lambda fit: fit.cost).x[2]))
