"""Which genes of a fitted model can be believed, and how wide its intervals are: measured once, and kept with it.

Parts of the training data (individuals, else sections, else blocks beyond a buffer) are left out in turn, fitted
without, and predicted. What is so said of every training row is judged as :func:`sq_imputer.tl.trust` judges a section.
A slide without expression then gets the answer that the training sections gave.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.predictor.calibrate import Part
from sq_imputer.predictor.parts import Labels
from sq_imputer.predictor.statistics import kind_of_parts
from sq_imputer.progress import track
from sq_imputer.scores.conformal import widths
from sq_imputer.scores.reliable import UNTESTED, genes_beyond_chance
from sq_imputer.scores.splits import left_out

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.train import Plan
    from sq_imputer.section.slide import Slide

KEY = "reliability"  # in the provenance of a model
PARTS = 5
LEVELS = (0.5, 0.8, 0.9, 0.95)
LEAST_SPOTS = 30
FDR, N_NULL = 0.05, 200
UNLIKE = 0.99  # `ood` beyond which a row is unlike the training tissue: one in a hundred of rows that were left out
EDGE, MOST_BEYOND = 0.95, 0.2  # a section with more rows than this beyond the edge, where 5 % are usual, is another
NUMBERS = ("skill", "low", "high", "fdr")
SLOTS = {"skill": "skill", "low": "skill_low", "high": "skill_high", "fdr": "fdr"}  # what follows the name of the layer
SLOTS |= {"reliable": "reliable", "reason": "reason"}


def measure(predictor: Predictor, slides: Sequence[Slide], plan: Plan) -> dict:
    """What is kept with a model that was just fitted on these slides, as JSON has it.

    Raises
    ------
    BadInput
        If there are fewer than 30 measured rows, or they are not of genes.
    """
    n = sum(int(slide.measured.sum()) for slide in slides)
    if not predictor.target.is_genes or n < LEAST_SPOTS:
        what = f"{n} measured rows of target '{predictor.target.where}'"
        raise BadInput(
            f"trust=True needs {LEAST_SPOTS} measured spots of genes or more; these are {what}. Leave it out."
        )
    said, std = _left_out(predictor, slides, plan)
    rows = [np.flatnonzero(slide.measured) for slide in slides]
    y = np.concatenate([slide.expression[r] for slide, r in zip(slides, rows, strict=True)]).astype(float)
    depth = np.concatenate([slide.depth[r] for slide, r in zip(slides, rows, strict=True)])
    xy = np.concatenate([slide.xy_um[r] for slide, r in zip(slides, rows, strict=True)])
    known, section = np.isfinite(said).all(axis=1), np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    chosen = [known & (section == k) for k in range(len(rows))]
    parts = [(y[c], said[c], depth[c], xy[c]) for c in chosen if c.sum() >= LEAST_SPOTS]
    ceiling = np.full(len(predictor.genes), np.nan)
    how = {"fdr": FDR, "n_null": N_NULL, "seed": plan.seed % 2**32}
    found = genes_beyond_chance(parts, predictor.genes, ceiling, **how)
    found = {name: found[name].tolist() for name in (*NUMBERS, "reliable", "reason")}
    wide = {f"{level:g}": widths(y - said, std, level).tolist() for level in LEVELS}
    whose = {"genes": list(predictor.genes), "from": kind_of_parts(slides), "rows": int(known.sum())}
    return {**whose, **found, "widths": wide}


def _left_out(predictor: Predictor, slides: Sequence[Slide], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and standard deviation `(n, G)` of all measured rows, by fits that have not seen them; else NaN."""
    extent = predictor.needs.crop.extent_um if predictor.needs.crop else 0.0
    splits = left_out(*Labels.of(slides), PARTS, buffer_um=extent)
    rows = [np.flatnonzero(slide.measured) for slide in slides]
    ends = np.cumsum([len(r) for r in rows])[:-1]
    said = [np.full((len(r), len(predictor.genes)), np.nan) for r in rows]
    std = [np.ones_like(one) for one in said]
    for split in track(splits, f"{predictor.card.name}: trust", len(splits), shown=plan.progress):
        trains, tests = (np.split(mask, ends) for mask in (split.train, split.test))
        kept = [_only(slide, r[t]) for slide, r, t in zip(slides, rows, trains, strict=True) if t.any()]
        fresh = _fitted(predictor, kept, plan)
        for k, (slide, own, test) in enumerate(zip(slides, rows, tests, strict=True)):
            if test.any():
                found = fresh.predict(slide, rows=own[test], device=plan.device)
                said[k][test] = found.mean.numpy()
                if found.std is not None:
                    std[k][test] = found.std.numpy()
    return np.concatenate(said), np.concatenate(std)


def _fitted(predictor: Predictor, sources: Sequence[Part], plan: Plan) -> Predictor:
    """One like it, fitted on less. Its standard deviations have the size of the predictor's own."""
    fresh = predictor.fresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is to be said was said of the fit on all rows
        fresh.fit(sources, replace(plan, calibration=0))
    if not predictor.measures_error:
        fresh.std_factor.copy_(predictor.std_factor), fresh.std_added.copy_(predictor.std_added)
    return fresh


def _only(slide: Slide, rows: np.ndarray) -> Part:
    """A slide of which these rows alone count as measured."""
    mask = np.zeros(len(slide), dtype=bool)
    mask[rows] = True
    return Part(slide, mask)


def of(provenance: Mapping, genes: Sequence[str]) -> dict:
    """What a model carries of these genes, its numbers as arrays `(G,)`; empty if it carries nothing.

    Of a gene that it was not fitted on it says that it cannot be tested.
    """
    kept = provenance.get(KEY)
    if not kept:
        return {}
    place = {gene: k for k, gene in enumerate(kept["genes"])}
    at = np.array([place.get(gene, -1) for gene in genes])

    def taken(values, blank, dtype=float) -> np.ndarray:
        return np.append(np.array(values, dtype=dtype), np.array([blank], dtype=dtype))[at]

    found = {**kept, **{name: taken(kept[name], np.nan) for name in NUMBERS}}
    found["reliable"] = taken(kept["reliable"], False, bool)
    found["reason"] = taken(kept["reason"], UNTESTED, object)
    found["widths"] = {level: taken(wide, np.nan) for level, wide in kept["widths"].items()}
    return found


def like(ood: np.ndarray) -> np.ndarray:
    """Which rows of a section, `(n,)`, are like the training tissue: none if the section as a whole is not."""
    return (ood <= UNLIKE) & (not beyond(ood) > MOST_BEYOND)


def beyond(ood: np.ndarray) -> float:
    """Share of rows `(n,)` that are farther from the training rows than 95 % of left-out ones; NaN if not known."""
    known = ood[np.isfinite(ood)]
    return float((known > EDGE).mean()) if len(known) else float("nan")


def columns(provenance: Mapping, layer: str, genes: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of `var` that say what the model of a layer carries; none if it carries nothing."""
    found = of(provenance, genes)
    return {f"{layer}_{slot}": found[name] for name, slot in SLOTS.items()} if found else {}


def blanks(names: Sequence[str], layer: str) -> dict:
    """Those columns of `var` that an earlier prediction of this name left, blanked."""
    blank = {"reliable": False, "reason": UNTESTED}
    return {f"{layer}_{slot}": blank.get(name, np.nan) for name, slot in SLOTS.items() if f"{layer}_{slot}" in names}
