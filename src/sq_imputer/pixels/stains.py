"""Colors of the stains and of the light behind them, estimated from pixels of tissue."""

from __future__ import annotations

import numpy as np

BRIGHTEST = 99.5  # percentile of a channel that the light behind the tissue has
STAINED = 0.15  # optical density, in the mean over the channels, above which a pixel is stained
FEWEST = 100  # stained pixels, of which stains can be told
EXTREME = 1.0  # percentile of the angles between which the stains lie


def white_point(pixels: np.ndarray) -> np.ndarray:
    """`(3,)` red, green and blue of the light behind the tissue, of pixels `(n, 3)` from 0 to 255."""
    return np.percentile(pixels, BRIGHTEST, axis=0)


def stain_vectors(pixels: np.ndarray, white: np.ndarray) -> np.ndarray | None:
    """Directions of hematoxylin and eosin in optical density, `(2, 3)`, each of length 1; None if little is stained.

    The plane in which optical densities vary most, and in it the two directions that all but the extreme lie between
    (Macenko et al., 2009). Hematoxylin is the one that takes more red.
    """
    density = -np.log((pixels.astype(np.float64) + 1) / (white + 1))
    density = density[density.mean(axis=1) > STAINED]
    if len(density) < FEWEST:
        return None
    found = np.abs(_extremes(density, density.mean(axis=0)))
    return found[np.argsort(-found[:, 0])]


def _extremes(density: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """The directions `(2, 3)`, of length 1, that all but the extreme of densities `(n, 3)` lie between.

    In the plane of largest variance, whose axes point to the side of `toward`.
    """
    _, vectors = np.linalg.eigh(np.cov(density, rowvar=False))
    plane = vectors[:, [2, 1]]
    plane = plane * np.where((toward @ plane) < 0, -1, 1)
    along = density @ plane
    ends = np.percentile(np.arctan2(along[:, 1], along[:, 0]), [EXTREME, 100 - EXTREME])
    found = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def angle_between(one: np.ndarray, other: np.ndarray) -> float:
    """Degrees between two directions."""
    cosine = np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


# The two stains, as directions and as what all but 1 % of a crop stays below, that Path2Space was fitted on.
TARGET = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
TARGET_MOST = np.array([1.9705, 1.0308])
SPARSE = 0.01  # penalty of the amounts
BRIGHT = 95  # percentile of all values of a crop that becomes white


def normalized(crop: np.ndarray) -> np.ndarray:
    """A crop `(3, H, W)` uint8 in one stain, whatever its own: Macenko et al. (2009), as Path2Space was fitted on it.

    Brightness is stretched, the two stain vectors of the crop are found, the amounts of each (not negative, with a
    small penalty) are scaled to the same 99th percentile, and the crop is made anew with the vectors of the target. A
    crop with next to no stain is returned as it is.
    """
    white = max(float(np.percentile(crop, BRIGHT)), 1.0)
    pixels = np.clip(crop * (255.0 / white), 0, 255).astype(np.uint8).reshape(3, -1).T
    density = -np.log(np.maximum(pixels, 1) / 255.0)
    stained = density[(density > STAINED).any(axis=1)]
    if len(stained) < FEWEST:
        return crop
    stains = _extremes(stained, np.array([1.0, 0.0, 0.0]))  # the axes point to more red
    amounts = _amounts(density, stains[np.argsort(-stains[:, 0])])
    most = np.percentile(amounts, 99, axis=0)
    if not (most > 0).all():
        return crop
    made = 255 * np.exp(-(amounts * (TARGET_MOST / most)) @ TARGET)
    return made.T.reshape(crop.shape).astype(np.uint8)


def _amounts(density: np.ndarray, stains: np.ndarray) -> np.ndarray:
    """Amounts `(n, 2)`, not negative, of least squared error with a penalty on their sum.

    In closed form, as they are two: either both are positive, or one is, or none.
    """
    both = stains @ stains.T
    along = density @ stains.T - SPARSE
    together = along @ np.linalg.inv(both)
    alone = np.maximum(along, 0)  # of either, where the other is 0; the vectors have length 1
    first = alone[:, 0] >= alone[:, 1]  # the gain of one alone is half of its square
    single = np.where(np.stack([first, ~first], axis=1), alone, 0)
    return np.where((together >= 0).all(axis=1)[:, None], together, single)
