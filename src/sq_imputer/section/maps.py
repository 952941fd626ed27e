"""Maps of a section, rendered once and piece by piece: its edges and its nuclei, cut around every row.

Nuclei are found in the image (`sq_imputer.pixels.boundaries`), or are those that the object has, from 10x, Cellpose,
StarDist or another: labels or polygons. Which of these is in the provenance of a fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.needs import MAPS
from sq_imputer.pixels import boundaries
from sq_imputer.places import APART_UM
from sq_imputer.progress import track
from sq_imputer.section import read
from sq_imputer.section.labels import finest

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.contract import Needs
    from sq_imputer.section.frame import Frame

REVISION = 1
PIECE = 512  # pixels of a piece
SAMPLES = 8  # pieces by which it is found what is dark for a section


@dataclass(frozen=True, eq=False)
class OwnNuclei:
    """Nuclei that the object has.

    Parameters
    ----------
    element
        Labels or shapes.
    to_px
        `(3, 3)` from their coordinates to pixels of the image.
    key
        Their name.
    """

    element: Any
    to_px: np.ndarray
    key: str

    @classmethod
    def named(cls, sdata: SpatialData, key: str | None, image_key: str, coordinate_system: str) -> OwnNuclei | None:
        """The labels or shapes of a name, if one is said.

        Raises
        ------
        MissingKey
            If there are none, or not where the image is.
        BadInput
            If labels are no whole numbers along y and x.
        """
        if key is None:
            return None
        there = {**sdata.labels, **sdata.shapes}
        if key not in there:
            raise MissingKey(f"no labels or shapes '{key}'; sdata has {listed(there)}. Pass nuclei_key=.")
        element = there[key]
        if coordinate_system not in read.systems(element):
            raise MissingKey(f"'{key}' is not in '{coordinate_system}', where the image is. Pass another nuclei_key=.")
        to_image = np.linalg.inv(read.affine(sdata.images[image_key], coordinate_system))
        if key in sdata.labels:
            level = finest(element)
            if level.dims != ("y", "x") or level.dtype.kind not in "iub":
                raise BadInput(f"labels '{key}' are {level.dtype} along {level.dims}; expected integers along (y, x).")
            element = level.data
        return cls(element, to_image @ read.affine(there[key], coordinate_system), key)

    def on(self, xy_px: np.ndarray) -> np.ndarray:
        """Numbers of the nuclei at places `(H, W, 2)` of the image on a grid, 0 where there is none."""
        own = read.apply(np.linalg.inv(self.to_px), xy_px.reshape(-1, 2)).reshape(xy_px.shape)
        return self._drawn(own) if hasattr(self.element, "geometry") else self._looked_up(own)

    def _looked_up(self, xy: np.ndarray) -> np.ndarray:
        at = np.floor(xy).astype(np.int64)
        size = np.array(self.element.shape[::-1])
        inside = ((at >= 0) & (at < size)).all(axis=2)
        found = np.zeros(inside.shape, dtype=np.int64)
        if inside.any():
            low, high = at[inside].min(axis=0), at[inside].max(axis=0) + 1
            part = np.asarray(self.element[low[1] : high[1], low[0] : high[0]])
            x, y = (at[inside] - low).T
            found[inside] = part[y, x]
        return found

    def _drawn(self, xy: np.ndarray) -> np.ndarray:
        """Polygons, and circles, drawn on the grid one after the other."""
        import shapely
        from skimage.draw import polygon

        shapes = self.element.geometry
        hit = shapes.sindex.query(shapely.box(*xy.min(axis=(0, 1)), *xy.max(axis=(0, 1))))
        found = np.zeros(xy.shape[:2], dtype=np.int64)
        steps = np.stack([xy[0, 1] - xy[0, 0], xy[1, 0] - xy[0, 0]])  # per column and per row
        for number in np.sort(hit).tolist():
            one = shapes.iloc[number]
            one = one.buffer(float(self.element["radius"].iloc[number])) if one.geom_type == "Point" else one
            for part in getattr(one, "geoms", (one,)):
                col, row = ((np.asarray(part.exterior.coords)[:, :2] - xy[0, 0]) @ np.linalg.inv(steps)).T
                found[polygon(row, col, found.shape)] = number + 1
        return found


@dataclass(frozen=True, eq=False)
class Pieces:
    """A grid of square pieces over a section, counted along its axes from the middle of the image.

    Parameters
    ----------
    frame
        The image.
    mpp
        µm per pixel of the maps.
    """

    frame: Frame
    mpp: float

    @property
    def halo(self) -> int:
        """Pixels around a piece that its maps hang on."""
        return int(np.ceil(boundaries.REACH_UM / self.mpp))

    def of(self, centers_px: np.ndarray) -> np.ndarray:
        """Places in pixels of the image as pixels of the maps, along x and y of the section."""
        return ((centers_px - self._middle) @ np.linalg.inv(self.frame.axes.T)) * self.frame.pixel.mpp / self.mpp

    def back(self, xy: np.ndarray) -> np.ndarray:
        """Pixels of the maps as places in pixels of the image."""
        return self._middle + (xy * self.mpp / self.frame.pixel.mpp) @ self.frame.axes.T

    @property
    def _middle(self) -> np.ndarray:
        return np.array(self.frame.pyramid.shape[::-1]) / 2

    def read(self, which: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of pieces `(p, 2)` and their pixels `(3, S, S)`, with the halo, in the order of the image."""
        side = PIECE + 2 * self.halo
        crops = self.frame.crops(self.back((which + 0.5) * PIECE), CropSpec(side * self.mpp, side))
        for index, pixels in crops.batches(1):
            yield int(index[0]), pixels[0]

    def grid(self, piece: np.ndarray) -> np.ndarray:
        """Places `(S, S, 2)` of the pixels of a piece with its halo, in pixels of the image."""
        line = np.arange(-self.halo, PIECE + self.halo) + 0.5
        x, y = np.meshgrid(line + piece[0] * PIECE, line + piece[1] * PIECE)
        return self.back(np.stack([x, y], axis=-1))


