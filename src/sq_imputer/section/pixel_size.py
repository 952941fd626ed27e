"""How many µm a pixel is, and who says so: every source is asked, and those that contradict each other are told."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, SqImputerError, check_number, listed
from sq_imputer.section import read
from sq_imputer.section.keys import PLACES
from sq_imputer.section.lattice import TECHNOLOGIES, is_staggered, mpp_of_lattice
from sq_imputer.target import Target

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# `spot_diameter_fullres` of Space Ranger is that of a theoretical spot of 65 µm (documented by 10x; it agrees with the
# 100 µm pitch to four digits). The printed spot has 55 µm.
VISIUM_SPOT_UM = 65.0
# a word of its own, also where `spatialdata.concatenate` put a suffix: "slide_um", "um-P1", but not "cerebellum"
MICRONS = re.compile(r"(?<![^\W_])(um|µm|μm|microns?|micromet(er|re)s?)(?![^\W_])", re.IGNORECASE)
BIN = re.compile(r"(?<![^\W_])square_(\d{3})um(?![^\W_])")
# A number that was typed in is more often wrong than one that was found: thumbnails beside scale factors may be coarse.
TYPED, FOUND = (0.05, 20.0), (0.02, 100.0)
SAME, CONTRARY = 0.03, 0.20  # sources that differ by less are one; by more, one of them is about another image
MOST_SPOTS = 5000  # of a lattice; more do not change the fit
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
    others
        What every other source says, in the order in which they would have been taken.
    """

    mpp: float
    source: str
    others: tuple[PixelSize, ...] = field(default=(), compare=False, repr=False)

    @property
    def said(self) -> list[str]:
        """What every source says, the one taken first: `"0.75 from transformation to 'um'"`."""
        return [f"{one.mpp:.4g} from {one.source}" for one in (self, *self.others)]


def pixel_size(
    sdata: SpatialData,
    image_key: str,
    *,
    mpp: float | PixelSize | None = None,
    technology: str | None = None,
    table_key: str | None = "table",
    coordinate_system: str | None = None,
    shapes_key: str | None = None,
) -> PixelSize:
    """µm per pixel from the first of: argument, µm transformation, scale factors, bins, lattice, spot diameter.

    Spots meet the image in `coordinate_system` where they have it, else in whatever systems they share; those of
    `shapes_key` are asked first. All sources are compared.

    Raises
    ------
    BadInput
        If none applies, the value is no sensible pixel size, or two sources differ by more than 20 %.

    Warns
    -----
    UserWarning
        If two sources differ by more than 3 %, or one is no number.
    """
    if technology is not None and technology not in TECHNOLOGIES:
        raise MissingKey(f"no technology '{technology}'; there are {listed(TECHNOLOGIES)}. Pass mpp= instead.")
    if isinstance(mpp, PixelSize):  # was found before
        check_number("mpp", mpp.mpp)
        return _sensible(mpp, image_key)
    place = image_key, coordinate_system
    if mpp is not None:
        check_number("mpp", mpp)
        given = _sensible(PixelSize(float(mpp), "argument"), image_key, TYPED)
    found, failed = _sources(sdata, place, table_key, technology, shapes_key)
    if mpp is not None:
        return _given(given, found, image_key)
    if not found and failed:
        raise failed
    if found:
        size = _sensible(found[0], image_key)
        _compare(size, found[1:], image_key)
        return PixelSize(size.mpp, size.source, tuple(found[1:]))
    raise BadInput(
        f"no µm per pixel is known for image '{image_key}': it has no transformation to a coordinate system in µm "
        f"(it has "
        f"{listed(read.systems(sdata.images[image_key]))}) and no Visium spots lie on it. Pass mpp= (µm per pixel), or "
        f"technology= (one of {listed(TECHNOLOGIES)}) where the table has array_row and array_col."
    )


def as_seen(record: Mapping) -> dict:
    """Arguments of `Slide.from_sdata` for a section that was predicted: found and seen as it was then."""
    mpp, source = record.get("mpp"), record.get("mpp_source", "argument")
    places = {name: record.get(name) or None for name in (*PLACES, "section")}
    if record.get("target"):
        places["target"] = Target(**record["target"], unit=str(record["unit"]))
    return {**places, "mpp": None if mpp is None else PixelSize(mpp, source), "outside": "pad", "missing": "fill"}


# Comparison --------------------------------------------------------------------------------------------


def _sensible(size: PixelSize, image_key: str, sensible: tuple[float, float] = FOUND) -> PixelSize:
    if not sensible[0] <= size.mpp <= sensible[1]:
        raise BadInput(
            f"image '{image_key}' would have {size.mpp:.4g} µm per pixel (from {size.source}); expected "
            f"{sensible[0]:g} to {sensible[1]:g}. Pass mpp=, in µm per pixel of its finest level."
        )
    return size


