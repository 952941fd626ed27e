"""Whether genes that nobody measured are predicted the better, the more a seen gene is known to be like them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, check_frame, listed
from sq_imputer.pl._skill import COLORS, LABELS
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SHARE = 5  # a line is the mean over a fifth of the genes, those next to each other
FEWEST = 5  # genes of such a mean


@verb
def zero_shot(
    table: DataFrame,
    *,
    metric: str = "pearson_given_depth",
    predictors: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the score of every gene that was not seen against how alike its vector is to that of the nearest seen gene.

    Dots are genes, averaged over sections; the line is the mean over the fifth of the genes around. Skill that comes of
    what is known rises with the similarity; that of permuted vectors does not, as theirs says nothing.

    Parameters
    ----------
    table
        As `bench.leave_genes_out` returns it: columns gene, predictor, similarity, and the metrics.
    metric
        A column: `"pearson_given_depth"`, `"pearson"`, `"spearman"`.
    predictors
        Which to draw; the first of the table, and its permuted control.
    ax
        Axes to draw on; a new figure if not given.

    Returns
    -------
    The Axes.

    Raises
    ------
    MissingKey
        If the table has no such metric or predictor, or no similarity.

    Examples
    --------
    >>> ax = sqi.pl.zero_shot(unseen)
    """
    import matplotlib.pyplot as plt

    check_frame(table, "bench.leave_genes_out")
    needed = [name for name in ("gene", "predictor", "similarity", metric) if name not in table]
    if needed:
        raise MissingKey(f"no column {listed(needed)}; the table has {listed(table.columns, 12)}. Pass metric=.")
    there = list(dict.fromkeys(table["predictor"]))
    chosen = [name for name in (there[0], f"{there[0]}, permuted") if name in there]
    chosen = chosen if predictors is None else list(predictors)
    lost = [name for name in chosen if name not in there]
    if lost:
        raise MissingKey(f"no predictor {listed(lost)}; the table has {listed(there, 20)}. Pass predictors=.")
    if ax is None:
        ax = plt.subplots(figsize=(6, 4), layout="constrained")[1]
    ax.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    for number, name in enumerate(chosen):
        own = table[table["predictor"] == name].groupby("gene")[["similarity", metric]].mean().dropna()
        _drawn(ax, name, own.sort_values("similarity").to_numpy(), COLORS[number % len(COLORS)])
    ax.set(xlabel="similarity of the seen gene most alike", ylabel=f"{LABELS.get(metric, metric)} over spots")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return ax


def _drawn(ax: Axes, name: str, points: np.ndarray, color: str) -> None:
    """Dots `(n, 2)` in the order of their similarity, and the running mean of both numbers."""
    label = f"{name}: mean {points[:, 1].mean():.2f}" if len(points) else f"{name}: no score"
    ax.scatter(*points.T, s=12, alpha=0.5, linewidth=0, color=color)
    width = min(len(points), max(FEWEST, len(points) // SHARE))
    means = [np.convolve(column, np.ones(width) / width, mode="valid") for column in points.T] if width else [[], []]
    ax.plot(*means, color=color, linewidth=2, label=plain(label))
