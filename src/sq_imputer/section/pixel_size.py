"""How many µm a pixel is, and who says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.section import read
from sq_imputer.section.lattice import TECHNOLOGIES, fit_pitch

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# `spot_diameter_fullres` of Space Ranger is that of a theoretical spot of 65 µm (documented by 10x; it agrees with the
# 100 µm pitch to four digits). The printed spot has 55 µm.
VISIUM_SPOT_UM = 65.0
# a word of its own: "slide_um", but not "cerebellum"
MICRONS = re.compile(r"(?<![^\W_])(um|µm|μm|microns?|micromet(er|re)s?)$", re.IGNORECASE)
BIN = re.compile(r"square_(\d{3})um$")
# A number that was typed in is more often wrong than one that was found: thumbnails beside scale factors may be coarse.
TYPED, FOUND = (0.05, 20.0), (0.02, 100.0)
Place = tuple[str, str | None]  # image key, and the coordinate system that was asked for


@dataclass(frozen=True)
class PixelSize:
    """µm per pixel of an image's finest level.

    Parameters
    ----------
    mpp
        The value.
    source
        Where it came from.
    """

    mpp: float
    source: str


def pixel_size(
    sdata: SpatialData,
    image_key: str,
    *,
    mpp: float | PixelSize | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    coordinate_system: str | None = None,
) -> PixelSize:
    """µm per pixel from the first of: argument, µm transformation, Visium scale factors, lattice of a technology.

    Spots meet the image in `coordinate_system` where they have it, else in whatever systems they share.

    Raises
    ------
    BadInput
        If none applies, or the value is no sensible pixel size.
    """
    if technology is not None and technology not in TECHNOLOGIES:
        raise MissingKey(f"no technology '{technology}'; there are {listed(TECHNOLOGIES)}. Pass mpp= instead.")
    if mpp is not None:
        given = mpp if isinstance(mpp, PixelSize) else PixelSize(mpp, "argument")
        check_number("mpp", given.mpp)
        return _sensible(PixelSize(float(given.mpp), given.source), image_key, FOUND if given is mpp else TYPED)
    place = image_key, coordinate_system
    for find in (_from_transformation, _from_visium, _from_lattice):
        found = find(sdata, place, table_key, technology)
        if found is not None:
            return _sensible(found, image_key)
    raise BadInput(
        f"no µm per pixel is known for image '{image_key}': it has no transformation to a coordinate system in µm "
        f"(it has "
        f"{listed(read.systems(sdata.images[image_key]))}) and no Visium spots lie on it. Pass mpp= (µm per pixel), or "
        f"technology= (one of {listed(TECHNOLOGIES)}) where the table has array_row and array_col."
    )


def as_seen(record: Mapping) -> dict:
    """Arguments of `Slide.from_sdata` for a section that was predicted: seen as it was then, whatever it took."""
    mpp, source = record.get("mpp"), record.get("mpp_source", "argument")
    return {"mpp": None if mpp is None else PixelSize(mpp, source), "outside": "pad", "missing": "fill"}


def _sensible(size: PixelSize, image_key: str, sensible: tuple[float, float] = FOUND) -> PixelSize:
    if not sensible[0] <= size.mpp <= sensible[1]:
        raise BadInput(
            f"image '{image_key}' would have {size.mpp:.4g} µm per pixel (from {size.source}); expected "
            f"{sensible[0]:g} to {sensible[1]:g}. Pass mpp=, in µm per pixel of its finest level."
        )
    return size


def _from_transformation(sdata: SpatialData, place: Place, *_) -> PixelSize | None:
    image_key, _ = place
    for name in read.systems(sdata.images[image_key]):
        if MICRONS.search(name):
            matrix = read.affine(sdata.images[image_key], name)
            return PixelSize(read.similarity(matrix, f"image '{image_key}'")[0], f"transformation to '{name}'")
    return None


def _on_image(sdata: SpatialData, place: Place) -> list[str]:
    """Names of the shapes that share a coordinate system with the image."""
    here = set(read.systems(sdata.images[place[0]]))
    return [name for name in sdata.shapes if here & set(read.systems(sdata.shapes[name]))]


def _pixels(sdata: SpatialData, place: Place, shapes_key: str) -> float:
    """Pixels of the image per unit of the shapes' own coordinates."""
    image_key, name = place
    name = name if name in read.systems(sdata.shapes[shapes_key]) else None
    to_image = read.geometry(sdata, image_key, shapes_key, name).to_image
    return read.similarity(to_image, f"shapes '{shapes_key}'")[0]


