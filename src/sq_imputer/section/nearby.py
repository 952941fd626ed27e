"""What coordinates and depth alone can say of a target: the baselines beside models of other targets than genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sq_imputer.section.slide import Slide

COORDINATES = "coordinates only"
NEAREST = 10  # rows that the coordinates say something by, and what is usual, which counts as one more


def by_place(slide: Slide, rows: np.ndarray, training: Sequence[Slide], kept: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the nearest training rows; sections are laid on each other by their middles.

    Parameters
    ----------
    slide, rows
        The section, and the rows that are asked about.
    training, kept
        Sections with targets, and the rows `(n,)` of each that say something.
    """
    from scipy.spatial import cKDTree

    y = np.concatenate([s.expression[k] for s, k in zip(training, kept, strict=True)])
    alone = len(training) == 1 and training[0].section == slide.section
    middles = [np.zeros(2) if alone else s.xy_um[k].mean(axis=0) for s, k in zip(training, kept, strict=True)]
    places = np.concatenate([s.xy_um[k] - m for s, k, m in zip(training, kept, middles, strict=True)])
    own = slide.xy_um[rows] - (0 if alone else slide.xy_um.mean(axis=0))
    nearest = cKDTree(places).query(own, k=min(NEAREST, len(places)))[1].reshape(len(own), -1)
    return (y[nearest].sum(axis=1) + y.mean(axis=0)) / (nearest.shape[1] + 1)


def counted(slide: Slide, rows: np.ndarray, training: Sequence[Slide]) -> bool:
    """Whether the depth of all rows is known: those asked about, and those with targets that are trained on."""
    known = [slide.depth[rows], *(s.depth[s.measured] for s in training)]
    return all(bool(np.isfinite(depth).all()) for depth in known)
