"""Shapes, tables and transformations of SpatialData become plain arrays; :mod:`sq_imputer.section.image` reads images.

Coordinates are edge-based, as in spatialdata: pixel `i` covers `[i, i + 1)`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed, printable
from sq_imputer.section.labels import circles_of

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from pandas import Index, Series
    from spatialdata import SpatialData

XY = ("x", "y")
STRETCHED = 1.005  # times longer in one direction than in another: no similarity any more


@dataclass(frozen=True)
class Geometry:
    """How a shapes element lies on an image.

    Parameters
    ----------
    coordinate_system
        Where both meet.
    to_image
        `(3, 3)` from shape coordinates to pixels of level 0.
    axes
        `(2, 2)` orthonormal: columns are the coordinate system's x and y directions in pixel directions.
    """

    coordinate_system: str
    to_image: np.ndarray
    axes: np.ndarray


def apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Points `(n, 2)` through an affine `(3, 3)`."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def check_object(sdata) -> None:
    """Check that what a verb was given is a SpatialData object."""
    from spatialdata import SpatialData

    if not isinstance(sdata, SpatialData):
        raise BadInput(
            f"sdata is a {type(sdata).__name__}; expected a SpatialData object, such as spatialdata.read_zarr(path)."
        )


def annotated(sdata: SpatialData, table_key: str | None) -> list[str]:
    """Names of the shapes and labels that a table annotates."""
    if table_key is None or table_key not in sdata.tables:
        return []
    return [name for name in regions_of(sdata.tables[table_key].uns) if name in sdata.shapes or name in sdata.labels]


def regions_of(uns: Mapping) -> list[str]:
    """Names of the elements that a table says it annotates, by its `uns`."""
    region = uns.get("spatialdata_attrs", {}).get("region", [])
    return [region] if isinstance(region, str) else list(region)


def check_table_key(sdata: SpatialData, table_key: str | None) -> None:
    """Check that a table that was named is there, and annotates what is there.

    The default name may be missing: a section that was not sequenced has no table.
    """
    if table_key is None or (table_key == "table" and table_key not in sdata.tables):
        return
    if table_key not in sdata.tables:
        raise MissingKey(
            f"no table '{table_key}'; sdata has {listed(sdata.tables)}. Pass table_key= one of these, or None for a "
            "section that was not measured."
        )
    regions = regions_of(sdata.tables[table_key].uns)
    if regions and not any(name in sdata for name in regions):
        raise MissingKey(
            f"table '{table_key}' annotates {listed(regions)}, which sdata does not have; its shapes and labels are "
            f"{listed([*sdata.shapes, *sdata.labels])}. Rename the region of the table, add the element, or pass "
            "table_key=None."
        )


def find_shapes(sdata: SpatialData, shapes_key: str | None, table_key: str | None) -> str:
    """The name of the shapes or labels: as given, else what the table annotates, else the only shapes."""
    names = list(sdata.shapes)
    if shapes_key is not None:
        if shapes_key not in names and shapes_key not in sdata.labels:
            labels = f", and labels {listed(sdata.labels)}" if len(sdata.labels) else ""
            raise MissingKey(f"no shapes '{shapes_key}'; sdata has {listed(names)}{labels}. Pass shapes_key=.")
        return shapes_key
    candidates = annotated(sdata, table_key) or names
    if len(candidates) != 1:
        why = f"table '{table_key}' annotates" if annotated(sdata, table_key) else "sdata has"
        raise MissingKey(
            f"shapes_key is not given and {why} {len(candidates)} shapes elements: {listed(candidates)}. "
            "Pass shapes_key=, one of them; verbs with sections= take all."
        )
    return candidates[0]


def outlines(sdata: SpatialData, shapes_key: str) -> GeoDataFrame:
    """Circles or polygons of an element by id, in its own coordinates; labels are read through, chunk by chunk."""
    if shapes_key in sdata.labels:
        return circles_of(sdata.labels[shapes_key], shapes_key)
    return sdata.shapes[shapes_key]


def region_of_rows(table: AnnData, table_key: str) -> Series:
    """Which element every row of a table annotates."""
    region, _ = _columns(table, table_key)
    return table.obs[region].astype(str)


def rows_of_section(table: AnnData, table_key: str, shapes_key: str, section_key: str, section: str) -> np.ndarray:
    """Rows of a table that annotate `shapes_key` and whose `obs[section_key]` is `section`."""
    if section_key not in table.obs:
        raise MissingKey(f"no '{section_key}' in obs of table '{table_key}'; it has {listed(table.obs, 20)}.")
    named = table.obs[section_key].astype(str).to_numpy()
    rows = np.flatnonzero((named == section) & (region_of_rows(table, table_key) == shapes_key).to_numpy())
    if not len(rows):
        raise MissingKey(
            f"no row of table '{table_key}' annotates '{shapes_key}' and has '{section}' in obs['{section_key}']; that "
            f"has {listed(np.unique(named), 20)}."
        )
    return rows


def instances_of(table: AnnData, rows: np.ndarray, table_key: str) -> np.ndarray:
    """Ids of the shapes that these rows of a table annotate."""
    return table.obs[_columns(table, table_key)[1]].to_numpy()[rows]


def find_table(sdata: SpatialData, table_key: str, shapes_key: str) -> AnnData:
    """The table that annotates a shapes element.

    Raises
    ------
    MissingKey
        If there is no such table, or it annotates other elements.
    """
    if table_key not in sdata.tables:
        raise MissingKey(f"no table '{table_key}'; sdata has {listed(sdata.tables)}. Pass table_key=.")
    regions = annotated(sdata, table_key)
    if shapes_key not in regions:
        raise MissingKey(
            f"table '{table_key}' annotates {listed(regions)}, not shapes '{shapes_key}'. Pass shapes_key=."
        )
    return sdata.tables[table_key]


def affine(element, coordinate_system: str) -> np.ndarray:
    """The transformation `(3, 3)` of an element to a coordinate system, on (x, y)."""
    from spatialdata.transformations import get_transformation

    return np.asarray(get_transformation(element, coordinate_system).to_affine_matrix(XY, XY), dtype=np.float64)


def stretch(matrix: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Longest and shortest length `(2,)` that an affine `(3, 3)` gives to a unit, and its orthonormal part.

    Raises
    ------
    BadInput
        If it is not finite or not invertible.
    """
    linear = matrix[:2, :2]
    if not np.isfinite(matrix).all() or abs(np.linalg.det(linear)) < 1e-12:
        raise BadInput(f"{what} has a transformation that cannot be inverted: {linear.tolist()}. Set a new one.")
    left, sizes, right = np.linalg.svd(linear)
    return sizes, left @ right


