"""The pixel size of an image, from the lattice that its spots were printed on.

Spots are printed at known distances, so array and pixel coordinates together give µm per pixel. A regression over all
spots is used because spots jitter: the distance to the nearest neighbor is biased (6 % on legacy ST), the lattice not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.places import APART_UM, distinct, ranks

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

TECHNOLOGIES = {"visium": 100.0, "st": 200.0, "st2k": 150.0}
"""Distance between the centers of neighboring spots, in µm, by technology."""

# µm per array column and per array row. Visium and ST 2k are staggered: every other position of their array holds no
# spot. The aspect of ST 2k is the one seen in real sections (1.11 in both olfactory bulbs of STUtility), its scale the
# one that puts neighbors at 150 µm.
_STEPS = {
    "visium": (50.0, 50.0 * np.sqrt(3)),
    "st": (200.0, 200.0),
    "st2k": (100.0, 50.0 * np.sqrt(5)),
}
HEXAGONAL = 0.5  # sixfold order of the edges of a lattice; jitter takes some of 1, squares have 0
_OTHERWISE = "Or pass mpp=, the µm per pixel."


def lattice_um(array_rc: np.ndarray, technology: str) -> np.ndarray:
    """Where the spots were printed.

    Parameters
    ----------
    array_rc
        `(n, 2)` array rows and columns. On the staggered lattices (Visium, ST 2k) row + column is even for all spots,
        or odd for all.
    technology
        `"visium"` (100 µm), `"st"` (200 µm) or `"st2k"` (150 µm).

    Returns
    -------
    `(n, 2)` x (along columns) and y (along rows), in µm.

    Raises
    ------
    BadInput
        If the technology is not known.
    """
    if technology not in TECHNOLOGIES:
        raise BadInput(f"no technology '{technology}'; there are {listed(TECHNOLOGIES)}. {_OTHERWISE}")
    return np.asarray(array_rc, dtype=float)[:, ::-1] * _STEPS[technology]


def is_staggered(array_rc: np.ndarray) -> bool:
    """Whether every other position of an array `(n, 2)` holds no spot: row + column is even for all, or odd for all."""
    total = np.asarray(array_rc, dtype=float).sum(axis=1)
    total = total[np.isfinite(total)]
    return len(total) > 2 and len(np.unique(total % 2)) == 1 and bool((total % 1 == 0).all())


def mpp_of_lattice(xy_px: np.ndarray, array_rc: np.ndarray, technology: str) -> float:
    """µm per pixel, from where the spots of a lattice lie in the image.

    The lattice may be rotated or mirrored in the image, spots may be missing, jittered, and a few misplaced: the affine
    map of least absolute deviations is fitted, and its mean scale is the answer.

    Parameters
    ----------
    xy_px
        `(n, 2)` centers in image pixels.
    array_rc
        `(n, 2)` array rows and columns of the same spots.
    technology
        `"visium"`, `"st"` or `"st2k"`; see `TECHNOLOGIES`.

    Raises
    ------
    BadInput
        If the spots do not span a lattice, or the image stretches it in one direction, or positions do not follow it.
    """
    xy_px, xy_um = np.asarray(xy_px, dtype=float), lattice_um(array_rc, technology)
    if xy_px.shape != xy_um.shape:
        raise BadInput(f"{len(xy_px)} pixel and {len(xy_um)} array positions; they must describe the same spots.")
    finite = np.isfinite(xy_px).all(axis=1) & np.isfinite(xy_um).all(axis=1)
    xy_px, xy_um = xy_px[finite], xy_um[finite]
    for name, xy in (("array", xy_um), ("pixel", xy_px)):
        if len(xy) < 3 or np.linalg.matrix_rank(xy - xy.mean(axis=0), tol=1e-6 * (1 + np.abs(xy).max())) < 2:
            raise BadInput(
                f"the {name} positions of {len(xy)} spots do not span a lattice: "
                f"3 spots or more, not on one line, are needed. {_OTHERWISE}"
            )
    affine, distance = _least_absolute(xy_um, xy_px)
    stretch = np.linalg.svd(affine, compute_uv=False)  # pixels per µm along the two principal directions
    _check_fit(stretch, float(np.median(distance)), technology)
    return float(1 / np.sqrt(stretch.prod()))


def _least_absolute(source: np.ndarray, target: np.ndarray, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Affine map of least summed distance, by reweighted least squares: its `(2, 2)` linear part, and the distances."""
    design = np.column_stack([source, np.ones(len(source))])
    weight = np.ones(len(source))
    for _ in range(steps):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(design * root, target * root, rcond=None)[0]
        distance = np.linalg.norm(design @ solution - target, axis=1)
        weight = 1 / np.maximum(distance, 1e-6 + 1e-3 * np.median(distance))
    return solution[:2], distance


