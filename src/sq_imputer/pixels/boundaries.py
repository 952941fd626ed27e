"""Boundaries in H&E, as pictures: edges by differences of pixels, and nuclei by color, blobs and distance.

Both look at no more than `REACH_UM` around a pixel, so that a section can be described piece by piece.
"""

from __future__ import annotations

import numpy as np

REACH_UM = 45.0
RADII_UM = (1.2, 2.4, 4.8)  # of the opposite pixels whose differences are taken: three scales
EDGE = 12.0  # gray values between opposite pixels, of 255, that are half of an edge
BLUR_UM = 0.8  # of chromatin, within a nucleus
AROUND_UM = 30.0  # side of the square whose mean hematoxylin is a nucleus' background
NUCLEUS_UM = 3.0  # radius of the blobs that are looked for
SEED_UM = 2.5  # how near to each other two nuclei can lie
LEAST_UM2 = 8.0  # area of a nucleus
FAR_UM = 10.0  # signed distances are told up to here
_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))  # (y, x): halves of a turn, by 45 degrees


def edges(image: np.ndarray, mpp: float) -> np.ndarray:
    """How much of an edge every pixel is, 0 to 1, thinned to ridges.

    Opposite pixels at three radii are subtracted in four directions (central pixel differences, of the luminance); of
    the gradient they give, only what is largest across the edge is left; the largest of the three scales counts. What
    is added to all pixels changes nothing.

    Parameters
    ----------
    image
        `(3, H, W)` uint8.
    mpp
        µm per pixel.

    Returns
    -------
    `(H, W)` float32.
    """
    from scipy.ndimage import gaussian_filter

    light = np.tensordot(np.float32([0.299, 0.587, 0.114]), image.astype(np.float32), axes=1)
    found = np.zeros_like(light)
    for radius_um in RADII_UM:
        radius = max(1, round(radius_um / mpp))
        smooth = gaussian_filter(light, radius / 2, truncate=3, mode="nearest")
        size, direction = _gradient(smooth, radius)
        ridge = _thinned(size, direction)
        np.maximum(found, ridge / (ridge + EDGE), out=found)
    return found


def _gradient(light: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Size of the gradient between opposite pixels, and in which of the four directions it is largest."""
    padded = np.pad(light, radius, mode="edge")
    height, width = light.shape
    found = []
    for dy, dx in _DIRECTIONS:
        step = radius if 0 in (dy, dx) else max(1, round(radius * 0.7071))
        ends = [padded[radius + s * dy * step :, radius + s * dx * step :][:height, :width] for s in (1, -1)]
        found.append(np.abs(ends[0] - ends[1]))
    size = np.stack(found)
    direction = size.argmax(axis=0)
    return size.max(axis=0), direction


def _thinned(size: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Gradients that are the largest along their own direction; 0 elsewhere."""
    padded = np.pad(size, 1, mode="edge")
    height, width = size.shape
    found = np.zeros_like(size)
    for k, (dy, dx) in enumerate(_DIRECTIONS):
        ahead, behind = (padded[1 + s * dy :, 1 + s * dx :][:height, :width] for s in (1, -1))
        peak = (direction == k) & (size >= ahead) & (size > behind)
        found[peak] = size[peak]
    return found


def blobs(image: np.ndarray, mpp: float) -> np.ndarray:
    """How much more hematoxylin every pixel has than what lies around, as far as it is as wide as a nucleus.

    Colors are taken apart by the stain vectors of Ruifrok and Johnston (2001); what is left of hematoxylin above the
    mean around it is added to its Laplacian of a Gaussian.

    Parameters
    ----------
    image
        `(3, H, W)` uint8.
    mpp
        µm per pixel.

    Returns
    -------
    `(H, W)` float32, in optical density.
    """
    from scipy.ndimage import gaussian_filter, gaussian_laplace, uniform_filter
    from skimage.color import rgb2hed

    stain = np.clip(rgb2hed(np.moveaxis(image, 0, -1))[..., 0], 0, None).astype(np.float32)
    stain = gaussian_filter(stain, max(BLUR_UM / mpp, 0.3), truncate=3, mode="nearest")
    sigma = max(NUCLEUS_UM / mpp / 2**0.5, 0.7)
    blob = -(sigma**2) * gaussian_laplace(stain, sigma, truncate=3, mode="nearest")
    around = uniform_filter(stain, 2 * round(AROUND_UM / mpp / 2) + 1, mode="nearest")
    return (stain - around) + blob


def threshold(samples: list[np.ndarray]) -> float:
    """Otsu's threshold of blobs of some pieces of a section: one for all of its pieces. Infinite if they are flat."""
    from skimage.filters import threshold_otsu

    values = np.concatenate([piece.ravel()[::7] for piece in samples])
    return float(threshold_otsu(values)) if np.ptp(values) > 1e-3 else float("inf")


def nuclei(blob: np.ndarray, level: float, mpp: float) -> np.ndarray:
    """Nuclei, numbered from 1: what is above a level, divided by a watershed from where it is deepest.

    Parameters
    ----------
    blob
        Of :func:`blobs`.
    level
        Of :func:`threshold`.
    mpp
        µm per pixel.

    Returns
    -------
    `(H, W)` int32, 0 where there is none.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter, label, maximum_filter
    from skimage.segmentation import watershed

    inside = blob > level
    depth = gaussian_filter(distance_transform_edt(inside).astype(np.float32), max(0.5 / mpp, 0.5), truncate=3)
    peak = (depth == maximum_filter(depth, 2 * max(1, round(SEED_UM / mpp)) + 1)) & inside
    seeds, _ = label(peak, structure=np.ones((3, 3)))
    found = watershed(-depth, seeds, mask=inside)
    area = np.bincount(found.ravel()) * mpp**2
    kept = area >= LEAST_UM2
    kept[0] = False
    return (np.cumsum(kept) * kept)[found].astype(np.int32)


def rendered(labels: np.ndarray, mpp: float) -> np.ndarray:
    """Nuclei as three pictures `(3, H, W)` float32 from 0 to 1: what they cover, their borders, and the distance.

    The distance to the nearest border is above one half inside, and 0 or 1 from 10 µm on.
    """
    from scipy.ndimage import distance_transform_edt

    inside = labels > 0
    border = np.zeros_like(inside)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        along = np.moveaxis(border, axis, 0)  # a view
        along[:-1] |= np.moveaxis(differs, axis, 0)
        along[1:] |= np.moveaxis(differs, axis, 0)
    border &= inside
    if not inside.any():
        return np.zeros((3, *labels.shape), dtype=np.float32)
    deep = distance_transform_edt(inside & ~border) + 0.5 * inside
    signed = np.where(inside, deep, -distance_transform_edt(~inside)) * mpp
    distance = np.clip(signed / FAR_UM, -1, 1) / 2 + 0.5
    return np.stack([inside, border, distance]).astype(np.float32)
