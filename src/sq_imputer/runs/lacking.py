"""Classes and parts that a fold or a section does not have: said by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import listed

if TYPE_CHECKING:
    from sq_imputer.runs.decide import Decision
    from sq_imputer.runs.targets import Targets
    from sq_imputer.section.slide import Slide


def warn_of_lacking(decision: Decision, targets: Targets, training: Sequence[Slide], names: Sequence[str]) -> None:
    """Say which classes a fit sees no row of, and which a section has that its models do not know.

    Parameters
    ----------
    decision
        The fits.
    targets
        The sections to be predicted.
    training
        The sections that fits are numbered by, with their targets; none where a model is fitted already.
    names
        Classes, or parts, that are predicted.
    """
    if targets.slides[0].target.link != "softmax":
        return
    for slide in targets.slides:
        warn_of_strange(slide, names)
    lost: dict[tuple[str, ...], list[str]] = {}
    for fit, parts in decision.fits.items() if training else ():
        lacking = lacks([training[j] if rows is None else training[j].take(rows) for j, rows in parts], names)
        if lacking:
            lost.setdefault(tuple(lacking), []).append(fit)
    for lacking, fits in lost.items():
        _warn(
            f"no row that the models {listed(fits)} are fitted on is of {listed(lacking, 20)}: what they "
            "predict is never that. Pass other folds, or sections that have it."
        )


def lacks(slides: Sequence[Slide], names: Sequence[str]) -> list[str]:
    """Names of which no measured row of some slides has anything."""
    there = np.any([np.nansum(s.expression[s.measured], axis=0) > 0 for s in slides], axis=0)
    return [name for name, one in zip(names, there, strict=True) if not one]


def warn_of_strange(slide: Slide, names: Sequence[str]) -> None:
    """Say which classes of a section are not among those that are predicted; their rows are not measured then."""
    if slide.labels is None:
        return
    strange = [name for name in slide.target.names if name not in set(names)]
    if strange:
        n = int(slide.measured.sum()) - int(slide.with_genes(tuple(names)).measured.sum())
        _warn(
            f"{n} of {int(slide.measured.sum())} rows of section '{slide.section}' are of {listed(strange, 20)}, which "
            "the model does not know: they have no measurement beside the prediction, and are not scored."
        )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
