"""How well the image tells expression when the shapes are shifted over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.pl import _panels
from sq_imputer.pl._text import plain
from sq_imputer.runs.alignment import OFF, Alignment
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 3
HERE, BEST = "white", "#D55E00"


@verb
def alignment(found: Alignment, *, axes: Sequence[Axes] | None = None) -> np.ndarray:
    """Draw skill against shift, over all that was searched and around the best place, and lines through that.

    A cross is where the shapes are, an orange one where they should be, with its interval; arrows, where there are
    enough spots, are the shifts of parts of the section, as long as they are. Gray is what 39 displaced sections reach.

    Parameters
    ----------
    found
        As :func:`sq_imputer.pp.alignment` returns it.
    axes
        Three Axes to draw on; a new figure if not given.

    Returns
    -------
    The three Axes.

    Raises
    ------
    BadInput
        If it is no alignment, or there are other than three Axes.

    Examples
    --------
    >>> axes = sqi.pl.alignment(sqi.pp.alignment(sdata, search_um=100))
    """
    import matplotlib.pyplot as plt

    if not isinstance(found, Alignment):
        raise BadInput(f"found is a {type(found).__name__}; expected what pp.alignment returns without apply=True.")
    if axes is None:
        axes = plt.subplots(1, PANELS, figsize=(13, 4), layout="constrained")[1]
    axes = _panels.in_a_row(axes, PANELS)
    looks = found.against_shift["look"]
    _map(axes[0], found, looks.min(), "all shifts")
    _map(axes[1], found, looks.max(), "around the best one")
    _interval(axes[1], found)
    _lines(axes[2], found, looks.min())
    said = found.reason if found.verdict == OFF else f"{found.verdict}: {found.reason}"
    axes[0].figure.suptitle(plain(f"{found.section}: {said}"), fontsize="medium")
    return axes


def _map(ax: Axes, found: Alignment, look: int, title: str) -> None:
    own = found.against_shift[found.against_shift["look"] == look].pivot(index="y_um", columns="x_um", values="skill")
    x, y = own.columns.to_numpy(), own.index.to_numpy()
    half = np.diff(x)[0] / 2
    extent = (x[0] - half, x[-1] + half, y[-1] + half, y[0] - half)
    values = np.maximum(own.to_numpy(), np.quantile(own.to_numpy(), 0.05))
    image = ax.imshow(values, extent=extent, cmap="viridis", origin="upper", interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, shrink=0.8, label="share of variance explained")
    ax.plot(0, 0, "+", color=HERE, markersize=11, markeredgewidth=2)
    ax.plot(*found.shift_um, "x", color=BEST, markersize=9, markeredgewidth=2)
    ax.set(xlim=extent[:2], ylim=extent[2:], xlabel="shift along x, µm", ylabel="shift along y, µm", title=title)


def _interval(ax: Axes, found: Alignment) -> None:
    from matplotlib.patches import Rectangle

    size = found.high_um - found.low_um
    ax.add_patch(Rectangle(found.low_um, *size, fill=False, edgecolor=BEST, linewidth=1.2))
    for row in found.regions.itertuples():
        arrow = {"arrowstyle": "->", "color": HERE, "linewidth": 1}
        ax.annotate("", (row.shift_x_um, row.shift_y_um), (0, 0), arrowprops=arrow)


def _lines(ax: Axes, found: Alignment, look: int) -> None:
    own = found.against_shift[found.against_shift["look"] == look]
    best = own.loc[own["skill"].idxmax()]
    for along, across, color in (("x_um", "y_um", "#0072B2"), ("y_um", "x_um", "#009E73")):
        line = own[np.isclose(own[across], best[across])].sort_values(along)
        ax.plot(line[along], line["skill"], color=color, label=f"along {along[0]}")
    if len(found.null):
        ax.axhspan(found.null.min(), found.null.max(), color="0.85", zorder=0, label="best of displaced sections")
    ax.axvline(0, color="0.6", linewidth=0.8)
    ax.set(xlabel="shift, µm", ylabel="share of variance explained", title=f"p = {found.p:.3f}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
