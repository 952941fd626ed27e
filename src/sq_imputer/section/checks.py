"""What must hold of rows and the image they lie on before anything is computed."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from zarr.storage import LocalStore

from sq_imputer.errors import BadInput, listed
from sq_imputer.pixels.chunks import backing
from sq_imputer.pixels.plan import FAR, Touched
from sq_imputer.section.looks import Looks, look

if TYPE_CHECKING:
    import zarr

    from sq_imputer.contract import CropSpec, Needs
    from sq_imputer.pixels.crops import Crops
    from sq_imputer.pixels.pyramid import Pyramid
    from sq_imputer.section.frame import Frame

LEAST_INSIDE = 0.5  # of the rows must lie on the image, even where white around it was asked for
MOST_MISSING = 0.01  # of the rows may lie on chunks that are not there
COARSER = 2.0  # times coarser than the crop: beyond, a warning
BESIDE = 16  # pixels of a level, within which it lies of where its size says
LOOKED_AT = 8  # crops that show whether there is tissue at all
PLAIN = 3.0  # spread of the values (of 255) in a crop of one color


def check_needs(needs: Needs) -> None:
    """Check that a slide provides what a model needs to see."""
    if needs.sequence:
        told = "the model reads DNA, and all rows of a section have the same"
        raise BadInput(f"{told}. Give it sq_imputer.GeneWindows, whose rows are genes.")
    if needs.crop is None:
        raise BadInput("Needs.crop is None; a model of image rows must say what crop it sees.")
    if needs.neighbors and needs.neighbors % 2 == 0:
        raise BadInput(f"Needs.neighbors is {needs.neighbors}; the block around a row needs an odd side.")


def check_inside(pyramid: Pyramid, centers_px: np.ndarray, ids, shapes: str, outside: str) -> None:
    """Check that centers `(n, 2)` lie on the image; `outside="pad"` lets up to half of them lie beside it."""
    if outside not in ("error", "pad"):
        raise BadInput(f"outside is '{outside}'; expected 'error' or 'pad'.")
    height, width = pyramid.shape
    lost = ((centers_px < 0) | (centers_px > [width, height])).any(axis=1)
    if not lost.any() or (outside == "pad" and lost.mean() <= 1 - LEAST_INSIDE):
        return
    hint = f", at least {LEAST_INSIDE:.0%} with outside='pad'" if outside == "pad" else ""
    way_out = "" if lost.mean() > 1 - LEAST_INSIDE else ", or pass outside='pad' to see white there"
    raise BadInput(
        f"{lost.sum()} of {len(lost)} rows of {shapes} lie outside {pyramid.name} ({width} x {height} px): "
        f"{listed(ids[lost])}, such as at {centers_px[lost][0].round(1).tolist()} px. Only {1 - lost.mean():.0%} lie "
        f"on it; expected all{hint}. Check the transformations of both{way_out}."
    )


def check_missing(
    pyramid: Pyramid, centers_px: np.ndarray, sizes_px: np.ndarray, ids, shapes: str, missing: str
) -> None:
    """Check that the chunk files under the rows are there: zarr reads absent ones as its fill value, without a word.

    Zarr does not write chunks that hold nothing but the fill value, so only those that rows lie on count. What is
    looked at is a listing of the folders of an image in a local zarr store; of a sharded one the shards, not what is
    in them. Images in memory, computed, or in other stores are taken as they are.

    Parameters
    ----------
    pyramid
        The image.
    centers_px, sizes_px
        `(n, 2)` x and y, and `(n,)` side, in pixels of the finest level.
    ids
        `(n,)` what messages call the rows.
    shapes
        What messages call their element.
    missing
        `"error"`, which up to one row in a hundred only warns, or `"fill"`, which takes the fill value as it is.
    """
    if missing not in ("error", "fill"):
        raise BadInput(f"missing is '{missing}'; expected 'error' or 'fill'.")
    if missing == "fill":
        return
    rows, files = np.zeros(len(centers_px), dtype=bool), []
    for number, level in enumerate(pyramid.levels):
        array = backing(level)
        if array is not None and type(array.store) is LocalStore:
            touched, absent = _absent(array, pyramid, centers_px, sizes_px, number)
            rows[touched] = True
            files += absent
    if not files:
        return
    message = (
        f"{len(files)} chunk files of {pyramid.name} that {shapes} lie on are missing ({listed(files, 3)}) and would "
        f"be read as one color. {rows.sum()} of {len(rows)} rows lie there ({rows.mean():.2%}): {listed(ids[rows])}; "
        f"expected none. Copy the store again, drop these rows, or pass missing='fill' if the image is empty there."
    )
    if rows.mean() > MOST_MISSING:
        raise BadInput(message)
    warnings.warn(message, UserWarning, stacklevel=2)


def _absent(
    array: zarr.Array, pyramid: Pyramid, centers_px: np.ndarray, sizes_px: np.ndarray, number: int
) -> tuple[np.ndarray, list[str]]:
    """Rows that touch files of a level that are not there, and these files.

    Where the level truly lies may take a look at its pixels, so that is asked only where files nearby are missing.
    """
    there = _files(Path(array.store.root, array.path))
    side = sizes_px[:, None] / 2
    box = np.stack([centers_px - side, centers_px + side])[..., ::-1]
    around = np.array([-BESIDE, BESIDE])[:, None, None]
    if not _gone(array, pyramid, box / pyramid.scale(number) + around, there)[1]:
        return np.empty(0, np.int64), []
    place = pyramid.place(number)
    if place is None:  # it is never read
        return np.empty(0, np.int64), []
    return _gone(array, pyramid, (box - place.origin) / place.scale, there)


def _gone(array: zarr.Array, pyramid: Pyramid, box: np.ndarray, there: set[str]) -> tuple[np.ndarray, list[str]]:
    """Rows whose box `(2, n, 2)` (from and to, y and x) touches files that are not there, and these files."""
    sizes = array.shards or array.chunks
    edges = tuple(np.append(np.arange(0, n, size), n) for n, size in zip(array.shape[1:], sizes[1:], strict=True))
    low, high = np.clip(box, -FAR, FAR)
    start, stop = np.floor(low).astype(np.int64), np.ceil(high).astype(np.int64)
    columns = len(edges[1]) - 1
    rows, tiles = Touched.by(start, np.maximum(stop - start, 1), edges).pairs(columns)
    needed, where = np.unique(tiles, return_inverse=True)
    planes = {channel // sizes[0] for channel in (*pyramid.channels, pyramid.alpha) if channel is not None}
    keys = [[array.metadata.encode_chunk_key((c, *divmod(tile, columns))) for c in planes] for tile in needed.tolist()]
    absent = [[key for key in some if key not in there] for some in keys]
    gone = np.array([bool(some) for some in absent], dtype=bool)
    name = Path(array.store.root, array.path).name
    return rows[gone[where]], [f"{name}/{key}" for some in absent for key in some]


def _files(folder: Path) -> set[str]:
    """Paths of all files in a folder, relative to it."""
    start = len(str(folder)) + 1
    found = ((parent, names) for parent, _, names in os.walk(folder))
    return {os.path.join(parent, name)[start:].replace(os.sep, "/") for parent, names in found for name in names}


def constant(column, name: str) -> str:
    """The one value of a column of `obs`, as text."""
    values = column.astype(str).unique()
    if len(values) != 1:
        raise BadInput(
            f"obs['{name}'] has {len(values)} values ({listed(values)}) in one section; expected one individual. Pass "
            "patient_key= another column, or split the section."
        )
    return values[0]


class Checked:
    """Checks of an image against what is to be seen of it, each done once."""

    def __init__(self) -> None:
        self._done = set()
        self._looks: Looks | None = None

    def looks(self, frame: Frame, centers_px: np.ndarray) -> Looks:
        """What an image is like around some points, measured once."""
        self._looks = self._looks or look(frame, centers_px)
        return self._looks

    def size(self, frame: Frame, needs: Needs) -> None:
        """Check that the crops of a model fit into an image, and warn if it is much coarser than they are.

        Wider contexts may reach beyond the image. A model that is fitted on this image learns what it shows; what one
        that was fitted on finer ones needs is said in `sq_imputer.section.resolution`.
        """
        if needs.crop in self._done:
            return
        spec, mpp = needs.crop, frame.pixel.mpp
        _check_size(spec, frame)
        coarser = mpp / spec.mpp
        message = (
            f"{frame.pyramid.name} has {mpp:.4g} µm per pixel (from {frame.pixel.source}), {coarser:.1f} times coarser "
            f"than crops of {spec.extent_um:g} µm in {spec.size_px} px; expected at most {COARSER:g} times. Pass "
            "image_key= of a finer image, mpp= if this one is wrong, or crops of fewer pixels (size_px)."
        )
        if coarser > COARSER and frame.resolution is None:
            warnings.warn(message, UserWarning, stacklevel=2)
        self._done.add(needs.crop)

    def skip(self, needs: Needs) -> None:
        """Take the size of an image as it is."""
        self._done.add(needs.crop)

    def crops(self, crops: Crops) -> None:
        """Check that crops hold nothing but colors, and show something. Reads a few."""
        if (crops.spec, "pixels") in self._done:
            return
        # whole numbers have no wrong values: reading a few chunks is enough. Floats may be NaN anywhere.
        if crops.pyramid.levels[crops.level].dtype.kind == "f":
            crops.check()
        _check_tissue(crops)
        self._done.add((crops.spec, "pixels"))


def _check_size(spec: CropSpec, frame: Frame) -> None:
    mpp, (height, width) = frame.pixel.mpp, frame.pyramid.shape
    if spec.extent_um > max(height, width) * mpp:
        raise BadInput(
            f"crops of {spec.extent_um:g} µm are larger than {frame.pyramid.name}: {width * mpp:.4g} x "
            f"{height * mpp:.4g} µm ({width} x {height} px of {mpp:.4g} µm, from {frame.pixel.source}). Pass a smaller "
            "extent_um, or the true mpp=."
        )


def _check_tissue(crops: Crops) -> None:
    rows = np.flatnonzero(crops.inside)  # others have white in them
    rows = rows if len(rows) else np.arange(len(crops))
    rows = np.unique(rows[np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int)])
    seen = crops[rows]
    if seen.std(axis=(2, 3)).max() < PLAIN:
        warnings.warn(
            f"no tissue-like crop in {crops.pyramid.name}: {len(rows)} of {len(crops)} were looked at, and each is of "
            f"one color, such as {tuple(seen[0].mean(axis=(1, 2)).astype(int).tolist())}; expected stained tissue. "
            "Check image_key=, the image itself and the transformations.",
            UserWarning,
            stacklevel=3,
        )
