"""Categories in pictures: their colors, and the legend that names them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.pl._text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_OF_LEGEND = 20
HOLLOW = "none"


def colors_in(uns: Mapping, name: str, names: Sequence) -> list[str]:
    """The colors in `uns["<name>_colors"]`, a list or a dict by category, if there is one for every name; else none."""
    from matplotlib.colors import is_color_like

    kept = uns.get(f"{name}_colors", [])
    if isinstance(kept, Mapping):
        kept = [kept.get(name, kept.get(str(name))) for name in names]
    kept = [kept] if isinstance(kept, str) else list(kept)
    if len(kept) >= len(names) and all(map(is_color_like, kept)):
        return kept[: len(names)]
    if len(kept):
        warnings.warn(
            f"uns['{name}_colors'] is no color for each of {len(names)} categories; scanpy's colors are taken.",
            UserWarning,
            stacklevel=4,
        )
    return []


def palette(n: int) -> list[str]:
    """Scanpy's colors of `n` categories."""
    from scanpy.plotting import palettes

    several = (palettes.default_20, palettes.default_28, palettes.default_102)
    colors = next((found for found in several if len(found) >= n), palettes.default_102)
    return [colors[k % len(colors)] for k in range(n)]


def legend(ax: Axes, title: str, labels: Sequence[tuple[str, str]]) -> None:
    """Names and colors beside the Axes; the color of what is not filled is `"none"`."""
    from matplotlib.lines import Line2D

    dot = {"linestyle": "", "marker": "o", "markersize": 7, "markeredgewidth": 0.5}
    handles = [
        Line2D([], [], markerfacecolor=color, markeredgecolor="0.45" if color == HOLLOW else color, label=label, **dot)
        for label, color in labels
    ]
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0, "frameon": False}
    n_columns = -(-len(handles) // ROWS_OF_LEGEND)
    ax.legend(handles=handles, title=plain(title), ncols=n_columns, alignment="left", handletextpad=0.2, **place)


def counted(names: Sequence, colors: Sequence[str], codes: np.ndarray, none: str = "none") -> list[tuple[str, str]]:
    """Labels of a legend with the number of rows of each, and their colors; NaN are rows of none."""
    counts = [int((codes == k).sum()) for k in range(len(names))]
    shown = [(f"{plain(name)} ({n})", color) for name, color, n in zip(names, colors, counts, strict=True)]
    missing = int(np.isnan(codes).sum())
    return shown + ([(f"{none} ({missing})", HOLLOW)] if missing else [])