def _apart(one: PixelSize, other: PixelSize) -> float:
    """By which share of the smaller value two sources differ."""
    return max(one.mpp, other.mpp) / min(one.mpp, other.mpp) - 1


def _given(given: PixelSize, found: list[PixelSize], image_key: str) -> PixelSize:
    """A value that was typed in settles it; it is doubted only if no source says the same."""
    if found and all(_apart(given, one) > SAME for one in found):
        warnings.warn(
            f"mpp={given.mpp:.4g} is taken for image '{image_key}', and no source says so: {_list(found)}.",
            UserWarning,
            stacklevel=4,
        )
    return PixelSize(given.mpp, given.source, tuple(found))


def _compare(size: PixelSize, others: list[PixelSize], image_key: str) -> None:
    """Warn of sources that say another value; raise where nothing else tells which of them is wrong."""
    unlike = [one for one in others if _apart(size, one) > SAME]
    if not unlike:
        return
    worst = max(unlike, key=lambda one: _apart(size, one))
    confirmed = len(unlike) < len(others)
    text = (
        f"sources of µm per pixel of image '{image_key}' contradict each other: {size.mpp:.4g} from {size.source}, but "
        f"{_list(unlike)} ({_apart(size, worst):.0%} apart)"
    )
    if _apart(size, worst) > CONTRARY and not confirmed:
        raise BadInput(
            f"{text}. Spots may be in the pixels of another image than the scale factors. Pass mpp=, the µm per pixel "
            f"that you know to be right (mpp={size.mpp:.4g} or mpp={worst.mpp:.4g}), or mend the other."
        )
    first = "the first is taken" + (", which another source confirms" if confirmed else "")
    warnings.warn(f"{text}; {first}. Pass mpp= to settle it.", UserWarning, stacklevel=4)


def _list(sizes: list[PixelSize]) -> str:
    return ", ".join(f"{one.mpp:.4g} from {one.source}" for one in sizes)


# Sources -----------------------------------------------------------------------------------------------


def _sources(
    sdata: SpatialData, place: Place, table_key: str | None, technology: str | None, shapes_key: str | None
) -> tuple[list[PixelSize], SqImputerError | None]:
    """What the image says, and what the first shapes on it say that say anything; and why a named lattice does not."""
    found, failed = _from_transformations(sdata, place[0]), None
    for name in _on_image(sdata, place, shapes_key):
        try:
            sizes, error = _from_shapes(sdata, name, table_key, technology)
            failed = failed or error
            if sizes:
                scale = _pixels(sdata, place, name)
                return found + [PixelSize(one.mpp / scale, one.source) for one in sizes], failed
        except SqImputerError as error:  # matters only if nothing else says it
            failed = failed or error
    return found, failed


def _from_transformations(sdata: SpatialData, image_key: str) -> list[PixelSize]:
    """What transformations to systems in µm say; systems that say the same are one source."""
    found: list[PixelSize] = []
    for name in filter(MICRONS.search, read.systems(sdata.images[image_key])):
        matrix = read.affine(sdata.images[image_key], name)
        size = PixelSize(read.similarity_of_image(matrix, image_key, name)[0], f"transformation to '{name}'")
        if all(_apart(size, one) > 1e-6 for one in found):
            found.append(size)
    return found


def _on_image(sdata: SpatialData, place: Place, shapes_key: str | None) -> list[str]:
    """Names of the shapes that share a coordinate system with the image, the likeliest first.

    Where several sections share "global", those that share a system of their own with the image are its own.
    """
    here = set(read.systems(sdata.images[place[0]]))
    own = [shapes_key] if shapes_key in sdata.labels else []
    shared = {name: here & set(read.systems(sdata[name])) for name in (*sdata.shapes, *own)}
    names = [name for name in shared if shared[name]]
    return sorted(names, key=lambda name: (name != shapes_key, not shared[name] - {"global"}))


def _pixels(sdata: SpatialData, place: Place, shapes_key: str) -> float:
    """Pixels of the image per unit of the shapes' own coordinates."""
    image_key, name = place
    name = name if name in read.systems(sdata[shapes_key]) else None
    to_image = read.geometry(sdata, image_key, shapes_key, name).to_image
    return read.similarity(to_image, f"shapes '{shapes_key}'")[0]