def similarity(matrix: np.ndarray, what: str, way_out: str = "Set a new one.") -> tuple[float, np.ndarray]:
    """Scale and orthonormal part of an affine `(3, 3)`.

    Raises
    ------
    BadInput
        If it is not finite, not invertible, or shears or scales the axes differently by more than half a percent.
    """
    sizes, turn = stretch(matrix, what)
    if sizes[0] / sizes[1] > STRETCHED:
        raise BadInput(
            f"{what} is sheared, or scaled by {sizes[0]:.4g} and {sizes[1]:.4g} along two directions; crops need a "
            f"similarity (scale, rotation, flip, translation). {way_out}"
        )
    return float(np.sqrt(sizes.prod())), turn


def similarity_of_image(matrix: np.ndarray, image_key: str, name: str) -> tuple[float, np.ndarray]:
    """The same of an image in a coordinate system; the error says how a stretched one is made straight."""
    way_out = (
        f"Resample the image: pp.straighten(sdata, '{image_key}', coordinate_system='{name}'), then pass "
        f"image_key='{straight_key(image_key)}'."
    )
    return similarity(matrix, f"image '{image_key}' in '{name}'", way_out)


def straight_key(image_key: str) -> str:
    """What a straightened image is called, if no other name is given."""
    return f"{image_key}_straight"


def systems(element) -> list[str]:
    """Names of the coordinate systems an element has a transformation to."""
    from spatialdata.transformations import get_transformation

    return list(get_transformation(element, get_all=True))


