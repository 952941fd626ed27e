"""What pictures of spots over tissue are made of: background, spots in their true size, colors, bars."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.pl._text import plain
from sq_imputer.section.lattice import pitch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Colormap

    from sq_imputer.section.slide import Slide

Background = tuple[np.ndarray, tuple[float, float, float, float]]
Limit = float | str | None

VALUES, RESIDUAL, SPREAD = "viridis", "RdBu_r", "plasma"  # told apart by colorblind readers
MANY = 2000  # spots; more are drawn as pixels in vector formats
EDGE = {"edgecolors": "0.4", "linewidths": 0.25}  # the palest spots would vanish on glass; too wide around a pixel
FEWEST_PX = 2.5  # across a spot on the screen; below, its color would be mixed with that of the glass
FLATTEST = 0.5  # of a panel: height by width; color bars are as high, and have labels
BACKGROUND_PX = 1200
PALE = 0.4  # the tissue, so that spots stand out
AS_IS = {"origin": "upper", "interpolation": "antialiased"}  # of images, whatever the user's rcParams say


def pixels(axes: np.ndarray) -> int:
    """Two image pixels per screen pixel of the largest panel, as saved figures are finer than shown ones."""
    sizes = [ax.get_window_extent() for ax in axes.flat]
    return min(BACKGROUND_PX, int(np.ceil(2 * max(max(size.width, size.height) for size in sizes))))


def in_a_row(axes, number: int) -> np.ndarray:
    """Axes `(number,)` that a verb was handed, or made; an error if there are not so many."""
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != number:
        raise BadInput(f"axes are {len(axes)}; expected {number}.")
    return axes


def background(slide: Slide, made: Mapping, most_px: int = BACKGROUND_PX) -> Background:
    """The square of tissue around all spots, turned as their coordinates are: one large crop, no finer than asked.

    `made` is the record of what is drawn over it.
    """
    from sq_imputer.contract import CropSpec
    from sq_imputer.runs.checks import warn_of_picture

    what = "it is drawn below what was made of another picture"
    warn_of_picture(slide.frame, made, slide.keys["image_key"], what)
    low, high = slide.xy_um.min(axis=0), slide.xy_um.max(axis=0)
    middle, side = (low + high) / 2, float((high - low).max() + 2 * slide.size_um.max())
    size = min(most_px, int(np.ceil(side / slide.frame.pixel.mpp)))
    crop = slide.frame.crops(slide.frame.to_px(middle[None]), CropSpec(side, size))[0]
    (left, top), (right, bottom) = middle - side / 2, middle + side / 2
    return crop.transpose(1, 2, 0), (left, right, bottom, top)


def limits(values: np.ndarray, around_zero: bool = False, least: float = 0.0) -> tuple[float, float]:
    """First and last percentile, so that one spot does not take all the colors; never empty.

    `least` is the share of their middle by which they differ at least: what varies by less is no contrast.
    """
    values = values[np.isfinite(values)]
    values = np.concatenate([values, -values]) if around_zero else values
    if not len(values):
        return (-1.0, 1.0) if around_zero else (0.0, 1.0)
    low, high = np.percentile(values, [1, 99])
    if not high > low:  # a gene seen in a few spots, or a constant one
        low, high = values.min(), values.max()
    if not high > low:
        low, high = low - 0.5, high + 0.5
    middle = (low + high) / 2
    half = max((high - low) / 2, least / 2 * abs(middle))
    return float(middle - half), float(middle + half)


def chosen_limits(values: np.ndarray, vmin: Limit, vmax: Limit) -> tuple[float, float]:
    """First and last percentile, or what is asked for instead: a number, or text as "p99" for a percentile."""
    low, high = limits(values)
    low, high = _limit("vmin", vmin, values, low), _limit("vmax", vmax, values, high)
    if not low < high:
        raise BadInput(f"colors would go from vmin {low:g} to vmax {high:g}; expected vmin below vmax. Change one.")
    return low, high


def _limit(name: str, limit: Limit, values: np.ndarray, usual: float) -> float:
    if limit is None:
        return usual
    try:
        found = float(limit.removeprefix("p") if isinstance(limit, str) else limit)
        percent = isinstance(limit, str)
        if not np.isfinite(found) or (percent and not (limit.startswith("p") and 0 <= found <= 100)):
            raise ValueError
    except (TypeError, ValueError):
        raise BadInput(f"{name} is {limit!r}; expected a number, or a percentile such as 'p99'.") from None
    there = values[np.isfinite(values)]
    return (float(np.percentile(there, found)) if len(there) else usual) if percent else found


def color_map(cmap: str | Colormap | None) -> str | Colormap:
    """The color map of values that is asked for, or the usual one."""
    import matplotlib

    if isinstance(cmap, str) and cmap not in matplotlib.colormaps:
        near = get_close_matches(cmap, matplotlib.colormaps, 1, 0)
        raise BadInput(f"cmap is {cmap!r}, which matplotlib does not have; did you mean {listed(near)}?")
    return VALUES if cmap is None else cmap


def visible_radius(ax: Axes, xy_um: np.ndarray, radius_um):
    """The radius, or one at which neighbors touch, and each covers its pixel, where spots would be too small to show.

    Cells by the million are smaller than a pixel, however near they are, and would let the glass shine through.
    """
    panel = ax.get_window_extent()
    return widened(xy_um, radius_um, max(panel.width, panel.height))


def widened(xy_um: np.ndarray, radius_um, across_px: float):
    """The same in a panel that is so many pixels large."""
    um_per_px = float(np.max(np.ptp(xy_um, axis=0))) / across_px
    if len(xy_um) < 2 or 2 * np.median(radius_um) >= FEWEST_PX * um_per_px:
        return radius_um
    return np.maximum(radius_um, 0.72 * max(pitch(xy_um), um_per_px))  # of a square, more than half a diagonal


def panel(ax: Axes, xy_um: np.ndarray, radius_um, background: Background | None) -> None:
    """Axes as large as the tissue, in µm, over the background if there is one."""
    if background is not None:
        rgb, extent = background
        ax.imshow(rgb, extent=extent, alpha=PALE, zorder=0, **AS_IS)
    left, right, bottom, top = room(xy_um, radius_um)
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def room(xy_um: np.ndarray, radius_um) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of what spots need, in µm, never flatter than panels are."""
    low, high = np.min(xy_um, axis=0), np.max(xy_um, axis=0)
    half = (high - low) / 2 + 2 * float(np.max(radius_um))
    half = np.maximum(half, FLATTEST * half[::-1])
    (left, top), (right, bottom) = (low + high) / 2 - half, (low + high) / 2 + half
    return left, right, bottom, top


def spots(ax: Axes, xy_um, radius_um, values, colors: str | Colormap, limits: tuple[float, float]) -> EllipseCollection:
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


def color_bar(ax: Axes, spots: EllipseCollection, label: str) -> None:
    """What the colors of the spots mean; pointed where values lie beyond them."""
    values, norm = np.asarray(spots.get_array()), spots.norm
    below, above = np.min(values, initial=norm.vmin) < norm.vmin, np.max(values, initial=norm.vmax) > norm.vmax
    extend = ("neither", "max", "min", "both")[2 * int(below) + int(above)]
    beside = ax.inset_axes((1.02, 0, 0.04, 1))  # as high as the tissue, whatever its shape
    ax.figure.colorbar(spots, cax=beside, label=plain(label), extend=extend, extendfrac=0.03)


def scale_bar(ax: Axes) -> None:
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
