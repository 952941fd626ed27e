"""Colors of values as arrays, by a table of 256: half a million points are colored in a few milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

NONE = (0.5, 0.5, 0.5, 0.25)  # where there is no value
STEPS = 256


def table(colors: str | Colormap) -> np.ndarray:
    """`(256, 4)` float32 colors of a color map, and one more of what has no value."""
    import matplotlib

    found = matplotlib.colormaps[colors] if isinstance(colors, str) else colors
    return np.vstack([found(np.linspace(0, 1, STEPS)), NONE]).astype(np.float32)


def rgba(values: np.ndarray, colors: str | Colormap, limits: tuple[float, float]) -> np.ndarray:
    """`(n, 4)` float32 colors of values between two limits; those beyond have the color of the limit."""
    low, high = limits
    values = np.asarray(values, dtype=float)
    known = np.isfinite(values)
    share = np.clip((np.where(known, values, low) - low) / (high - low), 0, 1)
    return table(colors)[np.where(known, np.rint(share * (STEPS - 1)).astype(int), STEPS)]
