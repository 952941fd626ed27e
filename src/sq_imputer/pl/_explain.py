"""A map of what carries a prediction, over the H&E, and one crop of it beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.pl._panels import AS_IS, RESIDUAL, pixels, scale_bar
from sq_imputer.pl._text import plain
from sq_imputer.section.keys import verb
from sq_imputer.section.read import check_object

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from sq_imputer.section.frame import Frame

MOST_PX = 1000  # along the longer side of what is drawn
HIGHEST = 97  # percentile at which colors end, so that a fold or a speck of ink does not take them all
FAINT, OPAQUE = 0.05, 0.9  # of the highest value: nothing is drawn below; the share of the color at the highest


@verb
def explain(
    sdata: SpatialData,
    gene: str,
    *,
    key: str = "explanation",
    section: str | None = None,
    spot: str | None = None,
    ax: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the map of a gene over the section, the crop of one spot, and the map over this crop.

    Red raises the prediction above that of the baseline, blue lowers it; the tissue below is gray, and is seen where
    the map is near 0. Limits are symmetric. The map of the section shows means over what a pixel of the screen covers.
    The last title says whether the map passed the tests of :func:`sq_imputer.explain.faithfulness`.

    Parameters
    ----------
    sdata
        An object that :func:`sq_imputer.tl.explain` wrote to; it is not changed.
    gene
        One of the genes that were explained.
    key
        Name of the image, or that which :func:`sq_imputer.tl.explain` was given for several sections.
    section
        Of several sections, which.
    spot
        Name of the spot whose crop is shown; that of the highest mean if left out.
    ax
        Three Axes to draw on; a new figure if not given.

    Returns
    -------
    The array of three Axes.

    Raises
    ------
    MissingKey
        If there is no such map, section, gene or spot, or several sections could be meant.
    BadInput
        If `ax` is not three Axes.

    Examples
    --------
    >>> axes = sqi.pl.explain(sdata, "NUC1", spot=spots[0])
    """
    import matplotlib.pyplot as plt

    from sq_imputer.contract import CropSpec
    from sq_imputer.runs.checks import warn_of_picture
    from sq_imputer.section.frame import read_frame
    from sq_imputer.section.overview import picture

    check_object(sdata)
    key = _key_of(sdata, key, section)
    made, row = _record(sdata, key, gene, spot)
    table = sdata.tables[f"{key}_spots"]
    frame = read_frame(sdata, made["image_key"], made["coordinate_system"], mpp=made["image_mpp"])
    warn_of_picture(frame, made, made["image_key"], "it is drawn below a map of another picture")
    axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")[1] if ax is None else np.ravel(ax)
    if len(axes) != 3:
        raise BadInput(f"ax has {len(axes)} Axes; expected 3: section, crop and map of the crop.")
    axes[0].figure.draw_without_rendering()  # lays the panels out: their pixels decide what is read
    whole, extent = _coarse(sdata, key, gene, made, pixels(axes[:1]) // 2)
    _over(axes[0], _gray(picture(frame, MOST_PX)), (whole, extent), made["unit"])
    axes[0].set(xlim=extent[:2], ylim=extent[2:])
    middle, side = np.asarray(table.obsm["spatial"])[row], float(made["extent_um"])
    spec = CropSpec(side, max(1, min(MOST_PX, round(side / frame.pixel.mpp))))
    crop = np.moveaxis(frame.crops(frame.to_px(middle[None]), spec)[0], 0, -1)
    square = _square(middle, side)
    axes[1].imshow(crop, extent=square, **AS_IS)
    _over(axes[2], _gray((crop, square)), _window(sdata, key, gene, made, square), made["unit"])
    axes[2].set(xlim=square[:2], ylim=square[2:])
    _dress(axes, frame, gene, table.obs_names[row], made, square)
    return axes


def _made(sdata: SpatialData, key: str) -> dict:
    """Provenance of a map; empty if there is none."""
    from sq_imputer.section.image import spots_of
    from sq_imputer.store.provenance import pythonic

    table = sdata.tables.get(spots_of(key))
    return {} if table is None else pythonic(table.uns.get("sq_imputer", {})).get(key, {})


def _key_of(sdata: SpatialData, key: str, section: str | None) -> str:
    """Name of the image of a section, among those that were explained under one name."""
    made = {name: _made(sdata, name) for name in sdata.images}
    found = {one.get("section"): name for name, one in made.items() if one and key in (name, one.get("of"))}
    if section is not None and section not in found:
        raise MissingKey(f"no map '{key}' of section '{section}'; there are those of {listed(found, 20)}.")
    if section is not None or (len(found) == 1 and key not in sdata.images):
        return next(iter(found.values())) if section is None else found[section]
    if len(found) > 1 and key not in sdata.images:
        raise MissingKey(f"maps '{key}' are of sections {listed(found, 20)}. Pass section=, one of them.")
    return key


def _record(sdata: SpatialData, key: str, gene: str, spot: str | None) -> tuple[dict, int]:
    """Provenance of the map, and the row of the spot."""
    from sq_imputer.section.image import spots_of

    table, made = sdata.tables.get(spots_of(key)), _made(sdata, key)
    if key not in sdata.images or not made:
        raise MissingKey(f"no map '{key}'; sdata has images {listed(sdata.images)}. Call tl.explain, or pass key=.")
    if gene not in table.var_names:
        raise MissingKey(f"no gene '{gene}' in map '{key}'; it has {listed(table.var_names)}.")
    if spot is not None and spot not in table.obs_names:
        raise MissingKey(f"no spot '{spot}' in map '{key}'; it has {listed(table.obs_names)}. Pass spot=.")
    mean = np.asarray(table.X)[:, table.var_names.get_loc(gene)]
    return made, int(np.argmax(mean)) if spot is None else int(table.obs_names.get_loc(spot))


def _extent(made: dict, top: int, left: int, shape: tuple[int, int], step: int = 1) -> tuple:
    (x, y), um = made["origin_um"], made["mpp"]
    x, y = x + left * um, y + top * um
    return (x, x + shape[1] * step * um, y + shape[0] * step * um, y)


def _coarse(sdata: SpatialData, key: str, gene: str, made: dict, most_px: int) -> tuple[np.ndarray, tuple]:
    """The whole map in few pixels, each the mean of those that have a value; read block by block."""
    import dask.array as da

    image = sdata.images[key].sel(c=gene).data
    step = max(1, -(-max(image.shape) // max(1, most_px)))
    there = da.isfinite(image)
    parts = (da.where(there, image, 0), there.astype(np.float32))
    total, n = da.compute(*(da.coarsen(np.sum, part, {0: step, 1: step}, trim_excess=True) for part in parts))
    values = np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
    return values, _extent(made, 0, 0, values.shape, step)


def _window(sdata: SpatialData, key: str, gene: str, made: dict, square: tuple) -> tuple[np.ndarray, tuple]:
    """The map around a square, as fine as it is."""
    image = sdata.images[key].sel(c=gene).data
    x, y = made["origin_um"]
    x0, x1, y1, y0 = (np.array(square) - (x, x, y, y)) / made["mpp"]
    top, left = max(0, int(np.floor(y0))), max(0, int(np.floor(x0)))
    values = np.asarray(image[top : int(np.ceil(y1)), left : int(np.ceil(x1))])
    return values, _extent(made, top, left, values.shape)


def _square(middle: np.ndarray, side: float) -> tuple:
    (x, y), half = middle, side / 2
    return (x - half, x + half, y + half, y - half)


def _gray(background: tuple[np.ndarray, tuple]) -> tuple[np.ndarray, tuple]:
    rgb, extent = background
    light = rgb.mean(axis=-1, keepdims=True) / 255
    return np.repeat(0.35 + 0.65 * light, 3, axis=-1), extent


def _over(ax: Axes, background: tuple, values: tuple, unit: str) -> None:
    """A signed map over a picture: the larger the value, the less of the tissue is seen."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    (rgb, extent), (shown, place) = background, values
    size = np.abs(shown[np.isfinite(shown)])
    limit = float(np.percentile(size, HIGHEST)) if size.any() else 1.0
    limit = limit or float(size.max())
    colors = ScalarMappable(Normalize(-limit, limit), RESIDUAL)
    rgba = colors.to_rgba(np.nan_to_num(shown))
    strength = np.clip(np.abs(np.nan_to_num(shown)) / limit, 0, 1)
    rgba[..., 3] = OPAQUE * np.clip((strength - FAINT) / (1 - FAINT), 0, 1)
    ax.imshow(rgb, extent=extent, **AS_IS)
    ax.imshow(rgba, extent=place, **{**AS_IS, "interpolation": "nearest"})
    label = plain(f"contribution, {unit}") if unit else "contribution"
    ax.figure.colorbar(colors, cax=ax.inset_axes((1.02, 0, 0.04, 1)), label=label, extend="both", extendfrac=0.03)


def _dress(axes: np.ndarray, frame: Frame, gene: str, spot: str, made: dict, square: tuple) -> None:
    from matplotlib.patches import Rectangle

    tests, at = made["faithfulness"], made["genes"].index(gene)
    said = "faithful" if tests["faithful"][at] else "not faithful"
    numbers = f"gain {tests['gain'][at]:.2f} sd, random weights {tests['random_weights'][at]:.2f}"
    axes[0].set_title(plain(f"{gene}: {made['method']} of {made['model']}"), fontsize="medium")
    axes[0].add_patch(Rectangle((square[0], square[3]), *[made["extent_um"]] * 2, fill=False, color="black", lw=1))
    axes[1].set_title(plain(f"crop of {spot}"), fontsize="medium")
    axes[2].set_title(f"{said}: {numbers}", fontsize="medium")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax in axes[:2]:
        scale_bar(ax)
