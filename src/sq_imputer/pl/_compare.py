"""Measured, predicted, residual and uncertainty of a gene, side by side over the H&E."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from spatialdata import SpatialData

    from sq_imputer.data.slide import Slide

Background = tuple[np.ndarray, tuple[float, float, float, float]]

VALUES, RESIDUAL, SPREAD = "viridis", "RdBu_r", "plasma"  # told apart by colorblind readers
MANY = 2000  # spots; more are drawn as pixels in vector formats
EDGE = {"edgecolors": "0.4", "linewidths": 0.25}  # the palest spots would vanish on glass; too wide around a pixel
FEWEST_PX = 2.5  # across a spot on the screen; below, its color would be mixed with that of the glass
FLATTEST = 0.5  # of a panel: height by width; color bars are as high, and have labels
BACKGROUND_PX = 1200


def compare(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    layer: str | None = None,
    key: str = "imputed",
    background: bool = True,
    ax: np.ndarray | None = None,
) -> np.ndarray:
    """Draw measured, predicted, residual and, where there is one, standard deviation: one row of Axes per gene.

    Spots lie over the image that was predicted from and have their true diameter, unless that is a pixel or two: they
    then touch, so that colors can be read. Measured and predicted share their colors; spots that were not measured are
    hollow in the measured panel.

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
    """
    from sq_imputer.data import read
    from sq_imputer.data.slide import Slide

    genes = [genes] if isinstance(genes, str) else list(genes)
    table = _table(sdata, key, genes)
    layer = _layer(table, key, layer, genes)
    made = table.uns.get("sq_imputer", {}).get(layer, {})
    shapes_key = read.find_shapes(sdata, None, key)
    where = made.get("image_key"), shapes_key, None, made.get("coordinate_system")
    slide = Slide.from_sdata(sdata, *where, mpp=made.get("mpp"), outside="pad")
    rows, position = read.rows_of(table, sdata.shapes[shapes_key], shapes_key, key)
    parts = {
        name: _columns(table, name, genes)[rows] for name in ("measured", layer, f"{layer}_std") if name in table.layers
    }
    width, height = np.ptp(slide.xy_um, axis=0)
    axes = _axes(ax, len(genes), 4 if f"{layer}_std" in parts else 3, height / width if width else 1.0)
    picture = _background(slide, _pixels(axes)) if background else None
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
        )
    return axes


def _table(sdata: SpatialData, key: str, genes: Sequence[str] | None) -> AnnData:
    """The table, which has these genes, if any are named."""
    if key not in sdata.tables:
        raise MissingKey(f"no table '{key}'; sdata has {listed(sdata.tables)}. Run tl.predict, or pass key=.")
    table = sdata.tables[key]
    lost = [gene for gene in genes or () if gene not in table.var_names]
    if lost or (genes is not None and not len(genes)):
        raise MissingKey(f"no gene {listed(lost)} in table '{key}'; it has {listed(table.var_names)}. Pass genes=.")
    return table


def _layer(table: AnnData, key: str, layer: str | None, genes: Sequence[str]) -> str:
    """The layer as given, else the only model's, else the one that X is a copy of."""
    if layer is not None:
        if layer not in table.layers:
            raise MissingKey(f"no layer '{layer}' in table '{key}'; it has {listed(table.layers)}. Pass layer=.")
        return layer
    models = [name for name in table.uns.get("sq_imputer", {}) if name in table.layers]
    if len(models) > 1 and table.X is not None:
        last = _columns(table, None, genes)
        models = [name for name in models if np.array_equal(_columns(table, name, genes), last, equal_nan=True)]
    if len(models) != 1:
        raise MissingKey(
            f"table '{key}' does not say which prediction is its last; layers: {listed(table.layers)}. Pass layer=."
        )
    return models[0]


def _columns(table: AnnData, layer: str | None, genes: Sequence[str]) -> np.ndarray:
    columns = table.var_names.get_indexer(list(genes))
    values = (table.X if layer is None else table.layers[layer])[:, columns]
    values = values.compute() if hasattr(values, "compute") else values  # a streamed layer is lazy
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=float)


def _axes(ax, n_genes: int, n_panels: int, aspect: float) -> np.ndarray:
    import matplotlib.pyplot as plt

    if ax is None:
        size = (4.2 * n_panels, (0.6 + 3.2 * np.clip(aspect, FLATTEST, 3)) * n_genes)
        return plt.subplots(n_genes, n_panels, figsize=size, squeeze=False, layout="constrained")[1]
    axes = np.atleast_2d(np.asarray(ax, dtype=object))
    if axes.shape not in {(n_genes, 3), (n_genes, n_panels)}:
        raise BadInput(
            f"ax has shape {axes.shape}; {n_genes} genes with {n_panels} panels need ({n_genes}, {n_panels})."
        )
    return axes


def _pixels(axes: np.ndarray) -> int:
    """Two image pixels per screen pixel of the largest panel, as saved figures are finer than shown ones."""
    sizes = [ax.get_window_extent() for ax in axes.flat]
    return min(BACKGROUND_PX, int(np.ceil(2 * max(max(size.width, size.height) for size in sizes))))


def _background(slide: Slide, most_px: int = BACKGROUND_PX) -> Background:
    """The square of tissue around all spots, turned as their coordinates are: one large crop, no finer than asked."""
    from sq_imputer.contract import CropSpec

    low, high = slide.xy_um.min(axis=0), slide.xy_um.max(axis=0)
    middle, side = (low + high) / 2, float((high - low).max() + 2 * slide.size_um.max())
    size = min(most_px, int(np.ceil(side / slide.frame.pixel.mpp)))
    crop = slide.frame.crops(slide.frame.to_px(middle[None]), CropSpec(side, size))[0]
    (left, top), (right, bottom) = middle - side / 2, middle + side / 2
    return crop.transpose(1, 2, 0), (left, right, bottom, top)


