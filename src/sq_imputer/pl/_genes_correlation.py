"""Whether genes that vary together in the tissue also do in the prediction: two matrices in one order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, named
from sq_imputer.pl._panels import AS_IS, RESIDUAL
from sq_imputer.pl._tables import columns_of, find_layer, find_table
from sq_imputer.pl._text import plain
from sq_imputer.scores.metrics import ROUNDING, genes_correlation_agreement
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

NAMED = 40  # genes; the names of more would run into each other
LEAST = 3  # genes; two have one correlation, and no agreement


@verb
def genes_correlation(
    data: SpatialData | tuple[np.ndarray, np.ndarray],
    *,
    genes: Sequence[str] | None = None,
    n: int = 40,
    layer: str | None = None,
    key: str = "imputed",
    ax: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the gene-gene correlations over spots, measured and predicted, side by side.

    Both have the order that clusters the measured ones (average linkage of 1 - r) and the same colors. Counting noise
    weakens measured correlations while a predicted mean has none, so a prediction is usually the stronger in color:
    compare the pattern. Its agreement, :func:`sq_imputer.scores.metrics.genes_correlation_agreement` of the genes
    drawn, is in the title.

    Parameters
    ----------
    data
        An object with predictions, or the pair measured, predicted, both `(spots, genes)`.
    genes
        Genes to draw, three or more; for a pair of arrays, the names of all columns. If not given, the `n` of highest
        measured variance.
    n
        How many genes to choose; for a pair of arrays too.
    layer
        The model; the one whose prediction was written last if not given.
    key
        Table that `tl.predict` wrote.
    ax
        Two Axes to draw on; a new figure if not given.

    Returns
    -------
    The two Axes.

    Raises
    ------
    MissingKey
        If the table, the layer or a gene is missing, or nothing was measured.
    BadInput
        If shapes differ, `ax` are not two, or fewer than 3 genes vary.

    Examples
    --------
    >>> axes = sqi.pl.genes_correlation(sdata, layer="ridge")
    """
    if n is not None:
        check_number("n", n, 1, whole=True)
    if isinstance(data, tuple):
        measured, predicted, names = _of_arrays(*data, genes)
        title = "predicted"
    else:
        measured, predicted, names, title = _of_table(data, key, layer, genes)
    both = np.isfinite(measured) & np.isfinite(predicted)
    seen = both.any(axis=1)
    there = both[seen].all(axis=0)  # a gene that a section lacks costs the gene, not the section's spots
    measured, predicted = measured[seen][:, there], predicted[seen][:, there]
    names = [name for name, one in zip(names, there, strict=True) if one]
    chosen, n_constant = _chosen(measured, predicted, n if genes is None or isinstance(data, tuple) else None)
    measured, predicted = measured[:, chosen], predicted[:, chosen]
    agreement = genes_correlation_agreement(measured, predicted)
    sides = [np.corrcoef(side, rowvar=False) for side in (measured, predicted)]
    order = _order(sides[0])
    axes = _axes(ax)
    _draw(axes, [side[np.ix_(order, order)] for side in sides], [names[chosen[k]] for k in order])
    counted = {"constant": n_constant, "not measured": int((~there).sum())}
    left_out = "".join(f", {n} {why} left out" for why, n in counted.items() if n)
    axes[0].set_title(f"measured\n{len(chosen)} genes, {len(measured)} spots{left_out}", fontsize="medium")
    axes[1].set_title(f"{plain(title)}\nagreement {agreement:.2f}", fontsize="medium")
    return axes


def _of_arrays(measured, predicted, genes) -> tuple[np.ndarray, np.ndarray, list[str]]:
    measured, predicted = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    names = [str(i) for i in range(measured.shape[-1])] if genes is None else list(genes)
    if measured.ndim != 2 or measured.shape != predicted.shape or measured.shape[1] != len(names):
        raise BadInput(
            f"measured is {measured.shape}, predicted {predicted.shape}, with {len(names)} genes; both must be (spots, "
            "genes), aligned."
        )
    return measured, predicted, names


def _of_table(sdata, key: str, layer: str | None, genes) -> tuple[np.ndarray, np.ndarray, list[str], str]:
    genes = None if genes is None else named("genes", genes)
    table = find_table(sdata, key, genes)
    names = list(table.var_names) if genes is None else genes
    layer = find_layer(table, key, layer, names)
    if "measured" not in table.layers:
        raise MissingKey(f"nothing was measured at the shapes of table '{key}'. Pass key= of a table at spots.")
    return columns_of(table, "measured", names), columns_of(table, layer, names), names, f"predicted by {layer}"


def _chosen(measured: np.ndarray, predicted: np.ndarray, n: int | None) -> tuple[np.ndarray, int]:
    """Columns to draw, most variable first, and how many of the candidates are constant on a side."""
    if len(measured) < 3:
        raise BadInput(f"{len(measured)} spots are both measured and predicted; a correlation needs 3 or more.")
    varies = np.ones(measured.shape[1], dtype=bool)
    for side in (measured, predicted):
        varies &= side.std(axis=0) > ROUNDING * np.abs(side).max(axis=0)
    columns = np.flatnonzero(varies)
    if len(columns) < LEAST:
        raise BadInput(f"{len(columns)} of {len(varies)} genes vary on both sides; {LEAST} are needed. Pass genes=.")
    if n is not None:
        columns = columns[np.argsort(-measured[:, columns].var(axis=0), kind="stable")][: max(n, LEAST)]
    return columns, int((~varies).sum())


def _order(correlation: np.ndarray) -> np.ndarray:
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    away = np.clip(1 - (correlation + correlation.T) / 2, 0, 2)
    np.fill_diagonal(away, 0)
    return leaves_list(linkage(squareform(away, checks=False), "average", optimal_ordering=True))


def _axes(ax) -> np.ndarray:
    import matplotlib.pyplot as plt

    if ax is None:
        return plt.subplots(1, 2, figsize=(10.4, 5), layout="constrained")[1]
    axes = np.asarray(ax, dtype=object).ravel()
    if len(axes) != 2:
        raise BadInput(f"ax holds {len(axes)} Axes; two are needed, for measured and predicted.")
    return axes


def _draw(axes: Sequence[Axes], matrices: Sequence[np.ndarray], names: Sequence[str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    off = ~np.eye(len(names), dtype=bool)
    limit = max(float(np.abs(matrix[off]).max()) for matrix in matrices)  # of pairs: a gene with itself says nothing
    colors = {"cmap": RESIDUAL, "norm": Normalize(-limit, limit)}
    ticks = np.arange(len(names)) if len(names) <= NAMED else []
    shown = [plain(name) for name in names] if len(ticks) else []
    size = float(np.clip(230 / len(names), 5, 9))
    for ax, matrix in zip(axes, matrices, strict=True):
        ax.set_facecolor("0.85")
        ax.imshow(np.where(off, matrix, np.nan), **AS_IS, **colors)
        style = {"fontsize": size, "fontstyle": "italic"}
        ax.set_xticks(ticks, shown, rotation=90, **style)
        ax.set_yticks(ticks, shown, **style)
        ax.tick_params(length=0, pad=2)
        ax.spines[:].set_visible(False)
    beside = axes[1].inset_axes((1.03, 0, 0.04, 1))
    beside.figure.colorbar(ScalarMappable(**colors), cax=beside, label="Pearson correlation of two genes")
