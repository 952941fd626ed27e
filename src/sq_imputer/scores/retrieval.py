"""Retrieval of the other half of a pair: ranks and recall over a gallery that is said, beside chance.

Recall within batches of 64 and recall over a whole section are different numbers: of 64 neighbors of one slide five
guesses find one in thirteen by chance. The gallery is therefore an argument, and every score stands beside its chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sq_imputer.errors import BadInput

_AT_ONCE = 2**22  # similarities held at once


def galleries(section: Sequence, gallery: str) -> np.ndarray:
    """Labels `(n,)` of the gallery that every row is looked for in.

    Parameters
    ----------
    section
        `(n,)` labels of the sections.
    gallery
        `"all"`, `"section"`, or `"batch:64"`: so many rows after each other within a section, whatever remains of it
        included.

    Raises
    ------
    BadInput
        If it is none of these.
    """
    codes = np.unique(np.asarray(section).astype(str), return_inverse=True)[1]
    if gallery == "all":
        return np.zeros(len(codes), dtype=int)
    if gallery == "section":
        return codes
    kind, _, size = str(gallery).partition(":")
    if kind != "batch" or not size.isdigit() or int(size) < 2:
        raise BadInput(f"gallery is {gallery!r}; expected 'all', 'section', or 'batch:64' with a number from 2.")
    labels, count = np.empty(len(codes), dtype=int), 0
    for code in range(codes.max(initial=-1) + 1):
        (rows,) = np.flatnonzero(codes == code)[None]
        labels[rows] = count + np.arange(len(rows)) // int(size)
        count += -(-len(rows) // int(size))
    return labels


def ranked(
    query: np.ndarray,
    key: np.ndarray,
    groups: np.ndarray,
    *,
    xy_um: np.ndarray | None = None,
    section: np.ndarray | None = None,
    exclude_um: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of its gallery are more like a query than its own pair.

    Parameters
    ----------
    query, key
        `(n, D)` vectors, whose products are similarities; row i of one belongs to row i of the other.
    groups
        `(n,)` labels of galleries.
    xy_um, section, exclude_um
        Rows of the same section nearer than this, but for the query's own, are not in its gallery.

    Returns
    -------
    `(n,)` numbers: strictly more alike, exactly as alike (the pair itself not counted), and the size of the gallery.
    """
    query, key = np.asarray(query, dtype=np.float32), np.asarray(key, dtype=np.float32)
    above, ties, sizes = (np.zeros(len(query), dtype=int) for _ in range(3))
    for group in np.unique(groups):
        (rows,) = np.flatnonzero(groups == group)[None]
        for part in np.array_split(rows, max(1, len(rows) ** 2 // _AT_ONCE)):
            alike = query[part] @ key[rows].T
            own = np.searchsorted(rows, part)
            truth = alike[np.arange(len(part)), own][:, None]
            there = _kept(part, rows, xy_um, section, exclude_um)
            there[np.arange(len(part)), own] = False
            above[part] = ((alike > truth) & there).sum(axis=1)
            ties[part] = ((alike == truth) & there).sum(axis=1)
            sizes[part] = there.sum(axis=1) + 1
    return above, ties, sizes


def _kept(part: np.ndarray, rows: np.ndarray, xy_um, section, exclude_um: float) -> np.ndarray:
    there = np.ones((len(part), len(rows)), dtype=bool)
    if exclude_um > 0:
        apart = np.linalg.norm(xy_um[part][:, None] - xy_um[rows][None], axis=2)
        there = (apart >= exclude_um) | (section[part][:, None] != section[rows][None])
    return there


def recall(above: np.ndarray, ties: np.ndarray, k: int) -> np.ndarray:
    """`(n,)` probability that the pair is among the first k, ties in random order: 0 or 1 where there are none."""
    return np.clip((k - above) / (ties + 1), 0, 1)


def chance(sizes: np.ndarray, k: int) -> np.ndarray:
    """`(n,)` recall of somebody who guesses: k of the gallery."""
    return np.minimum(k / sizes, 1)


def rank(above: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """`(n,)` place of the pair, 1 the first; the middle of ties."""
    return 1 + above + ties / 2
