"""Measured, predicted, residual and uncertainty, or what classes are called, side by side over the H&E."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, named
from sq_imputer.pl import _panels
from sq_imputer.pl._compared import Look, call_panels, draw, is_of_classes
from sq_imputer.pl._tables import find_table
from sq_imputer.pl._values import Values
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData


@verb
def compare(
    sdata: SpatialData,
    genes: str | Sequence[str] | None = None,
    *,
    layer: str | None = None,
    key: str = "imputed",
    section: str | None = None,
    background: bool = True,
    vmin: float | str | None = None,
    vmax: float | str | None = None,
    cmap: str | Colormap | None = None,
    ax: np.ndarray | None = None,
) -> np.ndarray:
    """Draw measured, predicted, residual and, where there is one, standard deviation: one row of Axes per gene.

    Spots lie over the image that was predicted from and have their true diameter, unless that is a pixel or two: they
    then touch, so that colors can be read. Measured and predicted share their colors; spots that were not measured are
    hollow in the measured panel. Where each spatial block was predicted by one model of its own, the title of the
    standard deviation says so: the rectangles in it are the folds'.

    Where nothing was measured, only what is predicted is drawn. A model of others that predicts in a unit of its own
    has no residual, and measured and predicted have colors of their own.

    Of a table of classes (`target="obs:NAME"`) without `genes`: what was measured, what is called, where that is right,
    and the probability of the call. Classes have the colors in `uns["NAME_colors"]` of the measured table, else those
    in `uns["<model>_NAME_colors"]` of the predicted one, else scanpy's.

    Parameters
    ----------
    sdata
        An object with predictions; it is not changed.
    genes
        One gene or several, or columns of another target; of a class its probability. To be left out of classes only.
    layer
        The model; the one whose prediction was written last if not given.
    key
        Table that `tl.predict` wrote.
    section
        Of a table of several sections, which.
    background
        Draw the image below.
    vmin, vmax
        Ends of the colors of values (measured, predicted; of a call its probability): a number, or a percentile of the
        values such as `"p99"`. If not given, the first and the last percentile.
    cmap
        Their color map.
    ax
        `(genes, panels)` Axes to draw on, or one column less to leave the standard deviation, or the probability of the
        call, out; a new figure if not given. There are four panels: one less without a standard deviation, one less
        without a residual, and two less where nothing was measured.

    Returns
    -------
    The array of Axes.

    Raises
    ------
    MissingKey
        If the table, the layer or a gene is missing, or several models could be meant.
    BadInput
        If `ax` has another shape, or `vmin`, `vmax` or `cmap` cannot be used.

    Examples
    --------
    >>> axes = sqi.pl.compare(sdata, ["NUC1", "GLD1"], layer="ridge")
    """
    calls = genes is None
    if calls:
        table = find_table(sdata, key, None)
        names = list(table.var_names)
        if not is_of_classes(table):
            raise BadInput(f"tables['{key}'] is not of classes; they alone are drawn together. Pass genes=.")
    else:
        names = named("genes", genes)
    values = Values.of(sdata, key, layer, section, names)
    placed, look = values.placed, Look(vmin, vmax, _panels.color_map(cmap))
    if calls:
        drawn = [call_panels(sdata, placed.table, values.layer, values.measured, values.predicted, look)]
    else:
        drawn = values.panels(look)
    width, height = np.ptp(placed.slide.xy_um, axis=0)
    axes = _axes(ax, len(drawn), len(drawn[0]), calls or values.std is not None, height / width if width else 1.0)
    picture = _panels.background(placed.slide, placed.made, _panels.pixels(axes)) if background else None
    for row, panels, heading in zip(axes, drawn, [""] if calls else names, strict=True):
        draw(row, panels[: len(row)], placed.xy_um, placed.radius_um, background=picture, heading=heading)
    return axes


def _axes(ax, n_rows: int, n_panels: int, spare: bool, aspect: float) -> np.ndarray:
    import matplotlib.pyplot as plt

    if ax is None:
        size = (4.2 * n_panels, (0.6 + 3.2 * np.clip(aspect, _panels.FLATTEST, 3)) * n_rows)
        return plt.subplots(n_rows, n_panels, figsize=size, squeeze=False, layout="constrained")[1]
    axes = np.atleast_2d(np.asarray(ax, dtype=object))
    if axes.shape not in {(n_rows, n_panels), (n_rows, n_panels - spare)}:
        raise BadInput(f"ax has shape {axes.shape}; {n_rows} genes with {n_panels} panels need ({n_rows}, {n_panels}).")
    return axes
