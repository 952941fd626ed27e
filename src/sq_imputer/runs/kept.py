"""A prediction of which only what can be believed is written: genes beyond chance, rows like the training tissue."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.runs import reliability

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.slots import Result
    from sq_imputer.section.slide import Slide

KEEP = ("all", "reliable")


class Kept:
    """A predictor of fewer genes; about all else the whole one is asked."""

    def __init__(self, predictor: Predictor, columns: np.ndarray) -> None:
        self.predictor, self.genes = predictor, tuple(predictor.genes[k] for k in columns)

    def __getattr__(self, name: str):
        return getattr(self.predictor, name)


def columns_kept(predictor: Predictor, keep: str) -> np.ndarray | None:
    """Numbers of the genes that are kept; None if all are.

    Raises
    ------
    BadInput
        If the model does not say which genes are reliable, or none is.
    """
    if keep not in KEEP:
        raise BadInput(f"keep is {keep!r}; expected one of {listed(KEEP)}.")
    if keep == "all":
        return None
    known = reliability.of(predictor.provenance, predictor.genes) if predictor.fitted else {}
    if not known:
        raise BadInput(
            f"keep='reliable' needs a model that says which genes are, and '{predictor.card.name}' does not. Fit it "
            "with tl.fit(..., trust=True); or predict all, call tl.trust, and take what it marks as reliable."
        )
    columns = np.flatnonzero(known["reliable"])
    if not len(columns):
        raise BadInput(f"none of the {len(predictor.genes)} genes of '{predictor.card.name}' is reliable. Predict all.")
    return columns


def cut(results: Sequence[Result], columns: np.ndarray, slides: Sequence[Slide]) -> list[Result]:
    """The results of these genes; rows that are unlike the training tissue, or in a section that is, are NaN."""
    found, lost = [], {}
    for result, slide in zip(results, slides, strict=True):
        said = result.prediction
        rows = reliability.like(said.ood.numpy())
        parts = {"mean": said.mean[:, columns].clone()}
        parts["mean"][~rows] = np.nan
        if said.std is not None:
            parts["std"] = said.std[:, columns].clone()
            parts["std"][~rows] = np.nan
        if said.samples is not None:
            parts["samples"] = said.samples[..., columns]
        model = Kept(result.predictor, columns)
        found.append(replace(result, prediction=replace(said, **parts), predictor=model, kept=rows))
        if not rows.all():
            lost[slide.section] = int((~rows).sum())
    if lost:
        many = ", ".join(f"{n} of section '{name}'" for name, n in lost.items())
        warnings.warn(
            f"rows unlike the training tissue are left empty: {many}. See obs['..._ood'] and tl.trust.",
            UserWarning,
            stacklevel=5,
        )
    return found
