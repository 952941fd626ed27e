"""Maps of overlapping crops as one image: kept in a file while they are made, blended block by block when read."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.section import read

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.frame import Frame

BLOCK = 1024  # pixels a side of a block of the image
LEAST = 1e-3  # weight at the rim of a crop, relative to its middle: a pixel that one crop alone covers has its value


class Spool:
    """Maps of crops in one file, each where its number says: memory holds those in hand only.

    Parameters
    ----------
    path
        The file, which is made.
    shape
        Shape of one map `(G, K, K)`.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.path, self.shape = Path(path), shape
        self.path.touch()

    def write(self, rows: np.ndarray, maps: np.ndarray) -> None:
        """Keep the maps `(B, G, K, K)` of some rows."""
        maps = np.ascontiguousarray(maps, dtype=np.float32)
        with self.path.open("r+b") as file:
            for row, values in zip(rows, maps, strict=True):
                file.seek(int(row) * values.nbytes)
                file.write(values)

    def read(self, rows: np.ndarray, gene: int | None = None) -> np.ndarray:
        """Maps `(B, G, K, K)` of some rows, or `(B, K, K)` of one gene."""
        shape = self.shape if gene is None else self.shape[1:]
        maps = np.empty((len(rows), *shape), np.float32)
        size, skip = 4 * int(np.prod(self.shape)), 4 * int(np.prod(self.shape[1:])) * (gene or 0)
        with self.path.open("rb") as file:
            for row, out in zip(rows, maps, strict=True):
                file.seek(int(row) * size + skip)
                file.readinto(out)
        return maps


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One image of the maps of all crops, the weighted mean of those that cover a pixel; NaN where none does.

    A crop weighs most in its middle and falls off linearly to its rim, along x and along y. Maps are flat within their
    cells, and are averaged over each pixel by area, whatever the two resolutions.

    Parameters
    ----------
    spool
        The maps, one per center.
    centers_um
        `(n, 2)` x and y.
    extent_um
        Side of a crop.
    mpp
        µm per pixel of the image.
    """

    spool: Spool
    centers_um: np.ndarray
    extent_um: float
    mpp: float

    def __post_init__(self) -> None:
        check_mpp(self.mpp, self.extent_um)

    @property
    def origin_um(self) -> np.ndarray:
        """`(2,)` x and y of the image's corner."""
        return self.centers_um.min(axis=0) - self.extent_um / 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Genes, height and width."""
        span = self.centers_um.max(axis=0) + self.extent_um / 2 - self.origin_um
        wide, high = np.ceil(span / self.mpp - 1e-6).astype(int)
        return self.spool.shape[0], int(high), int(wide)

    def to_dask(self) -> da.Array:
        """The image `(G, H, W)`, float32; lazy: a block reads the maps that it shows, for as long as the file is."""
        genes, *sides = self.shape
        chunks = ((1,) * genes, *(_split(side) for side in sides))
        meta = np.empty((0, 0, 0), np.float32)
        return da.map_blocks(
            _block, dtype=np.float32, chunks=chunks, mosaic=self, name=f"mosaic-{uuid.uuid4().hex}", meta=meta
        )

    def window(self, gene: int, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """Pixels of one gene from one row and column to others, `(h, w)`."""
        spans = np.array([columns, rows])
        corner = (self.centers_um - self.extent_um / 2 - self.origin_um) / self.mpp
        side = self.extent_um / self.mpp
        near = np.flatnonzero(((corner < spans[:, 1]) & (corner + side > spans[:, 0])).all(axis=1))
        total = np.zeros((rows[1] - rows[0], columns[1] - columns[0]))
        weight = np.zeros_like(total)
        cells = self.spool.shape[-1]
        for part in np.array_split(near, len(near) // 64 + 1):
            for crop, values in zip(part, self.spool.read(part, gene), strict=True):
                (x0, wx, mx), (y0, wy, my) = (_along(corner[crop, k], side, cells, spans[k]) for k in (0, 1))
                at = np.s_[y0 : y0 + len(wy), x0 : x0 + len(wx)]
                total[at] += my @ values @ mx.T * np.outer(wy, wx)
                weight[at] += np.outer(wy, wx)
        return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0).astype(np.float32)


def _along(corner: float, side: float, cells: int, span: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Along one axis: first pixel of the window, and per pixel that a crop covers its weight and shares of its cells.

    Returns
    -------
    The first pixel, `(p,)` weights and `(p, cells)` shares, which sum to 1.
    """
    low, high = max(int(np.floor(corner)), span[0]), min(int(np.ceil(corner + side)), span[1])
    pixels = np.arange(low, high)
    edges = corner + side * np.arange(cells + 1) / cells
    shares = np.minimum(edges[1:], pixels[:, None] + 1) - np.maximum(edges[:-1], pixels[:, None])
    shares = np.clip(shares, 0, None)
    covered = shares.sum(axis=1)
    kept = covered > 1e-9  # rounding at the rim
    tent = 1 - np.abs(2 * (pixels + 0.5 - corner) / side - 1)
    weight = np.maximum(tent, LEAST) * covered
    first = low + int(np.argmax(kept)) if kept.any() else low
    return first - int(span[0]), weight[kept], shares[kept] / covered[kept, None]


def check_mpp(mpp: float, extent_um: float) -> None:
    """Raise `BadInput` unless crops of this side can be shown at this resolution, in µm per pixel."""
    check_number("mpp", mpp)
    if not 0 < mpp <= extent_um:
        raise BadInput(f"mpp is {mpp}; expected µm per pixel, at most the {extent_um:g} µm of a crop.")


def as_element(mosaic: Mosaic, sdata: SpatialData, image_key: str, frame: Frame, genes: Sequence[str]):
    """The mosaic as an image element, lazy, in all coordinate systems of the image that was explained."""
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Affine

    to_um = np.diag([mosaic.mpp, mosaic.mpp, 1.0])
    to_um[:2, 2] = mosaic.origin_um
    to_px = np.linalg.inv(frame.to_um) @ to_um
    image, axes = sdata.images[image_key], ("x", "y")
    places = {name: Affine(read.affine(image, name) @ to_px, axes, axes) for name in read.systems(image)}
    return Image2DModel.parse(mosaic.to_dask(), dims=("c", "y", "x"), c_coords=list(genes), transformations=places)


def _split(side: int) -> tuple[int, ...]:
    return (BLOCK,) * (side // BLOCK) + ((side % BLOCK,) if side % BLOCK else ())


def _block(mosaic: Mosaic, block_info: dict) -> np.ndarray:
    (gene, _), rows, columns = block_info[None]["array-location"]
    return mosaic.window(int(gene), rows, columns)[None]
