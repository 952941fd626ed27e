"""The panels of a comparison: of numbers, and of the classes that rows are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.pl import _panels
from sq_imputer.pl._categories import colors_in, counted, legend, palette
from sq_imputer.pl._text import plain
from sq_imputer.target import CLASSES, UNITS

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Colormap
    from spatialdata import SpatialData

SPREAD = "standard deviation"
BY_FOLD = f"{SPREAD}\n(a model per fold)"
DIFFERENCE = "measured − predicted"
LEAST = 0.2  # of itself that the colors of a standard deviation span: how large it is is not known better than that
RIGHT = {"right": "#bdbdbd", "wrong": "#d55e00"}  # what is wrong is looked for


@dataclass(frozen=True)
class Look:
    """Ends of the colors of values, and their map."""

    vmin: _panels.Limit = None
    vmax: _panels.Limit = None
    cmap: str | Colormap = _panels.VALUES

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        """Ends of the colors of these values."""
        return _panels.chosen_limits(values, self.vmin, self.vmax)


@dataclass(frozen=True)
class Panel:
    """What one Axes shows: `(n,)` values, NaN where there is none, and what says what their colors are."""

    title: str
    values: np.ndarray
    colors: str | Colormap
    limits: tuple[float, float]
    explain: Callable[[Axes, EllipseCollection], None]


def value_panels(
    measured: np.ndarray | None,
    predicted: np.ndarray,
    std: np.ndarray | None = None,
    *,
    units: tuple[str, str] = ("", ""),
    spread: str = SPREAD,
    look: Look | None = None,
) -> list[Panel]:
    """The panels of one gene, or of one column of another target.

    Parameters
    ----------
    measured, predicted, std
        `(n,)`; NaN where there is none. Without `measured` there is neither that panel nor a residual; without `std`
        no panel of it.
    units
        Of what was measured and of what is predicted; where these differ, there is no residual.
    spread
        Title of the panel of `std`.
    look
        Colors of values.
    """
    look = look or Look()
    predicted = np.asarray(predicted, dtype=float)
    if measured is None:
        panels = [_numbers("predicted", predicted, look.cmap, look.limits(predicted), units[1])]
    else:
        measured = np.asarray(measured, dtype=float)
        both, comparable = np.concatenate([measured, predicted]), units[0] == units[1]
        ends = [look.limits(both if comparable else values) for values in (measured, predicted)]
        panels = [
            _numbers("measured", measured, look.cmap, ends[0], units[0]),
            _numbers("predicted", predicted, look.cmap, ends[1], units[1]),
        ]
        if comparable:
            residual = measured - predicted
            ends = _panels.limits(residual, around_zero=True)
            panels.append(_numbers(DIFFERENCE, residual, _panels.RESIDUAL, ends, of_difference(units[0])))
    if std is not None:
        std = np.asarray(std, dtype=float)
        panels.append(_numbers(spread, std, _panels.SPREAD, _panels.limits(std, least=LEAST), units[1]))
    return panels


def of_difference(unit: str) -> str:
    """What the colors of a difference of values of this unit are called."""
    return f"difference, {unit}" if unit else "difference"


def is_of_classes(table: AnnData) -> bool:
    """Whether the columns of a table are probabilities of classes."""
    return "kind" in table.var and bool((table.var["kind"] == CLASSES).all())


def call_panels(
    sdata: SpatialData, table: AnnData, layer: str, measured: np.ndarray | None, predicted: np.ndarray, look: Look
) -> list[Panel]:
    """The panels of classes: measured, called, right or wrong, and the probability of the call.

    `measured` and `predicted` are `(n, classes)`; the first is None, or NaN in rows of no known class.
    """
    names = list(table.var_names)
    made = table.uns.get("sq_imputer", {}).get(layer, {})
    name = str(made.get("target", {}).get("where", "")).partition(":")[2] or "class"
    colors = _class_colors(sdata, table, layer, name, str(made.get("table_key", "")), names)
    said, probable = _called(predicted), predicted.max(axis=1)
    probability = _numbers("probability of the call", probable, look.cmap, look.limits(probable), UNITS[CLASSES])
    if measured is None:
        return [_categories("called", said, names, colors, name), probability]
    truth = _called(measured)
    right = np.where(np.isnan(truth) | np.isnan(said), np.nan, (truth != said).astype(float))
    return [
        _categories("measured", truth, names, colors, name, "not measured"),
        _categories("called", said, names, colors, name),
        _categories("right or wrong", right, list(RIGHT), list(RIGHT.values()), "call", "not measured"),
        probability,
    ]


def _called(shares: np.ndarray) -> np.ndarray:
    """The number of the class of most, by row; NaN where nothing is known."""
    known = np.isfinite(shares).all(axis=1)
    return np.where(known, np.where(known[:, None], shares, 0).argmax(axis=1), np.nan)


def _class_colors(
    sdata: SpatialData, table: AnnData, layer: str, name: str, table_key: str, names: list[str]
) -> list[str]:
    """The colors that the user keeps of the classes, else scanpy's, in its order of all classes of the column."""
    source = sdata.tables.get(table_key) if table_key else None
    known, kept = names, []
    if source is not None and name in source.obs:
        known = [str(one) for one in source.obs[name].astype("category").cat.categories]
        kept = colors_in(source.uns, name, known)
    if not set(names) <= set(known):
        known, kept = names, []
    if not kept:
        own = colors_in(table.uns, f"{layer}_{name}", names)
        if own:
            return own
    found = dict(zip(known, kept or palette(len(known)), strict=True))
    return [found[one] for one in names]


def _numbers(title: str, values: np.ndarray, colors: str | Colormap, ends: tuple[float, float], unit: str) -> Panel:
    return Panel(title, values, colors, ends, lambda ax, spots: _panels.color_bar(ax, spots, unit))


def _categories(
    title: str, codes: np.ndarray, names: list[str], colors: list[str], heading: str, none: str = "none"
) -> Panel:
    from matplotlib.colors import ListedColormap

    shown = counted(names, colors, codes, none)
    ends = (-0.5, len(names) - 0.5)
    return Panel(title, codes, ListedColormap(colors), ends, lambda ax, spots: legend(ax, heading, shown))


def draw(
    axes: Sequence[Axes],
    panels: Sequence[Panel],
    xy_um: np.ndarray,
    radius_um: float | np.ndarray,
    *,
    background: _panels.Background | None = None,
    heading: str = "",
) -> None:
    """Draw panels, one on each of the Axes.

    Parameters
    ----------
    axes, panels
        As many of one as of the other.
    xy_um
        `(n, 2)` centers, y down.
    radius_um
        Of all spots, or `(n,)`; widened where that is a pixel or two.
    background
        `(h, w, 3)` image and its `(left, right, bottom, top)` in µm.
    heading
        Name of the gene, at the left.
    """
    radius_um = _panels.visible_radius(axes[0], xy_um, radius_um)
    for ax, panel in zip(axes, panels, strict=True):
        _panels.panel(ax, xy_um, radius_um, background)
        ax.set_title(panel.title, fontsize="medium")
        panel.explain(ax, _panels.spots(ax, xy_um, radius_um, panel.values, panel.colors, panel.limits))
    axes[0].set_ylabel(plain(heading), fontstyle="italic", fontsize="large")
    _panels.scale_bar(axes[0])