def draw(
    axes: Sequence[Axes],
    xy_um: np.ndarray,
    measured: np.ndarray,
    predicted: np.ndarray,
    std: np.ndarray | None = None,
    *,
    background: Background | None = None,
    radius_um: float | np.ndarray,
    gene: str,
    unit: str = "",
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
    """
    measured, predicted = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    both = np.concatenate([measured, predicted])
    residual = measured - predicted
    difference = f"difference, {unit}" if unit else "difference"
    panels = [
        ("measured", measured, VALUES, _limits(both), unit),
        ("predicted", predicted, VALUES, _limits(both), unit),
        ("measured − predicted", residual, RESIDUAL, _limits(residual, around_zero=True), difference),
    ]
    if std is not None:
        std = np.asarray(std, dtype=float)
        panels.append(("standard deviation", std, SPREAD, _limits(std), unit))
    radius_um = _seen(axes[0], xy_um, radius_um)
    for ax, (title, values, colors, limits, label) in zip(axes, panels, strict=True):
        _panel(ax, xy_um, radius_um, background)
        ax.set_title(title, fontsize="medium")
        _color_bar(ax, _spots(ax, xy_um, radius_um, values, colors, limits), label)
    axes[0].set_ylabel(gene, fontstyle="italic", fontsize="large")
    _scale_bar(axes[0])


def _limits(values: np.ndarray, around_zero: bool = False) -> tuple[float, float]:
    """First and last percentile, so that one spot does not take all the colors; never empty."""
    values = values[np.isfinite(values)]
    values = np.concatenate([values, -values]) if around_zero else values
    if not len(values):
        return (-1.0, 1.0) if around_zero else (0.0, 1.0)
    low, high = np.percentile(values, [1, 99])
    if not high > low:  # a gene seen in a few spots, or a constant one
        low, high = values.min(), values.max()
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return float(low), float(high)


def _seen(ax: Axes, xy_um: np.ndarray, radius_um):
    """The radius, or one at which neighbors touch where spots would be too small on the screen to show a color."""
    from scipy.spatial import cKDTree

    panel = ax.get_window_extent()
    um_per_px = float(np.max(np.ptp(xy_um, axis=0))) / max(panel.width, panel.height)
    if len(xy_um) < 2 or 2 * np.median(radius_um) >= FEWEST_PX * um_per_px:
        return radius_um
    pitch = np.median(cKDTree(xy_um).query(xy_um, k=2)[0][:, 1])
    return np.maximum(radius_um, 0.72 * pitch)  # of a square lattice, more than half a diagonal


def _panel(ax: Axes, xy_um: np.ndarray, radius_um, background: Background | None) -> None:
    if background is not None:
        rgb, extent = background
        ax.imshow(rgb, extent=extent, alpha=0.4, zorder=0)  # pale, so that spots stand out
    low, high = np.min(xy_um, axis=0), np.max(xy_um, axis=0)
    half = (high - low) / 2 + 2 * float(np.max(radius_um))
    half = np.maximum(half, FLATTEST * half[::-1])
    (left, top), (right, bottom) = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _spots(ax: Axes, xy_um, radius_um, values, colors: str, limits: tuple[float, float]) -> EllipseCollection:
    """Circles in µm, colored where there is a value and hollow where there is none."""
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Normalize

    seen, diameter = np.isfinite(values), np.broadcast_to(2 * np.asarray(radius_um, dtype=float), len(values))
    common = {"units": "xy", "offset_transform": ax.transData, "rasterized": len(values) > MANY}

    def circles(rows, **style) -> EllipseCollection:
        size = diameter[rows]
        return ax.add_collection(
            EllipseCollection(size, size, np.zeros(len(size)), offsets=xy_um[rows], **common, **style), autolim=False
        )

    if not seen.all():
        circles(~seen, facecolors="none", edgecolors="0.45", linewidths=0.4 if len(values) < MANY else 0.15)
    edge = EDGE if len(values) <= MANY else {"linewidths": 0}
    spots = circles(seen, **edge, cmap=colors, norm=Normalize(*limits))
    spots.set_array(values[seen])
    return spots


def _color_bar(ax: Axes, spots: EllipseCollection, label: str) -> None:
    values, norm = np.asarray(spots.get_array()), spots.norm
    below, above = np.min(values, initial=norm.vmin) < norm.vmin, np.max(values, initial=norm.vmax) > norm.vmax
    extend = ("neither", "max", "min", "both")[2 * int(below) + int(above)]
    beside = ax.inset_axes((1.02, 0, 0.04, 1))  # as high as the tissue, whatever its shape
    ax.figure.colorbar(spots, cax=beside, label=label, extend=extend, extendfrac=0.03)


def _scale_bar(ax: Axes) -> None:
    """A bar of 1, 2 or 5 times a power of ten µm, at most a quarter of the width, below the tissue."""
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    width_um = float(np.ptp(ax.get_xlim()))
    power = 10 ** np.floor(np.log10(width_um / 4))
    length = max(step * power for step in (1, 2, 5) if step * power <= width_um / 4)
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": ax.transAxes}
    ax.add_artist(
        AnchoredSizeBar(
            ax.transData,
            length,
            label,
            pad=0.2,
            borderpad=0.2,
            sep=2,
            frameon=False,
            size_vertical=width_um / 150,
            **place,
        )
    )