def _check_fit(stretch: np.ndarray, deviation_px: float, technology: str) -> None:
    if stretch.max() > 1.1 * stretch.min():
        raise BadInput(
            f"the '{technology}' lattice is stretched {stretch.max() / max(stretch.min(), 1e-12):.2f} times more in "
            "one direction than in the other; rows and columns may be swapped, or the technology is another of "
            f"{listed(TECHNOLOGIES)}. {_OTHERWISE}"
        )
    deviation_um = deviation_px / stretch.max()
    if deviation_um > TECHNOLOGIES[technology] / 4:
        raise BadInput(
            f"half of the spots lie more than {deviation_um:.0f} µm from the '{technology}' lattice (pitch "
            f"{TECHNOLOGIES[technology]:.0f} µm); array and pixel positions do not belong together. {_OTHERWISE}"
        )


def pitch(*sections: np.ndarray) -> float:
    """Pitch: median distance of a spot to the nearest other place in its section; NaN if no section has two places.

    Parameters
    ----------
    *sections
        `(n, 2)` places of the spots of a section; spots at one place count once.
    """
    from scipy.spatial import cKDTree

    places = [np.asarray(xy)[distinct(xy)] for xy in sections]
    away = [cKDTree(xy).query(xy, k=2)[0][:, 1] for xy in places if len(xy) > 1]
    return float(np.median(np.concatenate(away))) if away else float("nan")


def steps_um(*sections: np.ndarray) -> tuple[float, float]:
    """Distance between neighboring columns and between neighboring rows of the lattice that spots lie on.

    On a square lattice both are the pitch. On a hexagonal one every other position of a row is empty: at a pitch of
    100 µm columns are 50 µm apart and rows 86.6 µm, or the other way round where rows run along y. What is neither, or
    is turned against the axes, has the pitch both ways.

    Parameters
    ----------
    *sections
        `(n, 2)` places of the spots of a section.
    """
    from scipy.spatial import cKDTree

    step, around = pitch(*sections), []
    if not np.isfinite(step):
        return step, step
    for xy in sections:
        places = np.asarray(xy, dtype=float)[distinct(xy)]
        pairs = cKDTree(places).query_pairs(1.25 * step, output_type="ndarray")  # not the diagonal of a square
        around.append(np.subtract(*places[pairs.T]))
    edges = np.concatenate(around)
    order = np.mean((edges[:, 0] + 1j * edges[:, 1]) ** 6 / np.linalg.norm(edges, axis=1) ** 6)
    if abs(order.real) < HEXAGONAL or _right_angles(edges) > abs(order.real):
        return step, step
    along, across = step / 2, step * np.sqrt(3) / 2
    return (along, across) if order.real > 0 else (across, along)


def _right_angles(edges: np.ndarray) -> float:
    """How much edges `(n, 2)` are those of squares, whichever way they are turned; 1 for squares, 0 for hexagons."""
    return float(np.abs(np.mean((edges[:, 0] + 1j * edges[:, 1]) ** 4 / np.linalg.norm(edges, axis=1) ** 4)))


def cells(xy_um: np.ndarray, corner_um: np.ndarray, step_um) -> np.ndarray:
    """Column and row `(n, 2)` of places on a lattice, counted from a corner; ties do not hang on rounding."""
    return np.floor((xy_um - corner_um + APART_UM) / step_um + 0.5).astype(np.int64)


FIRST, GROWS = 2.5, 1.5  # steps around the middle by which a lattice is fitted at first, and how fast these grow
TRUSTED = 0.2  # share by which a fit may change a step: beyond, there is no lattice


