from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap

from sq_imputer.widget._colors import NONE, rgba


def test_colors_are_those_of_matplotlib_and_what_is_missing_is_gray():
    values = np.array([-1.0, 0.0, 0.25, 1.0, 3.0, np.nan])
    found = rgba(values, "viridis", (0.0, 1.0))
    expected = matplotlib.colormaps["viridis"](np.clip(values[:5], 0, 1))
    np.testing.assert_allclose(found[:5], expected, atol=0.01)
    np.testing.assert_allclose(found[5], NONE)
    assert found.dtype == np.float32


def test_categories_keep_their_colors():
    colors = [(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)]
    np.testing.assert_allclose(rgba(np.arange(3), ListedColormap(colors), (-0.5, 2.5)), colors)