def geometry(sdata: SpatialData, image_key: str, shapes_key: str, coordinate_system: str | None) -> Geometry:
    """How shapes lie on an image, in a coordinate system that both have.

    Without a name, all common systems must say the same about position and orientation.
    """
    image, shapes = sdata.images[image_key], sdata[shapes_key]
    common = [name for name in systems(image) if name in systems(shapes)]
    if coordinate_system is not None and coordinate_system not in common:
        raise MissingKey(
            f"image '{image_key}' and shapes '{shapes_key}' do not meet in '{coordinate_system}': the image has "
            f"{listed(systems(image))}, the shapes have {listed(systems(shapes))}. Pass coordinate_system=, or set one."
        )
    if not common:
        raise BadInput(
            f"image '{image_key}' ({listed(systems(image))}) and shapes '{shapes_key}' ({listed(systems(shapes))}) "
            f"share no "
            "coordinate system; add one with spatialdata.transformations.set_transformation."
        )
    names = [coordinate_system] if coordinate_system else sorted(common, key=lambda name: (name != "global", name))
    options = [_geometry(sdata, image_key, shapes_key, name) for name in names]
    first = options[0]
    for other in options[1:]:
        if not (
            np.allclose(other.to_image, first.to_image, rtol=1e-4, atol=1e-2) and np.allclose(other.axes, first.axes)
        ):
            raise MissingKey(
                f"coordinate systems '{first.coordinate_system}' and '{other.coordinate_system}' place shapes "
                f"'{shapes_key}' differently on image '{image_key}'. Pass coordinate_system=, one of {listed(names)}."
            )
    return first


def _geometry(sdata: SpatialData, image_key: str, shapes_key: str, name: str) -> Geometry:
    image_to_cs = affine(sdata.images[image_key], name)
    _, turn = similarity_of_image(image_to_cs, image_key, name)
    shapes_to_cs = affine(sdata[shapes_key], name)
    way_out = (
        f"Move the shapes themselves: sdata['{shapes_key}'] = spatialdata.transform(sdata['{shapes_key}'], "
        f"to_coordinate_system='{name}')."
    )
    similarity(shapes_to_cs, f"shapes '{shapes_key}' in '{name}'", way_out)
    return Geometry(name, np.linalg.inv(image_to_cs) @ shapes_to_cs, turn.T)


def centers(shapes: GeoDataFrame, shapes_key: str) -> np.ndarray:
    """Centers `(n, 2)` of circles or polygons, in the element's own coordinates."""
    import shapely

    if len(shapes) == 0:
        raise BadInput(f"shapes '{shapes_key}' has 0 rows; expected at least one. Pass another shapes_key=.")
    _check_crs(shapes, shapes_key)
    if not shapes.index.is_unique:
        twice = shapes.index[shapes.index.duplicated()].unique()
        raise BadInput(f"shapes '{shapes_key}' has duplicate ids: {listed(twice)}. Make its index unique.")
    empty = shapes.geometry.isna() | shapes.geometry.is_empty
    if empty.any():
        raise BadInput(
            f"shapes '{shapes_key}' has {int(empty.sum())} empty geometries: {listed(shapes.index[empty])}; expected "
            "circles or polygons. Drop these rows."
        )
    _check_kinds(shapes, shapes_key)
    geometry = shapes.geometry.to_numpy()
    # of a point the centroid is a copy: those of a million take as much memory again
    xy = shapely.get_coordinates(geometry if are_circles(shapes) else shapely.centroid(geometry))
    broken = ~np.isfinite(np.column_stack([xy, sizes(shapes)])).all(axis=1)
    if broken.any():
        raise BadInput(
            f"shapes '{shapes_key}' has {broken.sum()} rows with NaN or infinite coordinates or radii: "
            f"{listed(shapes.index[broken])}; expected finite numbers. Drop or repair them."
        )
    return xy


