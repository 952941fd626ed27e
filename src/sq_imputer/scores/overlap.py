"""Which rows a model has seen: found again by place and by what was measured there, whatever they are called now.

A section comes back cropped, with genes filtered, at another resolution, under another name or in another system.
Rows are therefore compared, not sections. Of each row the counts of some genes are kept as codes of four genes each:
two rows of the same counts have the same code, and what was counted cannot be read from it. A filter of genes takes
some codes away and leaves the others what they are.
"""

from __future__ import annotations

import numpy as np

from sq_imputer.contract import Marks
from sq_imputer.places import APART_UM

GENES_PER_CODE = 4
SURE = 8  # codes that agree, of genes with counts: no two rows agree in so many by chance
LEAST_SHARE = 0.05  # of the rows, beyond what chance explains, that are found elsewhere in a section
DEVIATIONS = 4.0  # of that chance
_ROWS = 2**16  # coded at a time
_WEIGHTS = np.random.default_rng(2024).integers(1, 2**62, GENES_PER_CODE, dtype=np.uint64) * 2 + np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)


def n_codes(n_genes: int) -> int:
    """How many codes a number of genes has."""
    return -(-n_genes // GENES_PER_CODE)


def codes_of(counts) -> np.ndarray:
    """Codes `(n, ceil(G / 4))` int16 of counts `(n, G)`, sparse or not; 0 where all four are 0."""
    n, n_genes = counts.shape
    width = n_codes(n_genes)
    codes = np.empty((n, width), dtype=np.int16)
    for start in range(0, n, _ROWS):
        some = counts[start : start + _ROWS]
        some = some.toarray() if hasattr(some, "toarray") else np.asarray(some)
        padded = np.zeros((len(some), width * GENES_PER_CODE), dtype=np.uint64)
        padded[:, :n_genes] = some
        codes[start : start + _ROWS] = _hashed(padded.reshape(len(some), width, GENES_PER_CODE))
    return codes


def _hashed(counts: np.ndarray) -> np.ndarray:
    mixed = counts @ _WEIGHTS
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    short = ((mixed ^ (mixed >> np.uint64(29))) * _MIX >> np.uint64(48)).astype(np.uint16)
    short[(short == 0) & counts.any(axis=-1)] = 1
    return short.view(np.int16)


def shared(target: Marks, training: Marks) -> np.ndarray:
    """Which rows of a target are rows of a training section.

    Rows at one place (`sq_imputer.places`) are one if their codes agree; where a section lies elsewhere now, rows are
    one if all of their codes do, and if more of them do than chance explains. Rows at the same place with other counts,
    as of two sections on one lattice, are not one; nor are rows of which no code can be compared.

    Parameters
    ----------
    target
        Rows in question, coded by the genes of `training`.
    training
        Rows that a model was fitted on.

    Returns
    -------
    `(n,)` bool.
    """
    mine, theirs = target.codes[:, target.known], training.codes[:, target.known]
    if not mine.size or not theirs.size:
        return np.zeros(len(mine), dtype=bool)
    return _in_place(target.xy_um, mine, training.xy_um, theirs) | _anywhere(mine, theirs)


def _in_place(xy: np.ndarray, mine: np.ndarray, others_xy: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Rows that lie where a training row lies, and have its counts."""
    from scipy.spatial import cKDTree

    found = np.zeros(len(xy), dtype=bool)
    apart, nearest = cKDTree(others_xy).query(xy)
    rows = np.flatnonzero(apart <= APART_UM)
    if not len(rows):
        return found
    mine, theirs = mine[rows], theirs[nearest[rows]]
    same, telling = mine == theirs, (mine != 0) | (theirs != 0)
    share = _share(same, telling)
    by_chance = _share(*_shuffled(mine, theirs)) if len(rows) > 1 else 0.0
    if share > by_chance and share >= (1 + by_chance) / 2:
        found[rows] = True  # all of them, also those with too few counts to tell
    else:
        found[rows[(same.all(axis=1)) & (telling.sum(axis=1) >= SURE)]] = True
    return found


def _share(same: np.ndarray, telling: np.ndarray) -> float:
    """Share of the codes of genes with counts that agree."""
    return float((same & telling).sum() / max(telling.sum(), 1))


def _shuffled(mine: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which codes agree, and which tell, if every row is held against another one."""
    order = np.random.default_rng(0).permutation(len(mine))
    mine, theirs = mine[order], theirs[np.roll(order, 1)]
    return mine == theirs, (mine != 0) | (theirs != 0)


def _anywhere(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Rows with the counts of a training row, if they are more than the training rows that have each other's."""
    telling = (mine != 0).any(axis=1)
    keys, known = _keys(mine), _keys(theirs[(theirs != 0).any(axis=1)])
    found = telling & np.isin(keys, known)
    if not found.any():
        return found
    times = np.unique(known, return_counts=True)[1]
    chance = 1 - (times == 1).sum() / len(known)  # that another row of such a section has been seen
    n = telling.sum()
    beyond = LEAST_SHARE + DEVIATIONS * np.sqrt(chance * (1 - chance) / n)
    return found if found.sum() / n >= chance + beyond else np.zeros_like(found)


def _keys(codes: np.ndarray) -> np.ndarray:
    """One number `(n,)` for the codes of each row."""
    weights = np.random.default_rng(1).integers(1, 2**62, codes.shape[1], dtype=np.uint64) * 2 + np.uint64(1)
    return codes.view(np.uint16).astype(np.uint64) @ weights
