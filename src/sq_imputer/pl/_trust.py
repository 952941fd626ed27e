"""Where a prediction can be believed: genes by skill, coverage by section, and spots unlike the training tissue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey
from sq_imputer.pl import _panels
from sq_imputer.pl._placed import Placed
from sq_imputer.pl._tables import find_layer, find_table
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from spatialdata import SpatialData

PANELS = 3
# Okabe and Ito's colors, told apart by colorblind readers
REASONS = {
    "predicted beyond chance": "#0072B2",
    "hidden by counting noise": "#E69F00",
    "not beyond chance": "#D55E00",
    "cannot be tested": "0.6",
}
COLORS = "cividis"


@verb
def trust(
    sdata: SpatialData,
    layer: str | None = None,
    *,
    key: str = "imputed",
    section: str | None = None,
    background: bool = True,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw what :func:`sq_imputer.tl.trust` found: genes, coverage of the intervals by section, and unlike spots.

    Genes are ranked by their skill, with its interval, in the color of the reason. A section that is unlike the
    training tissue as a whole is named in orange. Spots have the color of `obs["<layer>_ood"]`; those that are not to
    be trusted have stripes.

    Parameters
    ----------
    sdata
        An object with a prediction; it is not changed.
    layer
        The model; the one whose prediction was written last if left out.
    key
        Table that `tl.predict` wrote.
    section
        Of a table of several sections, whose spots are drawn; the first if left out.
    background
        Draw the image below the spots.
    axes
        Three Axes to draw on; a new figure if not given.

    Returns
    -------
    The three Axes.

    Raises
    ------
    MissingKey
        If the table, the layer, or what `tl.trust` writes is missing.
    BadInput
        If there are other than three Axes.

    Examples
    --------
    >>> axes = sqi.pl.trust(sdata, "ridge")
    """
    import matplotlib.pyplot as plt

    table = find_table(sdata, key, None)
    layer = find_layer(table, key, layer, list(table.var_names[:50]))
    made = table.uns.get("sq_imputer", {}).get(layer, {}).get("trust")
    if not made or f"{layer}_reason" not in table.var:
        raise MissingKey(
            f"nothing is known of how far '{layer}' in tables['{key}'] can be trusted. Call tl.trust first."
        )
    found = [made["sections"][number] for number in sorted(made["sections"], key=int)]
    section = str(found[0]["section"]) if section is None and len(found) > 1 else section
    placed = Placed.in_section(sdata, key, layer, section)
    if axes is None:
        size = (13, 0.9 + 3.6 * placed.aspect)
        axes = plt.subplots(1, PANELS, figsize=size, layout="constrained", width_ratios=(1.2, 1, 1.2))[1]
    axes = _panels.in_a_row(axes, PANELS)
    _genes(axes[0], table.var, layer)
    _sections(axes[1], found, made)
    _spots(axes[2], placed, layer, background)
    return axes


def _genes(ax: Axes, var: DataFrame, layer: str) -> None:
    names = ("skill", "skill_low", "skill_high")
    skill, low, high = (var[f"{layer}_{name}"].to_numpy(dtype=float) for name in names)
    reason = var[f"{layer}_reason"].astype(str).to_numpy()
    order = np.argsort(-np.nan_to_num(skill, nan=-2), kind="stable")
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(1, len(order) + 1)
    for name, color in REASONS.items():
        own = reason == name
        if own.any():
            ax.vlines(rank[own], low[own], high[own], color=color, alpha=0.3, linewidth=1)
            ax.plot(rank[own], skill[own], "o", color=color, markersize=3, label=f"{name}: {own.sum()}")
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel="genes, ranked", ylabel="Pearson correlation given depth", title=plain(f"genes of {layer}"))
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    ax.spines[["top", "right"]].set_visible(False)


def _sections(ax: Axes, found: Sequence, made) -> None:
    """What is inside the intervals, and how many spots lie beyond the edge, section by section."""
    rows = np.arange(len(found))
    held = np.array([one.get("coverage", np.nan) for one in found], dtype=float)
    beyond = np.array([one.get("beyond", np.nan) for one in found], dtype=float)
    ax.plot(held, rows, "o", color="#0072B2", label="measured inside the intervals")
    ax.plot(beyond, rows, "D", color="#D55E00", label="spots beyond 95 % of left-out training spots")
    if "level" in made:
        ax.axvline(made["level"], color="#0072B2", linewidth=0.8, linestyle="--")
    ax.axvline(0.05, color="#D55E00", linewidth=0.8, linestyle="--")
    ax.set_yticks(rows, [plain(one["section"]) for one in found])
    for label, one in zip(ax.get_yticklabels(), found, strict=True):
        label.set_color("#D55E00" if one["unlike"] else "black")
    ax.set(xlim=(-0.03, 1.03), ylim=(len(found) - 0.5, -0.5), xlabel="share", title="sections")
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18))
    ax.spines[["top", "right"]].set_visible(False)


def _spots(ax: Axes, placed: Placed, layer: str, background: bool) -> None:
    obs = placed.table.obs.iloc[placed.rows]
    strange = ~obs[f"{layer}_reliable"].to_numpy(dtype=bool)
    picture = _panels.background(placed.slide, placed.made, _panels.pixels(np.array([ax]))) if background else None
    values = obs[f"{layer}_ood"].to_numpy(dtype=float)
    drawn = placed.draw(ax, values, COLORS, (0, 1), picture=picture, hatched=strange)
    _panels.color_bar(ax, drawn, "share of training spots that are more usual")
    ax.set_title(f"{int(strange.sum())} of {len(strange)} spots not to be trusted (striped)", fontsize="medium")
    _panels.scale_bar(ax)
