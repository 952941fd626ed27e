"""What can be said of a section before any model: which rows are scored, by place, by depth, and by how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.units import LOG10_PANEL
from sq_imputer.scores import smoothness

if TYPE_CHECKING:
    from sq_imputer.contract import Needs
    from sq_imputer.predictor.train import Plan
    from sq_imputer.section.slide import Slide

COORDINATES = "coordinates only"
NEAREST = 10  # rows that the coordinates say something by, and what is usual, which counts as one more


def scored(slide: Slide) -> np.ndarray:
    """`(n,)` which rows are scored: those with counts; of another target than genes, those with a value of it."""
    return slide.measured & ((np.nan_to_num(slide.depth) > 0) | (not slide.target.is_genes))


def lacking(slide: Slide, genes: Sequence[str]) -> list[str]:
    """Those of some genes that a section does not have, by name or by id."""
    there = set(slide.which(genes))
    return [gene for number, gene in enumerate(genes) if number not in there]


def check_whole_panel(slide: Slide, genes: Sequence[str], unit: str) -> None:
    """Check that a measured section has all genes of a panel, where values are shares of what the panel has."""
    if unit != LOG10_PANEL or slide.counts is None:
        return
    lost = lacking(slide, genes)
    if lost:
        raise BadInput(
            f"section '{slide.section}' lacks {len(lost)} of {len(genes)} genes ({listed(lost, 3)}), and unit '{unit}' "
            "divides by the total of them all. Name genes= that every section has, or leave out target=."
        )


def eps_of(slide: Slide, rows: np.ndarray, measured: np.ndarray, needs: Needs, plan: Plan) -> dict[str, np.ndarray]:
    """How smooth genes are among rows that look alike (:func:`sq_imputer.scores.smoothness.image_eps`).

    Parameters
    ----------
    slide, rows
        The section, and the rows `(n,)` in question.
    measured
        `(n, G)` what was measured there.
    needs
        What is looked at; the image may be coarser than it asks for.
    plan
        Seed and device.
    """
    some = smoothness.sampled(len(rows), plan.seed)
    seen = slide.take(rows[some])
    seen.checked.skip(needs)
    features = seen.all_features(needs, device=plan.device)
    return smoothness.image_eps(measured[some], features, seen.xy_um, seen.depth, seed=plan.seed)


def by_place(slide: Slide, rows: np.ndarray, training: Sequence[Slide], kept: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the nearest training rows; sections are laid on each other by their middles.

    Parameters
    ----------
    slide, rows
        The section, and the rows that are asked about.
    training, kept
        Sections with targets, and the rows `(n,)` of each that say something.
    """
    y = np.concatenate([s.expression[k] for s, k in zip(training, kept, strict=True)])
    alone = len(training) == 1 and training[0].section == slide.section
    middles = [np.zeros(2) if alone else s.xy_um[k].mean(axis=0) for s, k in zip(training, kept, strict=True)]
    places = np.concatenate([s.xy_um[k] - m for s, k, m in zip(training, kept, middles, strict=True)])
    own = slide.xy_um[rows] - (0 if alone else slide.xy_um.mean(axis=0))
    return near(own, places, y)


def near(own: np.ndarray, places: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mean `(n, G)` of the nearest rows of some places, and of what is usual, which counts as one more."""
    from scipy.spatial import cKDTree

    nearest = cKDTree(places).query(own, k=min(NEAREST, len(places)))[1].reshape(len(own), -1)
    return (y[nearest].sum(axis=1) + y.mean(axis=0)) / (nearest.shape[1] + 1)


def counted(slide: Slide, rows: np.ndarray, training: Sequence[Slide]) -> bool:
    """Whether the depth of all rows is known: those asked about, and those with targets that are trained on."""
    known = [slide.depth[rows], *(s.depth[s.measured] for s in training)]
    return all(bool(np.isfinite(depth).all()) for depth in known)