class Renderer:
    """What draws the maps that a model needs.

    Parameters
    ----------
    maps
        Names of maps.
    nuclei
        Those of the object; found in the image if None.
    """

    def __init__(self, maps: tuple[str, ...], nuclei: OwnNuclei | None) -> None:
        self.maps, self.own = maps, nuclei
        self.level = np.nan

    def prepare(self, pieces: Pieces, which: np.ndarray) -> None:
        """Find what is dark for this section, by some of its pieces."""
        if "nuclei" in self.maps and self.own is None:
            some = which[np.unique(np.linspace(0, len(which) - 1, SAMPLES).astype(int))]
            seen = [boundaries.blobs(pixels, pieces.mpp) for _, pixels in pieces.read(some)]
            self.level = boundaries.threshold(seen)

    def draw(self, pixels: np.ndarray, pieces: Pieces, piece: np.ndarray) -> np.ndarray:
        """Maps `(C, PIECE, PIECE)` uint8 of a piece, of its pixels with their halo."""
        found = []
        for name in self.maps:
            if name == "edges":
                found.append(boundaries.edges(pixels, pieces.mpp)[None])
            else:
                labels = self._nuclei(pixels, pieces, piece)
                found.append(boundaries.rendered(labels, pieces.mpp))
        inner = slice(pieces.halo, pieces.halo + PIECE)
        return np.rint(np.concatenate(found)[:, inner, inner] * 255).astype(np.uint8)

    def _nuclei(self, pixels: np.ndarray, pieces: Pieces, piece: np.ndarray) -> np.ndarray:
        if self.own is not None:
            return self.own.on(pieces.grid(piece))
        return boundaries.nuclei(boundaries.blobs(pixels, pieces.mpp), self.level, pieces.mpp)


