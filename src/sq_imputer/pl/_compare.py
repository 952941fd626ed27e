"""Measured, predicted, residual and uncertainty of a gene, side by side over the H&E."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, named
from sq_imputer.pl import _panels
from sq_imputer.pl._tables import columns_of, find_layer, find_table
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

SPREAD = "standard deviation"
BY_FOLD = f"{SPREAD}\n(a model per fold)"
LEAST = 0.2  # of itself that the colors of a standard deviation span: how large it is is not known better than that


@verb
def compare(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    layer: str | None = None,
    key: str = "imputed",
    section: str | None = None,
    background: bool = True,
    ax: np.ndarray | None = None,
) -> np.ndarray:
    """Draw measured, predicted, residual and, where there is one, standard deviation: one row of Axes per gene.

    Spots lie over the image that was predicted from and have their true diameter, unless that is a pixel or two: they
    then touch, so that colors can be read. Measured and predicted share their colors; spots that were not measured are
    hollow in the measured panel. Where each spatial block was predicted by one model of its own, the title of the
    standard deviation says so: the rectangles in it are the folds'.

    Parameters
    ----------
    sdata
        An object with predictions; it is not changed.
    genes
        One gene or several.
    layer
        The model; the one whose prediction was written last if not given.
    key
        Table that `tl.predict` wrote.
    section
        Of a table of several sections, which.
    background
        Draw the image below.
    ax
        `(genes, 4)` Axes to draw on, or `(genes, 3)` to leave the standard deviation out; a new figure if not given.

    Returns
    -------
    The array of Axes.

    Raises
    ------
    MissingKey
        If the table, the layer or a gene is missing, or several models could be meant.
    BadInput
        If `ax` has another shape.

    Examples
    --------
    >>> axes = sqi.pl.compare(sdata, ["NUC1", "GLD1"], layer="ridge")
    """
    from sq_imputer.runs.views import section_of
    from sq_imputer.section import read
    from sq_imputer.section.pixel_size import as_seen
    from sq_imputer.section.slide import Slide

    genes = named("genes", genes)
    find_table(sdata, key, genes)
    sdata = section_of(sdata, key, section)
    table = sdata.tables[key]
    layer = find_layer(table, key, layer, genes)
    made = table.uns.get("sq_imputer", {}).get(layer, {})
    shapes_key = read.find_shapes(sdata, None, key)
    shown = {"shapes_key": shapes_key, "table_key": None, "section_key": None}  # places alone
    slide = Slide.from_sdata(sdata, **{**as_seen(made), **shown})
    rows, position = slide.rows_in(table, key)
    parts = {
        name: columns_of(table, name, genes)[rows]
        for name in ("measured", layer, f"{layer}_std")
        if name in table.layers
    }
    width, height = np.ptp(slide.xy_um, axis=0)
    axes = _axes(ax, len(genes), 4 if f"{layer}_std" in parts else 3, height / width if width else 1.0)
    picture = _panels.background(slide, made, _panels.pixels(axes)) if background else None
    for k, gene in enumerate(genes):
        predicted = parts[layer][:, k]
        draw(
            axes[k],
            slide.xy_um[position],
            parts["measured"][:, k] if "measured" in parts else np.full_like(predicted, np.nan),
            predicted,
            parts[f"{layer}_std"][:, k] if axes.shape[1] == 4 else None,
            background=picture,
            radius_um=slide.size_um[position] / 2,
            gene=gene,
            unit=str(made.get("unit", "")),
            spread=BY_FOLD if _folded(made) else SPREAD,
        )
    return axes


def _folded(made: Mapping) -> bool:
    """Whether each block was predicted by one model of its own: their borders show, most of all in the spread."""
    return int(made.get("n_folds", 0)) > 1 and int(made.get("n_repeats", 1)) == 1


def _axes(ax, n_genes: int, n_panels: int, aspect: float) -> np.ndarray:
    import matplotlib.pyplot as plt

    if ax is None:
        size = (4.2 * n_panels, (0.6 + 3.2 * np.clip(aspect, _panels.FLATTEST, 3)) * n_genes)
        return plt.subplots(n_genes, n_panels, figsize=size, squeeze=False, layout="constrained")[1]
    axes = np.atleast_2d(np.asarray(ax, dtype=object))
    if axes.shape not in {(n_genes, 3), (n_genes, n_panels)}:
        raise BadInput(
            f"ax has shape {axes.shape}; {n_genes} genes with {n_panels} panels need ({n_genes}, {n_panels})."
        )
    return axes


def draw(
    axes: Sequence[Axes],
    xy_um: np.ndarray,
    measured: np.ndarray,
    predicted: np.ndarray,
    std: np.ndarray | None = None,
    *,
    background: _panels.Background | None = None,
    radius_um: float | np.ndarray,
    gene: str,
    unit: str = "",
    spread: str = SPREAD,
) -> None:
    """Draw one gene on three Axes, or on four with `std`.

    Parameters
    ----------
    axes
        For measured, predicted, measured − predicted, and the standard deviation.
    xy_um
        `(n, 2)` centers, y down.
    measured, predicted, std
        `(n,)`; NaN where there is none.
    background
        `(h, w, 3)` image and its `(left, right, bottom, top)` in µm.
    radius_um
        Of all spots, or `(n,)`; widened where that is a pixel or two.
    gene
        Its name.
    unit
        Of the values, for the color bars.
    spread
        Title of the panel of `std`.
    """
    measured, predicted = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    both = np.concatenate([measured, predicted])
    residual = measured - predicted
    difference = f"difference, {unit}" if unit else "difference"
    panels = [
        ("measured", measured, _panels.VALUES, _panels.limits(both), unit),
        ("predicted", predicted, _panels.VALUES, _panels.limits(both), unit),
        ("measured − predicted", residual, _panels.RESIDUAL, _panels.limits(residual, around_zero=True), difference),
    ]
    if std is not None:
        std = np.asarray(std, dtype=float)
        panels.append((spread, std, _panels.SPREAD, _panels.limits(std, least=LEAST), unit))
    radius_um = _panels.visible_radius(axes[0], xy_um, radius_um)
    for ax, (title, values, colors, limits, label) in zip(axes, panels, strict=True):
        _panels.panel(ax, xy_um, radius_um, background)
        ax.set_title(title, fontsize="medium")
        _panels.color_bar(ax, _panels.spots(ax, xy_um, radius_um, values, colors, limits), label)
    axes[0].set_ylabel(plain(gene), fontstyle="italic", fontsize="large")
    _panels.scale_bar(axes[0])
