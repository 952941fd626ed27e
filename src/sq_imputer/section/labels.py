"""Labels as rows: every instance of a segmentation mask at its centroid, with its area."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import DataArray

BACKGROUND = 0


def circles_of(element, name: str) -> GeoDataFrame:
    """The instances of a labels element as circles of equal area at their centroids, in pixels of its finest level.

    Read chunk by chunk, several at once; what is kept of a chunk is a number of pixels and a sum of positions for each
    of its instances.

    Parameters
    ----------
    element
        Labels (y, x) of whole numbers, single- or multi-scale, of which 0 is background.
    name
        What messages call it.

    Returns
    -------
    Points with a column `radius`, by instance id, in rising order.

    Raises
    ------
    BadInput
        If it has other dimensions or values, or no instance.
    """
    import dask
    import dask.array as da
    from geopandas import GeoDataFrame, points_from_xy

    level = finest(element)
    if level.dims != ("y", "x") or level.dtype.kind not in "iub":
        raise BadInput(
            f"labels '{name}' has dimensions {level.dims} of {level.dtype}; expected integers along ('y', 'x')."
        )
    array = da.asarray(level.data)
    edges = [np.cumsum([0, *sizes]) for sizes in array.chunks]
    blocks = array.to_delayed()
    parts = [
        dask.delayed(sums)(blocks[i, j], int(edges[0][i]), int(edges[1][j]))
        for i in range(blocks.shape[0])
        for j in range(blocks.shape[1])
    ]
    found = np.concatenate(dask.compute(*parts))
    ids, which = np.unique(found["id"], return_inverse=True)
    if not len(ids):
        raise BadInput(
            f"labels '{name}' has no instance: all of its pixels are {BACKGROUND}. Pass another shapes_key=."
        )
    area, x, y = (np.bincount(which, weights=found[field]) for field in ("area", "x", "y"))
    return GeoDataFrame({"radius": np.sqrt(area / np.pi)}, geometry=points_from_xy(x / area, y / area), index=ids)


def sums(block: np.ndarray, top: int, left: int) -> np.ndarray:
    """Pixels of each instance of a block, and the sums of their centers' x and y; `top` and `left` say where it lies.

    Pixel `i` covers `[i, i + 1)`. Runs of one label along a line are counted as one.
    """
    new = np.ones(block.shape, dtype=bool)
    new[:, 1:] = block[:, 1:] != block[:, :-1]
    row, start = np.nonzero(new)
    length = np.diff(np.append(row * block.shape[1] + start, block.size))
    values = block[row, start]
    on = values != BACKGROUND
    row, start, length, values = row[on], start[on], length[on], values[on]
    ids, which = np.unique(values, return_inverse=True)
    found = np.zeros(len(ids), dtype=[("id", block.dtype), ("area", "f8"), ("x", "f8"), ("y", "f8")])
    found["id"] = ids
    found["area"] = np.bincount(which, weights=length, minlength=len(ids))
    found["x"] = np.bincount(which, weights=length * (left + start + length / 2), minlength=len(ids))
    found["y"] = np.bincount(which, weights=length * (top + row + 0.5), minlength=len(ids))
    return found


def finest(element) -> DataArray:
    """The finest level of labels, single- or multi-scale."""
    from xarray import DataTree

    return next(iter(element["scale0"].ds.data_vars.values())) if isinstance(element, DataTree) else element
