r"""How large a standard deviation is: measured on training rows that were left out, by one rule for all models.

A model says how its uncertainty varies from row to row, :math:`s`: the spread of samples, of neighbors, of an ensemble.
How large it is is measured. Individuals, else sections, else spatial blocks beyond a buffer are left out of the
training data in turn, fitted without, and predicted; with their errors :math:`e`, per gene,

.. math::

    \mathrm{sd} = c\,s, \quad c^2 = \overline{(e / s)^2} \qquad \text{or} \qquad
    \mathrm{sd}^2 = s^2 + \sigma^2, \quad \sigma^2 = \overline{e^2 - s^2}

the latter where :math:`s` is that of the mean alone (`Predictor.std_of_mean`). This costs a fit per fold. A closed form
that knows its left-out errors (ridge) follows the same rule by itself (`Predictor.measures_error`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Marks, Model, Source
from sq_imputer.progress import track
from sq_imputer.scores.splits import left_out

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.predictor.train import Plan

# n left-out rows, G genes

FOLDS = 5  # of models whose config does not say
MOST = 1000  # left-out rows that are predicted: more make the size no more certain than genes and tissue leave it
LEAST = 1e-2  # share of what a model says, and of the gene's spread, below which none is measured


class Part:
    """A source of which only some measured rows count as measured."""

    def __init__(self, source: Source, measured: np.ndarray) -> None:
        self.source, self.measured = source, measured

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str):
        return getattr(self.source, name)

    def marks(self, genes: Sequence[str]) -> Marks:
        """Nothing: the fit is not kept, and predicts what it is told to."""
        return Marks((), np.empty((0, 2)), np.empty((0, 0), dtype=np.int16), np.empty(0, dtype=bool))


def n_folds(predictor: Model, plan: Plan) -> int:
    """Fits that measuring the error of a model takes; 0 if it is not measured, or by the model itself."""
    if predictor.measures_error or not predictor.card.uncertainty:
        return 0
    return getattr(predictor.config, "calibration", FOLDS) if plan.calibration is None else plan.calibration


def measure(predictor: Model, sources: Sequence[Source], plan: Plan) -> None:
    """Set the size of the standard deviation of a model that was just fitted on these sources."""
    import torch

    folds = _parts(sources, n_folds(predictor, plan), predictor.needs.crop.extent_um if predictor.needs.crop else 0.0)
    if not folds:
        return
    stopped = predictor.history["epochs"] if predictor.history.get("validation") else plan.epochs
    plan = replace(plan, epochs=stopped, validation=0.0, calibration=0)
    share = min(1.0, MOST / sum(int(test.sum()) for _, tests in folds for test in tests))
    errors, stds, name = [], [], predictor.card.name
    for trains, tests in track(folds, f"{name}: error on left-out rows", len(folds), shown=plan.progress):
        fresh = type(predictor)(predictor.config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said was said of the fit on all rows
            fresh.fit([Part(s, train) for s, train in zip(sources, trains, strict=True) if train.any()], plan)
        for error, std in _left_out(fresh, sources, tests, share, plan):
            if std is None:
                return
            errors.append(error), stds.append(std)
    error, std = torch.cat(errors), torch.cat(stds)
    factor, added = size(error, std, predictor.expression_std.cpu(), of_mean=predictor.std_of_mean)
    predictor.std_factor.copy_(factor), predictor.std_added.copy_(added)
    predictor.history = {**predictor.history, "calibration": {"folds": len(folds), "rows": len(error)}}


def size(error: Tensor, std: Tensor, spread: Tensor, *, of_mean: bool) -> tuple[Tensor, Tensor]:
    """What a standard deviation is multiplied by, and what is then added in squares, each `(G,)`.

    Parameters
    ----------
    error, std
        `(n, G)` of left-out rows: predicted minus measured, and what the model says before it is scaled.
    spread
        `(G,)` standard deviations of the training rows: what `sd` is never far below.
    of_mean
        Whether `std` is that of the mean, to which noise is added.
    """
    import torch

    if of_mean:
        noise = (error.double().square() - std.double().square()).mean(dim=0).clamp_min(0).sqrt()
        return torch.ones_like(spread), torch.maximum(noise.float(), LEAST * spread)
    factor = (error.double() / std.double()).square().mean(dim=0).sqrt().clamp_min(LEAST)
    return factor.float(), torch.zeros_like(spread)


def sized(std: Tensor, factor: Tensor, added: Tensor) -> Tensor:
    """A standard deviation `(n, G)` of the size that was measured."""
    return (factor * std).square().add(added.square()).sqrt() if added.any() else factor * std


def _parts(sources: Sequence[Source], folds: int, buffer_um: float) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """For every fold which rows of each source are trained on and which are left out, as masks over all its rows."""
    rows = [np.flatnonzero(source.measured) for source in sources]
    whose = [np.full(len(r), source.group, dtype=object) for source, r in zip(sources, rows, strict=True)]
    section = [np.full(len(r), number) for number, r in enumerate(rows)]
    xy = np.concatenate([source.xy_um[r] for source, r in zip(sources, rows, strict=True)])
    ends = np.cumsum([len(r) for r in rows])[:-1]
    found = []
    for split in left_out(np.concatenate(whose), np.concatenate(section), xy, folds, buffer_um=buffer_um):
        found.append([_masks(sources, rows, np.split(chosen, ends)) for chosen in (split.train, split.test)])
    return found


def _masks(sources: Sequence[Source], rows: list[np.ndarray], chosen: list[np.ndarray]) -> list[np.ndarray]:
    masks = [np.zeros(len(source), dtype=bool) for source in sources]
    for mask, r, c in zip(masks, rows, chosen, strict=True):
        mask[r[c]] = True
    return masks


def _left_out(
    fresh: Model, sources: Sequence[Source], tests: list[np.ndarray], share: float, plan: Plan
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Error and standard deviation (None if the model has none) of rows that a fit has left out, evenly chosen."""
    import torch

    fresh.std_added.zero_()  # not the size that it has until one is measured
    for number, (source, test) in enumerate(zip(sources, tests, strict=True)):
        rows, part = np.flatnonzero(test), Part(source, test)
        part.section = str(number)  # a name seeds the noise of samples, and must not decide the size
        rows = rows[np.linspace(0, len(rows) - 1, round(len(rows) * share)).round().astype(int)]
        if len(rows):
            said = fresh.predict(part, rows=rows, device=plan.device)
            yield said.mean - torch.from_numpy(np.asarray(source.expression[rows], dtype=np.float32)), said.std