def _from_visium(sdata: SpatialData, place: Place, *_) -> PixelSize | None:
    for name in _on_image(sdata, place):
        found = _bins(sdata, name) or next(filter(None, (_spots(sdata, name, key) for key in sdata.tables)), None)
        if found is not None:  # µm per unit of the shapes, so far
            return PixelSize(found.mpp / _pixels(sdata, place, name), found.source)
    return None


def _bins(sdata: SpatialData, shapes_key: str) -> PixelSize | None:
    match = BIN.search(shapes_key)
    if match is None:
        return None
    side = float(np.median(read.sizes(sdata.shapes[shapes_key])))
    return PixelSize(int(match[1]) / side, f"Visium HD bins of {int(match[1])} µm in '{shapes_key}'")


def _spots(sdata: SpatialData, shapes_key: str, table_key: str) -> PixelSize | None:
    if shapes_key not in read.annotated(sdata, table_key):
        return None
    factors = _scale_factors(sdata.tables[table_key])
    if "microns_per_pixel" in factors:
        return PixelSize(factors["microns_per_pixel"], "Visium scale factors (microns_per_pixel)")
    if "spot_diameter_fullres" in factors:
        size = VISIUM_SPOT_UM / factors["spot_diameter_fullres"]
        return PixelSize(size, "Visium scale factors (spot_diameter_fullres)")
    size = _visium_spots(sdata, shapes_key, table_key)
    return None if size is None else PixelSize(size, f"Visium spot diameter of '{shapes_key}', confirmed by its pitch")


def _scale_factors(table: AnnData) -> dict:
    """Scale factors of the one library in `uns['spatial']`, the place that scanpy and squidpy use."""
    libraries = list(table.uns.get("spatial", {}).values())
    return dict(libraries[0].get("scalefactors", {})) if len(libraries) == 1 else {}


def _array_positions(table: AnnData) -> tuple[np.ndarray, np.ndarray] | None:
    if not {"array_row", "array_col"} <= set(table.obs):
        return None
    return table.obs["array_row"].to_numpy(dtype=float), table.obs["array_col"].to_numpy(dtype=float)


def _lattice(sdata: SpatialData, shapes_key: str, table_key: str) -> tuple[np.ndarray, np.ndarray] | None:
    table, shapes = sdata.tables[table_key], sdata.shapes[shapes_key]
    position = _array_positions(table)
    if position is None:
        return None
    rows, where = read.rows_of(table, shapes, shapes_key, table_key)
    return read.centers(shapes, shapes_key)[where], np.column_stack(position)[rows]


def _visium_spots(sdata: SpatialData, shapes_key: str, table_key: str) -> float | None:
    """µm per unit of the shapes, if spot diameter and pitch both say that this is Visium."""
    if not read.are_circles(sdata.shapes[shapes_key]):
        return None
    lattice = _lattice(sdata, shapes_key, table_key)
    if lattice is None:
        return None
    try:
        by_pitch = fit_pitch(*lattice, "visium")
    except BadInput:  # too few spots, or another lattice: not Visium
        return None
    by_diameter = VISIUM_SPOT_UM / float(np.median(read.sizes(sdata.shapes[shapes_key])))
    return by_diameter if abs(by_diameter / by_pitch - 1) < 0.03 else None


def _from_lattice(sdata: SpatialData, place: Place, table_key: str | None, technology: str | None) -> PixelSize | None:
    if technology is None:
        return None
    for name in _on_image(sdata, place):
        if name in read.annotated(sdata, table_key):
            lattice = _lattice(sdata, name, table_key)
            if lattice is None:
                raise BadInput(
                    f"technology='{technology}' needs obs columns array_row and array_col in table '{table_key}'."
                )
            size = fit_pitch(*lattice, technology) / _pixels(sdata, place, name)
            return PixelSize(size, f"lattice pitch of '{technology}' in '{name}'")
    return None
