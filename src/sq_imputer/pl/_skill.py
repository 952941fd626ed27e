"""How many genes are predicted how well: every predictor's genes, ranked by their score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, check_frame, listed
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

# Okabe and Ito's colors, told apart by colorblind readers; the yellow is left out, too pale for a line.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("--", "-.", ":")
FEW = 15  # genes; each is then marked: a line through one is not seen
LABELS = {"pearson": "Pearson correlation", "pearson_given_depth": "Pearson correlation given depth"}


@verb
def skill(
    table: DataFrame,
    *,
    metric: str = "pearson",
    section: str | None = None,
    baselines: Sequence[str] = ("mean", "depth only", "ridge on texture"),
    ax: Axes | None = None,
) -> Axes:
    """Draw one line per predictor: its genes ranked by their score, averaged over sections.

    Each line has its own order of genes. Genes without a score are counted in the legend. The noise ceiling is drawn
    beside plain Pearson if the table has it.

    Parameters
    ----------
    table
        As `tl.score` returns it: columns gene, predictor, section, the metrics, and perhaps ceiling.
    metric
        A column: `"pearson"`, `"pearson_given_depth"`, ...
    section
        Draw the scores of this section alone.
    baselines
        Predictors drawn in gray below the others, where the table has them.
    ax
        Axes to draw on; a new figure if not given.

    Returns
    -------
    The Axes.

    Raises
    ------
    MissingKey
        If the table has no such metric or section.

    Examples
    --------
    >>> ax = sqi.pl.skill(scores)
    """
    import matplotlib.pyplot as plt

    check_frame(table, "tl.score")
    needed = [name for name in ("gene", "predictor", metric) if name not in table]
    if needed:
        raise MissingKey(f"no column {listed(needed)}; the score table has {listed(table.columns, 12)}. Pass metric=.")
    if section is not None:
        there = list(dict.fromkeys(table["section"])) if "section" in table else []
        if section not in there:
            raise MissingKey(f"no section {section!r}; the score table has {listed(there, 20)}. Pass section=.")
        table = table[table["section"] == section]
    if ax is None:
        ax = plt.subplots(figsize=(6, 4), layout="constrained")[1]
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    if metric == "pearson" and "ceiling" in table:
        _line(ax, "noise ceiling", table.groupby("gene")["ceiling"].mean(), color="black", linestyle=":", linewidth=1)
    predictors = list(dict.fromkeys(table["predictor"]))
    models = [name for name in predictors if name not in baselines]
    grays = [name for name in predictors if name in baselines]
    styles = {name: {"color": COLORS[i % len(COLORS)], "linewidth": 2} for i, name in enumerate(models)}
    styles |= {name: {"color": "0.55", "linestyle": DASHES[i % len(DASHES)]} for i, name in enumerate(grays)}
    for name, style in styles.items():
        _line(ax, name, table.loc[table["predictor"] == name].groupby("gene")[metric].mean(), **style)
    ax.set(xlabel="genes, ranked within each line", ylabel=f"{LABELS.get(metric, metric)} over spots")
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.margins(x=0.02)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0)
    return ax


def _line(ax: Axes, name: str, scores, **style) -> None:
    values = np.sort(scores.dropna().to_numpy())[::-1]
    lost = len(scores) - len(values)
    label = f"{name}: mean {values.mean():.2f}" if len(values) else f"{name}: no score"
    label += f", {lost} of {len(scores)} genes NaN" if lost else ""
    if 0 < len(values) <= FEW:
        style |= {"marker": "o", "markersize": 4}
    ax.plot(np.arange(1, len(values) + 1), values, label=plain(label), **style)