def _check_crs(shapes: GeoDataFrame, shapes_key: str) -> None:
    """Tissue has no place on the globe."""
    if shapes.crs is None:
        return
    found = f"shapes '{shapes_key}' has the coordinate reference system {printable(shapes.crs.to_string())}"
    if shapes.crs.is_geographic:
        raise BadInput(
            f"{found}, whose unit is degrees; expected pixels or µm, without one. Parse the shapes without crs=."
        )
    warnings.warn(f"{found}; it is ignored, and coordinates are taken as they are.", UserWarning, stacklevel=2)


def _check_kinds(shapes: GeoDataFrame, shapes_key: str) -> None:
    """Circles are points with a radius; all else is polygons."""
    circles = are_circles(shapes)
    odd = ~shapes.geom_type.isin(["Point"] if circles else ["Polygon", "MultiPolygon"])
    if odd.any():
        expected = "points alone beside the column 'radius'" if circles else "polygons alone without a column 'radius'"
        raise BadInput(
            f"shapes '{shapes_key}' has {int(odd.sum())} of {len(odd)} rows that are "
            f"{listed(shapes.geom_type[odd].unique())}: {listed(shapes.index[odd])}; expected {expected}. Keep circles "
            "and polygons in elements of their own."
        )
    if circles:
        numbers = shapes["radius"].dtype.kind in "iuf"
        if not numbers or (shapes["radius"] <= 0).any():
            found = listed(shapes.index[shapes["radius"] <= 0]) if numbers else shapes["radius"].dtype
            raise BadInput(f"shapes '{shapes_key}' has radii that are not positive numbers: {found}. Set the radius.")


def are_circles(shapes: GeoDataFrame) -> bool:
    """Whether shapes are circles; polygons that were made of circles may have a radius, too."""
    return "radius" in shapes and bool((shapes.geom_type == "Point").any())


def sizes(shapes: GeoDataFrame) -> np.ndarray:
    """Diameter of circles, side of the square of equal area for polygons, in the element's own coordinates."""
    if are_circles(shapes):
        return 2 * shapes["radius"].to_numpy(dtype=np.float64)
    return np.sqrt(shapes.geometry.area.to_numpy(dtype=np.float64))


def rows_of(
    table: AnnData, known: Index, shapes_key: str, table_key: str, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Table rows, or those of `among`, that annotate the instances `known` of an element, and the number of each."""
    region, instance = _columns(table, table_key)
    mine = np.flatnonzero(table.obs[region].astype(str).to_numpy() == shapes_key)
    mine = mine if among is None else among
    ids = table.obs[instance].to_numpy()[mine]
    if len(mine) == 0:
        raise BadInput(
            f"table '{table_key}' says that it annotates shapes '{shapes_key}', but no row of obs['{region}'] says so: "
            f"it has {listed(table.obs[region].astype(str).unique())}. Set that column to '{shapes_key}'."
        )
    position = known.get_indexer(ids)
    if (position < 0).any():
        lost = ids[position < 0]
        raise BadInput(
            f"table '{table_key}': {len(lost)} of {len(ids)} values of '{instance}' are not in '{shapes_key}' "
            f"(table: {listed(lost, 3)}, {ids.dtype}; '{shapes_key}': {listed(known, 3)}, {known.dtype}). Make "
            "both the same ids of the same type, with none missing."
        )
    if len(np.unique(position)) != len(position):
        twice = known[position][np.bincount(position, minlength=len(known))[position] > 1]
        raise BadInput(
            f"table '{table_key}' annotates the same shape more than once: {listed(twice.unique())}; expected one row "
            f"per shape. Make '{instance}' unique."
        )
    return mine, position


def _columns(table: AnnData, table_key: str) -> tuple[str, str]:
    """Names of the columns of `obs` that hold the region and the instance of each row."""
    attrs = table.uns.get("spatialdata_attrs", {})
    region, instance = attrs.get("region_key"), attrs.get("instance_key")
    if table.n_obs == 0:
        raise BadInput(f"table '{table_key}' is empty: it has 0 rows; expected one per measured spot. Filter less.")
    if region not in table.obs or instance not in table.obs:
        raise BadInput(
            f"table '{table_key}' has region_key {region!r} and instance_key {instance!r}, of which obs lacks one or "
            f"both; it has {listed(table.obs)}. Parse it again with spatialdata.models.TableModel.parse."
        )
    return region, instance
