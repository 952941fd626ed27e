"""How far off a predicted map may be, and where it is not to be trusted at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey
from sq_imputer.pl import _panels
from sq_imputer.pl._placed import Placed
from sq_imputer.pl._tables import columns_of, find_layer, find_table
from sq_imputer.pl._text import plain
from sq_imputer.pl._values import units_of
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

PANELS = 2
LEAST = 0.2  # of itself that the colors of a width span: it is not known better than that


@verb
def uncertainty(
    sdata: SpatialData,
    gene: str,
    *,
    layer: str | None = None,
    key: str = "imputed",
    section: str | None = None,
    background: bool = True,
    axes: Sequence[Axes] | None = None,
) -> np.ndarray:
    """Draw a predicted gene and how wide its intervals are; spots that are not to be trusted have stripes.

    Call :func:`sq_imputer.tl.trust` first, which makes intervals and marks. The title says what it found of the gene.

    Parameters
    ----------
    sdata
        An object with a prediction; it is not changed.
    gene
        The gene.
    layer
        The model; the one whose prediction was written last if left out.
    key
        Table that `tl.predict` wrote.
    section
        Of a table of several sections, which.
    background
        Draw the image below.
    axes
        Two Axes to draw on; a new figure if not given.

    Returns
    -------
    The two Axes.

    Raises
    ------
    MissingKey
        If the table, the layer, the gene, or the intervals are missing.
    BadInput
        If there are other than two Axes.

    Examples
    --------
    >>> axes = sqi.pl.uncertainty(sdata, "NUC1", layer="ridge")
    """
    import matplotlib.pyplot as plt

    table = find_table(sdata, key, [gene])
    layer = find_layer(table, key, layer, [gene])
    if f"{layer}_upper" not in table.layers or f"{layer}_reliable" not in table.obs:
        raise MissingKey(f"no intervals of '{layer}' in tables['{key}']. Call tl.trust first.")
    placed = Placed.in_section(sdata, key, layer, section)
    table = placed.table
    if axes is None:
        size = (4.4 * PANELS, 0.9 + 3.2 * placed.aspect)
        axes = plt.subplots(1, PANELS, figsize=size, layout="constrained")[1]
    axes = _panels.in_a_row(axes, PANELS)
    picture = _panels.background(placed.slide, placed.made, _panels.pixels(axes)) if background else None
    values, low, high = (columns_of(table, f"{layer}{end}", [gene])[placed.rows, 0] for end in ("", "_lower", "_upper"))
    wide = high - low
    strange = ~table.obs[f"{layer}_reliable"].to_numpy(dtype=bool)[placed.rows]
    _, unit = units_of(placed.made)
    level = placed.made.get("trust", {}).get("level")
    said = f"interval of {level:.0%}" if level else "interval"
    how = {"picture": picture, "hatched": strange}
    one = placed.draw(axes[0], values, _panels.VALUES, _panels.limits(values), **how)
    two = placed.draw(axes[1], wide, _panels.SPREAD, _panels.limits(wide, least=LEAST), **how)
    _panels.color_bar(axes[0], one, unit)
    _panels.color_bar(axes[1], two, f"width, {unit}")
    axes[0].set_title(f"{plain(f'{gene}, {layer}')}\n{_found(table, layer, gene)}", fontsize="medium")
    axes[1].set_title(
        f"{said}\n{int(strange.sum())} of {len(strange)} spots not to be trusted (striped)", fontsize="medium"
    )
    _panels.scale_bar(axes[0])
    return axes


def _found(table, layer: str, gene: str) -> str:
    """What was found of a gene."""
    row = table.var.loc[gene]
    skill = row[f"{layer}_skill"]
    return plain(row[f"{layer}_reason"]) + (f" (skill {skill:.2f})" if np.isfinite(skill) else "")