def positions(xy_um: np.ndarray, array: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """Places on a lattice as whole numbers in which neighbors differ by 1.

    Parameters
    ----------
    xy_um
        `(n, 2)` places.
    array
        `(n, 2)` column and row of the array that all of them were printed on, where they are known.

    Returns
    -------
    `(n, 2)` int64 column and row, counted along x and y whichever way the array was printed; and which axis the rows of
    a hexagonal lattice run along, -1 if it has none. On that, columns are axial coordinates: the six neighbors of a
    place are at (±1, 0), (0, ±1), (1, -1) and (-1, 1). What is on no lattice is counted in median distances to the
    nearest neighbor.
    """
    xy_um = np.asarray(xy_um, dtype=float)
    if len(xy_um) < 3:
        return np.stack([ranks(xy_um[:, 0]), ranks(xy_um[:, 1])], axis=1), -1
    if array is not None:
        found, across = _along(np.rint(array).astype(np.int64), xy_um)
        hexagonal = across if is_staggered(array[:, ::-1]) else -1
    else:
        steps = np.array(steps_um(xy_um))
        if not (np.isfinite(steps) & (steps > 0)).all():
            return np.zeros((len(xy_um), 2), dtype=np.int64), -1
        found = _fitted(xy_um, steps)
        hexagonal = -1 if np.isclose(*steps) else int(np.argmin(steps))
    if hexagonal >= 0:
        along, beside = found[:, hexagonal], found[:, 1 - hexagonal]
        found = np.stack([(along - beside) // 2, beside], axis=1)
    return found - found.min(axis=0), hexagonal


def beside(xy_um: np.ndarray, array: np.ndarray | None = None) -> csr_matrix:
    """Which places lie next to each other on their lattice: `(n, n)`, 1 there and on the diagonal.

    The eight around a place of a square lattice, the six of a hexagonal one; `xy_um` and `array` as in
    :func:`positions`, which says what counts where there is no lattice.
    """
    from scipy.sparse import csr_matrix
    from scipy.spatial import cKDTree

    places, hexagonal = positions(xy_um, array)
    one, other = cKDTree(places).query_pairs(1, p=np.inf, output_type="ndarray").T
    if hexagonal >= 0:
        near = np.abs((places[one] - places[other]).sum(axis=1)) < 2  # the two corners that are farther away
        one, other = one[near], other[near]
    own = np.arange(len(places))
    at = np.concatenate([one, other, own]), np.concatenate([other, one, own])
    return csr_matrix((np.ones(len(at[0])), at), shape=(len(own), len(own)))


def _along(array: np.ndarray, xy_um: np.ndarray) -> tuple[np.ndarray, int]:
    """Columns and rows of an array, counted along x and y; and which of the two its columns are counted along."""
    centered = array - array.mean(axis=0)
    linear = np.linalg.lstsq(centered, xy_um - xy_um.mean(axis=0), rcond=None)[0]  # xy = array @ linear
    pitch_um = np.abs(linear)
    turned = bool(pitch_um[0, 1] + pitch_um[1, 0] > pitch_um[0, 0] + pitch_um[1, 1])
    sign = np.sign([linear[1, 0], linear[0, 1]] if turned else [linear[0, 0], linear[1, 1]])
    return (array[:, ::-1] if turned else array) * np.where(sign < 0, -1, 1), int(turned)


def _fitted(xy_um: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Column and row of places, by steps that are fitted from the middle outwards: small errors would add up."""
    middle = xy_um[np.argmin(((xy_um - np.median(xy_um, axis=0)) ** 2).sum(axis=1))]
    away, step, origin = np.abs((xy_um - middle) / steps).max(axis=1), steps.copy(), middle.copy()
    reach = FIRST
    while reach < GROWS * away.max():
        near = xy_um[away <= reach]
        found = cells(near, origin, step)
        for axis in (0, 1):
            if np.ptp(found[:, axis]) > 1:
                slope, start = np.polyfit(found[:, axis], near[:, axis], 1)
                if abs(slope / steps[axis] - 1) < TRUSTED:
                    step[axis], origin[axis] = slope, start
        reach *= GROWS
    return cells(xy_um, origin, step)


def array_of(table: AnnData, rows: np.ndarray, where: np.ndarray, n: int) -> np.ndarray | None:
    """Column and row of the array at the rows of a section; None if the table does not say them of all its rows."""
    from pandas import to_numeric

    if not {"array_row", "array_col"} <= set(table.obs):
        return None
    named = table.obs[["array_col", "array_row"]].iloc[rows]
    found = named.apply(to_numeric, errors="coerce").to_numpy(dtype=np.float32)
    if not np.isfinite(found).all():
        return None
    array = np.zeros((n, 2), dtype=np.float32)
    array[where] = found
    return array