def _from_shapes(
    sdata: SpatialData, shapes_key: str, table_key: str | None, technology: str | None
) -> tuple[list[PixelSize], BadInput | None]:
    """What scale factors, bins, the lattice and the spots' diameter say, in µm per unit of the shapes."""
    bins = list(_bins(sdata, shapes_key))
    for key in sdata.tables:
        if shapes_key not in read.annotated(sdata, key):
            continue
        factors = _scale_factors(sdata.tables[key], shapes_key)
        direct = list(_number(factors, "microns_per_pixel", 1.0, key))
        diameter = list(_number(factors, "spot_diameter_fullres", _spot_um(factors, shapes_key), key))
        named = technology if key == table_key else None
        lattice, failed = _lattice(sdata, shapes_key, key, named, bool(factors))
        if direct or bins or diameter or lattice or failed:
            return direct + bins + lattice + diameter, failed
    return bins, None


def _spot_um(factors: Mapping, shapes_key: str) -> float:
    """µm that `spot_diameter_fullres` stands for: the side of a bin in Visium HD, else a spot of Visium."""
    match, size = BIN.search(shapes_key), factors.get("bin_size_um")
    if isinstance(size, int | float | np.number) and size > 0:
        return float(size)
    return float(match[1]) if match else VISIUM_SPOT_UM


def _bins(sdata: SpatialData, shapes_key: str) -> Iterator[PixelSize]:
    match = BIN.search(shapes_key)
    if match is not None:
        side = float(np.median(read.sizes(read.outlines(sdata, shapes_key))))
        yield PixelSize(int(match[1]) / side, f"Visium HD bins of {int(match[1])} µm in '{shapes_key}'")


def _number(factors: Mapping, name: str, um: float, table_key: str) -> Iterator[PixelSize]:
    """A scale factor as µm per unit: itself, or `um` for so many units."""
    if name not in factors:
        return
    try:
        value = float(factors[name])
    except (TypeError, ValueError):
        value = float("nan")
    if not (np.isfinite(value) and value > 0):
        warnings.warn(
            f"table '{table_key}': {name} in uns['spatial'] is {factors[name]!r}; expected a positive number. It is "
            "left out.",
            UserWarning,
            stacklevel=2,
        )
        return
    yield PixelSize(value if name == "microns_per_pixel" else um / value, f"Visium scale factors ({name})")


def _scale_factors(table: AnnData, shapes_key: str) -> dict:
    """Scale factors of the library in `uns['spatial']`, the place that scanpy and squidpy use: the only or its own."""
    spatial = table.uns.get("spatial", {})
    libraries = dict(spatial) if isinstance(spatial, Mapping) else {}
    own = libraries.get(shapes_key) or (next(iter(libraries.values())) if len(libraries) == 1 else {})
    factors = own.get("scalefactors", {}) if isinstance(own, Mapping) else {}
    return dict(factors) if isinstance(factors, Mapping) else {}


def _lattice(
    sdata: SpatialData, shapes_key: str, table_key: str, technology: str | None, factors: bool
) -> tuple[list[PixelSize], BadInput | None]:
    """What the lattice says: of the named technology, else of Visium where scale factors or diameter say Visium."""
    table = sdata.tables[table_key]
    if not {"array_row", "array_col"} <= set(table.obs):
        needs = f"technology='{technology}' needs obs columns array_row and array_col in table '{table_key}'."
        return [], BadInput(needs) if technology else None
    array = table.obs[["array_row", "array_col"]].to_numpy(dtype=float)
    if not technology and not is_staggered(array):
        return [], None
    shapes = read.outlines(sdata, shapes_key)
    rows, where = read.rows_of(table, shapes.index, shapes_key, table_key)
    some = np.linspace(0, len(rows) - 1, min(len(rows), MOST_SPOTS)).astype(int)
    try:
        size = mpp_of_lattice(read.centers(shapes, shapes_key)[where[some]], array[rows[some]], technology or "visium")
    except BadInput as error:  # too few spots, or another lattice
        return [], error if technology else None
    diameter = _visium_diameter(shapes, size) if technology in (None, "visium") else None
    if not technology and not factors and diameter is None:
        return [], None
    pitch = PixelSize(size, f"lattice pitch of '{technology or 'visium'}' in '{shapes_key}'")
    if diameter is None or technology or factors:
        return [pitch], None
    # a lattice alone could be of another pitch; with spots of this diameter it is Visium's
    return [PixelSize(diameter, f"Visium spot diameter of '{shapes_key}', confirmed by its pitch"), pitch], None


def _visium_diameter(shapes, by_pitch: float) -> float | None:
    """µm per unit of circles that have the diameter of Space Ranger's spots."""
    if not read.are_circles(shapes):
        return None
    by_diameter = VISIUM_SPOT_UM / float(np.median(read.sizes(shapes)))
    return by_diameter if abs(by_diameter / by_pitch - 1) < SAME else None
