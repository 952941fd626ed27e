"""Tissue of a known shape, and where the pixels of a picture of it lie."""

from __future__ import annotations

import numpy as np

GLASS, PINK = (240, 235, 240), (180, 90, 150)


def disc(x, y):
    return np.hypot(x - 900, y - 500) < 300


def centers(shape, extent) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a picture lie, in µm."""
    left, right, bottom, top = extent
    x = left + (np.arange(shape[1]) + 0.5) * (right - left) / shape[1]
    y = top + (np.arange(shape[0]) + 0.5) * (bottom - top) / shape[0]
    return np.meshgrid(x, y)


PLACES = {"as drawn": {}, "mirrored": {"flip": True}, "turned by 90": {"angle": 90}, "turned by 30": {"angle": 30}}
