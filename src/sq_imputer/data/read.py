"""The only file that reads SpatialData: keys, transformations, pyramids and counts become plain arrays.

Coordinates are edge-based, as in spatialdata: pixel `i` covers `[i, i + 1)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.data.pyramid import Pyramid
from sq_imputer.errors import BadInput, MissingKey, listed

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

XY = ("x", "y")


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


def find_image(sdata: SpatialData, image_key: str | None) -> str:
    """The name of the image: as given, or the only one that is not a map of `tl.explain`."""
    names = list(sdata.images)
    if image_key is None:
        tissue = [name for name in names if not _is_map(sdata, name)]
        if len(tissue) == 1:
            return tissue[0]
        found = f"{len(tissue)} images: {listed(tissue)}" if tissue else "no image"
        raise MissingKey(f"image_key is not given and sdata has {found}. Pass image_key=, one of them.")
    if image_key not in names:
        raise MissingKey(f"no image '{image_key}'; sdata has {listed(names)}. Pass image_key=.")
    return image_key


def spots_of(key: str) -> str:
    """Name of the table of the spots whose maps the image of this name shows."""
    return f"{key}_spots"


def _is_map(sdata: SpatialData, name: str) -> bool:
    """Whether an image was written by `tl.explain`: its table says so."""
    return spots_of(name) in sdata.tables and name in sdata.tables[spots_of(name)].uns.get("sq_imputer", ())


def annotated(sdata: SpatialData, table_key: str | None) -> list[str]:
    """Names of the shapes elements that a table annotates."""
    if table_key is None or table_key not in sdata.tables:
        return []
    region = sdata.tables[table_key].uns.get("spatialdata_attrs", {}).get("region", [])
    regions = [region] if isinstance(region, str) else list(region)
    return [name for name in regions if name in sdata.shapes]


def find_shapes(sdata: SpatialData, shapes_key: str | None, table_key: str | None) -> str:
    """The name of the shapes element: as given, else what the table annotates, else the only one."""
    names = list(sdata.shapes)
    if shapes_key is not None:
        if shapes_key not in names:
            raise MissingKey(f"no shapes '{shapes_key}'; sdata has {listed(names)}. Pass shapes_key=.")
        return shapes_key
    candidates = annotated(sdata, table_key) or names
    if len(candidates) != 1:
        why = f"table '{table_key}' annotates" if annotated(sdata, table_key) else "sdata has"
        raise MissingKey(
            f"shapes_key is not given and {why} {len(candidates)} shapes elements: {listed(candidates)}. "
            "Pass shapes_key=, one of them."
        )
    return candidates[0]


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


def similarity(matrix: np.ndarray, what: str) -> tuple[float, np.ndarray]:
    """Scale and orthonormal part of an affine `(3, 3)`.

    Raises
    ------
    BadInput
        If it is not finite, not invertible, or shears or scales the axes differently by more than half a percent.
    """
    linear = matrix[:2, :2]
    if not np.isfinite(matrix).all() or abs(np.linalg.det(linear)) < 1e-12:
        raise BadInput(f"{what} has a transformation that cannot be inverted: {linear.tolist()}. Set a new one.")
    left, sizes, right = np.linalg.svd(linear)
    if sizes[0] / sizes[1] > 1.005:
        raise BadInput(
            f"{what} is sheared, or scaled by {sizes[0]:.4g} and {sizes[1]:.4g} along two directions; crops need a "
            "similarity (scale, rotation, flip, translation). Resample the image first (spatialdata.rasterize)."
        )
    return float(np.sqrt(sizes.prod())), left @ right


def systems(element) -> list[str]:
    """Names of the coordinate systems an element has a transformation to."""
    from spatialdata.transformations import get_transformation

    return list(get_transformation(element, get_all=True))


def geometry(sdata: SpatialData, image_key: str, shapes_key: str, coordinate_system: str | None) -> Geometry:
    """How shapes lie on an image, in a coordinate system that both have.

    Without a name, all common systems must say the same about position and orientation.
    """
    image, shapes = sdata.images[image_key], sdata.shapes[shapes_key]
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
    _, turn = similarity(image_to_cs, f"image '{image_key}' in '{name}'")
    shapes_to_cs = affine(sdata.shapes[shapes_key], name)
    similarity(shapes_to_cs, f"shapes '{shapes_key}' in '{name}'")
    return Geometry(name, np.linalg.inv(image_to_cs) @ shapes_to_cs, turn.T)


def read_pyramid(sdata: SpatialData, image_key: str) -> Pyramid:
    """The levels of an image, lazily. Reads no pixel."""
    element = sdata.images[image_key]
    arrays = _levels(element)
    first = arrays[0]
    if first.dims != ("c", "y", "x"):
        raise BadInput(f"image '{image_key}' has dimensions {first.dims}; expected ('c', 'y', 'x').")
    if 0 in first.shape:
        raise BadInput(f"image '{image_key}' is empty: {dict(first.sizes)}.")
    if not (first.dtype == np.uint8 or first.dtype.kind == "f"):
        raise BadInput(
            f"image '{image_key}' has dtype {first.dtype}; expected uint8, or float in [0, 1]. Convert it, for "
            f"instance "
            "with skimage.util.img_as_ubyte."
        )
    channels, alpha = _channels(image_key, [str(name).lower() for name in first.coords["c"].values])
    return Pyramid(tuple(array.data for array in arrays), channels=channels, alpha=alpha)


def _levels(element) -> list:
    from xarray import DataArray

    if isinstance(element, DataArray):
        return [element]
    levels = [next(iter(element[name].ds.values())) for name in element]
    return sorted(levels, key=lambda level: -level.sizes["y"])


def _channels(image_key: str, names: list[str]) -> tuple[tuple[int, int, int], int | None]:
    """Positions of red, green, blue and alpha: by name where they are named, else by order."""
    if len(set(names)) != len(names):
        raise BadInput(f"image '{image_key}' has duplicate channel names {names}.")
    for wanted in (["r", "g", "b", "a"], ["red", "green", "blue", "alpha"]):
        if set(wanted[:3]) <= set(names) <= set(wanted):
            alpha = names.index(wanted[3]) if wanted[3] in names else None
            return (names.index(wanted[0]), names.index(wanted[1]), names.index(wanted[2])), alpha
    if len(names) in (3, 4) and names == [str(i) for i in range(len(names))]:
        return (0, 1, 2), 3 if len(names) == 4 else None
    hint = " Is it (y, x, c)? Parse it with dims=('y', 'x', 'c')." if len(names) > 16 else ""
    raise BadInput(
        f"image '{image_key}' has {len(names)} channels ({listed(names)}); expected 3 (r, g, b), or 4 with alpha.{hint}"
    )


def centers(shapes: GeoDataFrame, shapes_key: str) -> np.ndarray:
    """Centers `(n, 2)` of circles or polygons, in the element's own coordinates."""
    if len(shapes) == 0:
        raise BadInput(f"shapes '{shapes_key}' has no rows; expected at least one.")
    if not shapes.index.is_unique:
        twice = shapes.index[shapes.index.duplicated()].unique()
        raise BadInput(f"shapes '{shapes_key}' has duplicate ids: {listed(twice)}. Make its index unique.")
    empty = shapes.geometry.isna() | shapes.geometry.is_empty
    if empty.any():
        raise BadInput(f"shapes '{shapes_key}' has {int(empty.sum())} empty geometries: {listed(shapes.index[empty])}.")
    middle = shapes.geometry.centroid
    xy = np.column_stack([middle.x, middle.y]).astype(np.float64)
    broken = ~np.isfinite(np.column_stack([xy, sizes(shapes)])).all(axis=1)
    if broken.any():
        raise BadInput(
            f"shapes '{shapes_key}' has {broken.sum()} rows with NaN or infinite coordinates or radii: "
            f"{listed(shapes.index[broken])}. Drop or repair them."
        )
    return xy


