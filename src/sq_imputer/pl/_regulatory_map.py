"""Where the stretches of a gene lie, how much of each a model keeps, and by what: its DNA or what is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, listed
from sq_imputer.genes.stretches import Place, rows_of
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from sq_imputer.genes.windows import GeneWindows

COLORS = {"dna": "#0072B2", "signal": "#E69F00", "effect": "0.15"}
LABELS = {"signal": "kept by the tracks", "dna": "added by the DNA"}
NARROW = 1 / 150  # of the axis: the least width that is drawn


@verb
def regulatory_map(
    sdata: SpatialData,
    gene: str,
    *,
    windows: GeneWindows | None = None,
    key: str = "regulatory_map",
    ax: Axes | None = None,
) -> Axes:
    """Draw the stretches that a model reads the expression of a gene from, along the genome.

    Every stretch is a bar as high as its mask; its parts are what the tracks keep of it, and what the DNA adds. The
    line on it is the standard deviation, an arrow shows where the gene starts, and which way. Where
    :func:`sq_imputer.tl.in_silico` has knocked the stretches out, those are marked whose effect hardly a random stretch
    reached (p below .05), by a triangle up where the prediction rose and down where it fell.

    Parameters
    ----------
    sdata
        An object with a table by :func:`sq_imputer.tl.regulatory_map`.
    gene
        The gene.
    windows
        Windows with tracks, which are drawn below, scaled to their highest value.
    key
        Name of the table.
    ax
        Axes to draw on; a new figure if not given.

    Returns
    -------
    The Axes.

    Raises
    ------
    MissingKey
        If there is no such table, or no stretch of the gene.

    Examples
    --------
    >>> ax = sqi.pl.regulatory_map(sdata, windows.names[0], windows=windows)
    """
    import matplotlib.pyplot as plt

    rows = _rows(sdata, gene, key)
    if ax is None:
        ax = plt.subplots(figsize=(8, 3), layout="constrained")[1]
    start, end = rows.obs["start"].to_numpy(dtype=int), rows.obs["end"].to_numpy(dtype=int)
    span = _span(windows, gene, start, end)
    width = np.maximum(end - start, NARROW * (span[1] - span[0]))
    middle, bottom = (start + end) / 2, np.zeros(len(start))
    values = {name: np.asarray(rows[:, name].X, dtype=float).ravel() for name in ("mask", "mask_std", "dna", "signal")}
    for name in LABELS:  # where the sequence takes from the mask, the bar is what is left
        height = np.clip(values[name], 0, values["mask"])
        label = LABELS[name] if height.any() else None  # a model of DNA alone keeps nothing by tracks
        ax.bar(middle, height, width, bottom, color=COLORS[name], label=label, linewidth=0)
        bottom += height
    ax.errorbar(middle, values["mask"], values["mask_std"], fmt="none", ecolor="0.35", elinewidth=0.8)
    _effects(ax, rows, middle, values["mask"] + values["mask_std"])
    _start(ax, rows, gene, span)
    if windows is not None and windows.tracks:
        _tracks(ax, windows, gene, span)
    ax.set(xlim=span, ylim=(-0.3 if windows is not None and windows.tracks else -0.06, 1.05), ylabel="mask")
    ax.set(xlabel=plain(f"{rows.obs['chrom'].iloc[0]}, base pairs"), yticks=(0, 0.5, 1))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
    return ax


def _rows(sdata: SpatialData, gene: str, key: str) -> AnnData:
    if key not in sdata.tables or not {"gene", "start", "end", "tss"} <= set(sdata.tables[key].obs):
        raise MissingKey(
            f"no regulatory map in tables['{key}']; sdata has {listed(sdata.tables)}. Call tl.regulatory_map first."
        )
    table = sdata.tables[key]
    rows = table[(table.obs["gene"].astype(str) == gene).to_numpy()]
    if not len(rows):
        raise MissingKey(f"no stretch of '{gene}'; there are some of {listed(sorted(set(table.obs['gene'])))}.")
    return rows


def _span(windows: GeneWindows | None, gene: str, start: np.ndarray, end: np.ndarray) -> tuple[float, float]:
    """The window, or what the stretches take."""
    if windows is not None:
        place = Place.of(windows, int(rows_of(windows, gene)[0]), windows.length)
        return place.start, place.end
    room = 0.02 * max(end.max() - start.min(), 1)
    return start.min() - room, end.max() + room


def _effects(ax: Axes, rows: AnnData, x: np.ndarray, y: np.ndarray) -> None:
    if not {"effect", "p"} <= set(rows.obs):
        return
    effect, p = (rows.obs[name].to_numpy(dtype=float) for name in ("effect", "p"))
    for marker, which, said in (("^", effect > 0, "rises"), ("v", effect < 0, "falls")):
        which = which & (p < 0.05)
        if which.any():
            ax.plot(
                x[which], y[which] + 0.05, marker, color=COLORS["effect"], markersize=4, label=f"without it, {said}"
            )


def _start(ax: Axes, rows: AnnData, gene: str, span: tuple[float, float]) -> None:
    tss, strand = int(rows.obs["tss"].iloc[0]), str(rows.obs["strand"].iloc[0])
    step = 0.04 * (span[1] - span[0]) * {"+": 1, "-": -1}.get(strand, 0)
    ax.axvline(tss, color="0.4", linewidth=0.8, linestyle=":")
    if step:
        how = {"arrowstyle": "->", "color": "0.2"}
        ax.annotate("", (tss + step, 1.0), (tss, 1.0), arrowprops=how)
    ax.annotate(plain(gene), (tss, 1.0), (4 if step >= 0 else -4, 5), textcoords="offset points", fontsize="small")


def _tracks(ax: Axes, windows: GeneWindows, gene: str, span: tuple[float, float]) -> None:
    """The tracks of the window, below zero."""
    from sq_imputer.needs import Needs

    row = rows_of(windows, gene)
    (batch,) = windows.batches(Needs(sequence=windows.length), 1, rows=row)
    values = batch.tracks[0].numpy()
    place = Place.of(windows, int(row[0]), windows.length)
    x, values = np.arange(place.start, place.end), values[::-1] if place.turned else values
    for k, name in enumerate(windows.tracks):
        scaled = 0.22 * values[:, k] / max(float(values[:, k].max()), 1e-9)
        ax.fill_between(x, -0.27, scaled - 0.27, color=f"C{k + 2}", linewidth=0, alpha=0.7, label=plain(name))
