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
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]
    plane = plane * np.where((density.mean(axis=0) @ plane) < 0, -1, 1)
    along = density @ plane
    angle = np.arctan2(along[:, 1], along[:, 0])
    ends = np.percentile(angle, [EXTREME, 100 - EXTREME])
    found = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T
    found = np.abs(found) / np.linalg.norm(found, axis=1, keepdims=True)
    return found[np.argsort(-found[:, 0])]


def angle_between(one: np.ndarray, other: np.ndarray) -> float:
    """Degrees between two directions."""
    cosine = np.dot(one, other) / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