def sizes(shapes: GeoDataFrame) -> np.ndarray:
    """Diameter of circles, side of the square of equal area for polygons, in the element's own coordinates."""
    if "radius" in shapes:
        return 2 * shapes["radius"].to_numpy(dtype=np.float64)
    return np.sqrt(shapes.geometry.area.to_numpy(dtype=np.float64))


def rows_of(table: AnnData, shapes: GeoDataFrame, shapes_key: str, table_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Table rows that annotate `shapes`, and the shape row of each."""
    attrs = table.uns["spatialdata_attrs"]
    mine = np.flatnonzero(table.obs[attrs["region_key"]].astype(str).to_numpy() == shapes_key)
    ids = table.obs[attrs["instance_key"]].to_numpy()[mine]
    if len(mine) == 0:
        raise BadInput(
            f"table '{table_key}' says that it annotates shapes '{shapes_key}', but no row of obs"
            f"['{attrs['region_key']}'] says so: it has {listed(table.obs[attrs['region_key']].astype(str).unique())}."
        )
    position = shapes.index.get_indexer(ids)
    if (position < 0).any():
        lost = ids[position < 0]
        raise BadInput(
            f"table '{table_key}': {len(lost)} of {len(ids)} values of '{attrs['instance_key']}' are not in shapes "
            f"'{shapes_key}' (table: {listed(lost, 3)}, {ids.dtype}; shapes: {listed(shapes.index, 3)}, "
            f"{shapes.index.dtype}). "
            "Make both the same ids of the same type."
        )
    if len(np.unique(position)) != len(position):
        twice = shapes.index[position][np.bincount(position, minlength=len(shapes))[position] > 1]
        raise BadInput(f"table '{table_key}' annotates the same shape more than once: {listed(twice.unique())}.")
    return mine, position


def read_counts(table: AnnData, rows: np.ndarray, layer: str | None, table_key: str):
    """Counts of table rows as CSR `(n, genes)`.

    Raises
    ------
    BadInput
        If genes or spots have duplicate names, or the values are not counts.
    """
    from scipy.sparse import csr_matrix

    for what, names in (("genes (var_names)", table.var_names), ("spots (obs_names)", table.obs_names)):
        if not names.is_unique:
            raise BadInput(
                f"table '{table_key}' has duplicate {what}: {listed(names[names.duplicated()].unique())}. "
                "Call .var_names_make_unique() or .obs_names_make_unique() once you know which is which."
            )
    if layer is not None and layer not in table.layers:
        raise MissingKey(
            f"no layer '{layer}' in table '{table_key}'; it has {listed(k for k in table.layers if k)}. Pass layer=."
        )
    values = table.X if layer is None else table.layers[layer]
    where = f"table '{table_key}', {'X' if layer is None else f'layer {layer!r}'}"
    if values is None or table.n_vars == 0:
        raise BadInput(f"{where} is empty; expected counts of spots x genes.")
    values = values[rows] if len(rows) != table.n_obs else values
    counts = csr_matrix(values.astype(np.float32) if values.dtype == np.float16 else values)  # which scipy lacks
    data = counts.data
    bad = ~np.isfinite(data) | (data < 0) | (data != np.round(data))
    if bad.any():
        logged = table.uns.get("log1p") is not None or (np.isfinite(data).all() and data.size and data.max() < 25)
        hint = " They look log-transformed." if logged else ""
        raise BadInput(
            f"{where} holds values that are not counts ({int(bad.sum())} of {data.size}, such as "
            f"{data[bad][0]:.4g}); expected "
            f"non-negative integers.{hint} Pass layer= with the name of the layer that holds the counts."
        )
    return counts.astype(np.float32)


def spread(counts, where: np.ndarray, n: int):
    """Counts of table rows, put at their shapes; other shapes get rows of zeros and are not measured.

    Returns
    -------
    Counts as CSR `(n, genes)`, and `(n,)` whether a row was measured.
    """
    from scipy.sparse import csr_matrix

    measured = np.zeros(n, dtype=bool)
    measured[where] = True
    selector = csr_matrix((np.ones(len(where), np.float32), (where, np.arange(len(where)))), shape=(n, len(where)))
    return csr_matrix(selector @ counts), measured
