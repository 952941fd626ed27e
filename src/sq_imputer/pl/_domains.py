"""Domains over the H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.pl import _panels
from sq_imputer.pl._categories import colors_in, counted, palette
from sq_imputer.pl._categories import legend as show_legend
from sq_imputer.pl._placed import Placed
from sq_imputer.runs.joined import restore
from sq_imputer.section.keys import verb
from sq_imputer.section.read import check_object

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from pandas import Series
    from spatialdata import SpatialData


@verb
def domains(
    sdata: SpatialData,
    domain: str = "domain",
    *,
    key: str = "imputed",
    section: str | None = None,
    background: bool = True,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw domains, or any other labels of spots, over the image that was predicted from.

    Spots have their true diameter, unless that is a pixel or two. Those without a label are hollow. Colors are what
    :func:`sq_imputer.tl.domains` or scanpy kept in `uns["<domain>_colors"]`, else scanpy's.

    Parameters
    ----------
    sdata
        An object with labels of spots; it is not changed.
    domain
        Column of `tables[key].obs`.
    key
        Table that `tl.predict` wrote, or another that annotates shapes.
    section
        Of a table of several sections, which.
    background
        Draw the image below.
    legend
        Draw names and numbers of spots beside.
    ax
        Axes to draw on; a new figure if not given.

    Returns
    -------
    The Axes.

    Raises
    ------
    MissingKey
        If the table or the column is missing.
    BadInput
        If the column holds numbers, or no label.

    Examples
    --------
    >>> ax = sqi.pl.domains(sdata)
    """
    from matplotlib.colors import ListedColormap

    from sq_imputer.runs.views import section_of

    _labels(sdata, domain, key)
    sdata = section_of(sdata, key, section)
    column = _labels(sdata, domain, key)
    table, names = sdata.tables[key], list(column.cat.categories)
    made = _made(table, domain)
    placed = Placed.of(sdata, key, made)
    codes = column.cat.codes.to_numpy()[placed.rows].astype(float)
    xy_um, radius_um = placed.xy_um, placed.radius_um
    ax = _axes(xy_um) if ax is None else ax
    radius_um = _panels.visible_radius(ax, xy_um, radius_um)
    picture = _panels.background(placed.slide, made, _panels.pixels(np.array([ax]))) if background else None
    _panels.panel(ax, xy_um, radius_um, picture)
    codes[codes < 0] = np.nan
    colors = colors_in(table.uns, domain, names) or palette(len(names))
    _panels.spots(ax, xy_um, radius_um, codes, ListedColormap(colors), (-0.5, len(names) - 0.5))
    _panels.scale_bar(ax)
    if legend:
        show_legend(ax, domain, counted(names, colors, codes))
    return ax


def _labels(sdata: SpatialData, domain: str, key: str) -> Series:
    check_object(sdata)
    if key not in sdata.tables:
        raise MissingKey(f"no table '{key}'; sdata has {listed(sdata.tables)}. Run tl.predict, or pass key=.")
    restore(sdata, key)
    obs = sdata.tables[key].obs
    if domain not in obs:
        raise MissingKey(f"no '{domain}' in tables['{key}'].obs; it has {listed(obs)}. Pass domain=.")
    if obs.columns.tolist().count(domain) > 1:
        raise BadInput(f"tables['{key}'].obs has several columns '{domain}'. Rename them, so that one can be meant.")
    column = obs[domain]
    if column.dtype.kind in "fiu":
        raise BadInput(f"'{domain}' holds numbers ({column.dtype}); domains are labels. Make it a categorical.")
    column = column.astype("category")
    if not len(column.cat.categories):
        raise BadInput(f"'{domain}' has no label in any of its {len(column)} rows.")
    return column


def _made(table: AnnData, domain: str) -> dict:
    """Provenance of the prediction that the domains are of, else of any."""
    found = table.uns.get("sq_imputer", {})
    known = table.uns.get(domain, {})
    layer = known.get("params", {}).get("layer") if isinstance(known, dict) else None
    others = (record for name, record in found.items() if name != "embeddings")
    return found.get(layer) or next(others, {})


def _axes(xy_um: np.ndarray) -> Axes:
    import matplotlib.pyplot as plt

    width, height = np.ptp(xy_um, axis=0)
    aspect = np.clip(height / width if width else 1.0, 0.3, 3)
    return plt.subplots(figsize=(5.6, 0.5 + 4 * aspect), layout="constrained")[1]