def made_by(maps: tuple[str, ...], nuclei: OwnNuclei | None) -> dict[str, dict]:
    """What maps are made by, by name, for the provenance."""
    ways = {"edges": "pixel differences", "nuclei": "blobs and watershed" if nuclei is None else "of the object"}
    found = {name: {"name": name, "revision": REVISION, "way": ways[name]} for name in maps}
    if nuclei is not None and "nuclei" in found:
        found["nuclei"]["source"] = nuclei.key  # told, and not compared: sections call them by names of their own
    return found


def maps_of(frame: Frame, centers_px: np.ndarray, needs: Needs, nuclei: OwnNuclei | None, label: str) -> np.ndarray:
    """Maps around rows: of their crops and, with neighbors, of the blocks around them, `k` times as wide.

    Parameters
    ----------
    frame
        The image.
    centers_px
        `(n, 2)` rows, in pixels of the image.
    needs
        `maps`, `maps_px`, `maps_um`, `crop` and `neighbors`.
    nuclei
        Those of the object, if it has some.
    label
        What the progress is called.

    Returns
    -------
    `(n, 1 or 2, C, maps_px, maps_px)` uint8: edges from 0 to 255; nuclei as what they cover, their borders, and the
    distance to these, 128 on them and more inside.
    """
    size, k = needs.maps_px, max(1, needs.neighbors)
    fine = max(1, round(needs.crop.extent_um / size / needs.maps_um))
    pieces = Pieces(frame, needs.crop.extent_um / (size * fine))
    sides = [size * fine * times for times in dict.fromkeys((1, k))]
    middle = pieces.of(centers_px)
    first = np.floor(middle - sides[-1] / 2 + 0.5 + APART_UM / pieces.mpp).astype(np.int64)  # of the widest
    drawn = _drawn(pieces, first, sides[-1], Renderer(needs.maps, nuclei), label)
    channels = sum(MAPS[name] for name in needs.maps)
    found = np.empty((len(first), len(sides), channels, size, size), dtype=np.uint8)
    for row, corner in enumerate(first):
        whole = _window(drawn, corner, sides[-1], channels)
        for view, side in enumerate(sides):
            away = (sides[-1] - side) // 2
            part = whole[:, away : away + side, away : away + side]
            found[row, view] = np.rint(part.reshape(channels, size, side // size, size, -1).mean(axis=(2, 4)))
    return found


def _drawn(pieces: Pieces, first: np.ndarray, side: int, renderer: Renderer, label: str) -> dict[tuple, np.ndarray]:
    """The maps of all pieces that windows lie on, by place of the piece."""
    reach = np.arange(0, side + PIECE, PIECE).clip(max=side - 1)
    at = np.stack(np.meshgrid(reach, reach), axis=-1).reshape(-1, 2)
    which = np.unique(((first[:, None] + at) // PIECE).reshape(-1, 2), axis=0)
    renderer.prepare(pieces, which)
    read_ = track(pieces.read(which), label, len(which), size=lambda _: 1)
    return {tuple(which[k].tolist()): renderer.draw(pixels, pieces, which[k]) for k, pixels in read_}


def _window(drawn: dict[tuple, np.ndarray], corner: np.ndarray, side: int, channels: int) -> np.ndarray:
    """A square `(C, side, side)` of the maps, put together of the pieces that it lies on."""
    found = np.empty((channels, side, side), dtype=np.uint8)
    low, high = corner // PIECE, (corner + side - 1) // PIECE
    for column in range(low[0], high[0] + 1):
        for line in range(low[1], high[1] + 1):
            x, y = column * PIECE - corner[0], line * PIECE - corner[1]  # of the piece, on the window
            left, top = max(x, 0), max(y, 0)
            right, bottom = min(x + PIECE, side), min(y + PIECE, side)
            piece = drawn[column, line]
            found[:, top:bottom, left:right] = piece[:, top - y : bottom - y, left - x : right - x]
    return found
