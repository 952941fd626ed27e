"""What scans are like, side by side: what they resolve, their light and stains, tissue and compression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, check_frame, listed
from sq_imputer.pl import _panels
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

PANELS = 3
CHANNELS = ("red", "green", "blue")
COLORS = ("white", "hematoxylin", "eosin")
SHADE = 0.7  # optical density at which a stain is shown


@verb
def quality(table: DataFrame, *, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Draw a row per section: pixel and what is resolved, the colors of light and stains, tissue and compression.

    Parameters
    ----------
    table
        As :func:`sq_imputer.pp.quality` returns it.
    axes
        Three Axes to draw on; a new figure if not given.

    Returns
    -------
    The three Axes.

    Raises
    ------
    MissingKey
        If the table lacks a column.
    BadInput
        If there are other than three Axes.

    Examples
    --------
    >>> axes = sqi.pl.quality(sqi.pp.quality(sections))
    """
    import matplotlib.pyplot as plt

    check_frame(table, "pp.quality")
    needed = ["section", "mpp", "resolved_mpp", "tissue", "blocks"]
    needed += [f"{name}_{channel}" for name in COLORS for channel in CHANNELS]
    lost = [name for name in needed if name not in table]
    if lost:
        raise MissingKey(f"no column {listed(lost)}; expected a table of pp.quality.")
    if axes is None:
        axes = plt.subplots(1, PANELS, figsize=(9, 1.3 + 0.32 * len(table)), sharey=True, layout="constrained")[1]
    axes = _panels.in_a_row(axes, PANELS)
    rows = np.arange(len(table))
    _draw_sizes(axes[0], table, rows)
    _draw_colors(axes[1], table, rows)
    _draw_shares(axes[2], table, rows)
    axes[0].set_yticks(rows, [plain(name) for name in table["section"]])
    axes[0].set_ylim(len(table) - 0.5, -0.5)
    for ax in axes[1:]:
        ax.set_ylim(len(table) - 0.5, -0.5)
        ax.tick_params(axis="y", left=False, labelleft=False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return axes


def _draw_sizes(ax: Axes, table: DataFrame, rows: np.ndarray) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    ax.hlines(rows, table["mpp"], table["resolved_mpp"], color="0.7", linewidth=2, zorder=1)
    ax.plot(table["mpp"], rows, "|", color="0.3", markersize=11, label="pixel")
    ax.plot(table["resolved_mpp"], rows, "o", color="#0072B2", label="resolved")
    ax.set_xscale("log", base=2)
    low, high = table["mpp"].min(), table["resolved_mpp"].max()
    ax.set_xlim(low / 1.6, high * 1.6)
    ax.xaxis.set_major_locator(LogLocator(base=2))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("µm per pixel")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, borderaxespad=0)


def _draw_colors(ax: Axes, table: DataFrame, rows: np.ndarray) -> None:
    for column, name in enumerate(COLORS):
        seen = table[[f"{name}_{channel}" for channel in CHANNELS]].to_numpy(dtype=float)
        seen = seen / 255 if name == "white" else 10 ** (-SHADE * seen)
        for row, color in zip(rows, seen, strict=True):
            known = np.isfinite(color).all()
            face = tuple(np.clip(color, 0, 1)) if known else "none"
            ax.bar(column, 0.8, width=0.9, bottom=row - 0.4, color=face, edgecolor="0.6", linewidth=0.5)
            if not known:
                ax.text(column, row, "–", ha="center", va="center", color="0.4")
    ax.set_xticks(range(len(COLORS)), COLORS, fontsize=8)
    ax.set_xlim(-0.6, len(COLORS) - 0.4)


def _draw_shares(ax: Axes, table: DataFrame, rows: np.ndarray) -> None:
    ax.barh(rows - 0.2, table["tissue"], height=0.36, color="#CC79A7", label="tissue, share of the image")
    ax.barh(rows + 0.2, table["blocks"], height=0.36, color="0.6", label="edges of blocks (JPEG)")
    ax.set_xlim(0, max(1.0, float(np.nanmax(table["blocks"])) * 1.05))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, frameon=False, fontsize=8, borderaxespad=0)
