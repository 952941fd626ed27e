r"""How large a standard deviation is: measured on training rows that were left out, by one rule for all models.

A model says how its uncertainty varies from row to row, :math:`s`: the spread of samples, of neighbors, of an ensemble.
How large it is is measured. Individuals, else sections, else spatial blocks beyond a buffer are left out of the
training data in turn, fitted without, and predicted; with their errors :math:`e`, per gene,

.. math::

    \mathrm{sd}^2 = c^2 \tilde s^2, \quad \tilde s^2 = w\,s^2 + (1 - w)\,\overline{s^2}, \quad
    c^2 = \overline{(e / \tilde s)^2} \qquad \text{or} \qquad
    \mathrm{sd}^2 = s^2 + \sigma^2, \quad \sigma^2 = \overline{e^2 - s^2}

:math:`w`, one for all genes, is the one under which these errors are likeliest: the spread of few samples or neighbors
is uncertain itself, and a few rows that are said to be certain would else size all others. The latter formula is for
:math:`s` of the mean alone (`Predictor.std_of_mean`). This costs a fit per fold.

Where there are but two parts, a fit has only half of the rows of that on all, and larger errors: by how much is learned
from fits on half of these rows again, and taken off (`sq_imputer.predictor.parts.share_left`). A closed form that knows
its left-out errors (ridge) follows the same rule by itself (`Predictor.measures_error`).

How many of these standard deviations hold 95 % of the same errors is noted (`history["sd_of_95"]`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Marks, Model, Source
from sq_imputer.predictor.parts import LEAST_HALVED, MOST, SD_OF_95, Labels, sd_of, share_left
from sq_imputer.progress import track
from sq_imputer.scores.splits import half_of, left_out
from sq_imputer.target import CLASSES

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.predictor.train import Plan

# n left-out rows, G genes

FOLDS = 5  # of models whose config does not say
WEIGHTS = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1)  # of what a model says, against its mean
LEAST = 1e-2  # share of what a model says, and of the gene's spread, below which none is measured


class Part:
    """A source of which only some measured rows count as measured."""

    kept = False  # the fit on it: nobody asks it what is unlike its training rows

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
    """Fits that measuring the error of a model takes; 0 if it is not measured, or by the model itself.

    A model that is taught means over neighbors knows its error on these alone, which is less than that on rows.
    """
    by_itself = predictor.measures_error and not predictor.target.smoothed
    if by_itself or not predictor.card.uncertainty or predictor.target.kind == CLASSES:
        return 0
    return getattr(predictor.config, "calibration", FOLDS) if plan.calibration is None else plan.calibration


def measure(predictor: Model, sources: Sequence[Source], plan: Plan) -> None:
    """Set the size of the standard deviation of a model that was just fitted on these sources."""
    import torch

    needs = predictor.needs
    apart = needs.crop.extent_um if needs.crop else float(needs.sequence)  # µm, or base pairs
    folds = _parts(sources, n_folds(predictor, plan), apart)
    if not folds:
        return
    stopped = predictor.history["epochs"] if predictor.history.get("validation") else plan.epochs
    plan = replace(plan, epochs=stopped, validation=0.0, calibration=0)
    share = min(1.0, MOST / sum(int(test.sum()) for _, tests, *_ in folds for test in tests))
    fits = [(train, tests, k) for trains, tests, *half in folds for k, train in enumerate((trains, *half))]
    found: list[list] = [[], []]  # by fits on what is not left out, and on half of that
    for trains, tests, k in track(
        fits, f"{predictor.card.name}: error on left-out rows", len(fits), shown=plan.progress
    ):
        fresh = predictor.for_parts()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said was said of the fit on all rows
            fresh.fit([Part(s, train) for s, train in zip(sources, trains, strict=True) if train.any()], plan)
        found[k] += _left_out(fresh, sources, tests, share, plan)
        if any(std is None for _, std in found[k]):
            return
    error, std = (torch.cat(parts) for parts in zip(*found[0], strict=True))
    if found[1]:
        of_half = torch.cat([half for half, _ in found[1]]).square().mean(dim=0)
        error = error * share_left(error.square().mean(dim=0), of_half, predictor.expression_std.cpu()) ** 0.5
    factor, added = size(error, std, predictor.expression_std.cpu(), of_mean=predictor.std_of_mean)
    predictor.std_factor.copy_(factor), predictor.std_added.copy_(added)
    square = (error / sized(std, factor, added)).square().numpy()
    told = {"calibration": {"folds": len(folds), "rows": len(error)}, SD_OF_95: sd_of(0.95, square)}
    predictor.history = {**predictor.history, **told}


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
    square, shape = error.double().square(), std.double().square()
    shape = shape.clamp_min(1e-12 * shape.mean())
    found = [_share(square, shape, weight) for weight in WEIGHTS]
    weight, unit, _ = min(found, key=lambda one: one[2])
    factor = (weight * unit).sqrt().clamp_min(LEAST)
    added = ((1 - weight) * unit * shape.mean(dim=0)).sqrt()
    return factor.float(), added.float()


def _share(square: Tensor, shape: Tensor, weight: float) -> tuple[float, Tensor, float]:
    """The weight, :math:`c^2` `(G,)` of that weight, and what errors so sized are surprised by, over all genes."""
    variance = weight * shape + (1 - weight) * shape.mean(dim=0)
    unit = (square / variance).mean(dim=0)
    return weight, unit, float((variance.log() + unit.clamp_min(1e-12).log()).mean())


def sized(std: Tensor, factor: Tensor, added: Tensor) -> Tensor:
    """A standard deviation `(n, G)` of the size that was measured."""
    return (factor * std).square().add(added.square()).sqrt() if added.any() else factor * std


def unsized(std: Tensor, factor: Tensor, added: Tensor) -> Tensor:
    """What a model says by itself, `(n, G)`, of a standard deviation that was sized."""
    return (std.square() - added.square()).clamp_min(0).sqrt() / factor if added.any() else std / factor


def stretched(samples: Tensor, mean: Tensor, std: Tensor, by_itself: Tensor) -> Tensor:
    """Samples `(n, S, G)` that spread about the mean as a standard deviation does, instead of as they did."""
    return mean[:, None] + (std / by_itself.clamp_min(1e-12))[:, None] * (samples - mean[:, None])


def _parts(sources: Sequence[Source], folds: int, buffer_um: float) -> list[tuple[list[np.ndarray], ...]]:
    """For every fold which rows of each source are trained on, and which are left out, as masks over all its rows.

    Where there are but two, so that a fit has one of them, half of its rows come third.
    """
    labels = Labels.of(sources)
    splits = left_out(*labels, folds, buffer_um=buffer_um)
    few = min((int(split.train.sum()) for split in splits), default=0) < LEAST_HALVED
    found = []
    for split in splits:
        half = [] if few or len(splits) > 2 else [half_of(labels.sections, labels.xy_um, split.train)]
        found.append(tuple(_masks(sources, chosen) for chosen in (split.train, split.test, *half)))
    return found


def _masks(sources: Sequence[Source], chosen: np.ndarray) -> list[np.ndarray]:
    masks = [source.measured.copy() for source in sources]
    ends = np.cumsum([mask.sum() for mask in masks])[:-1]
    for mask, part in zip(masks, np.split(chosen, ends), strict=True):
        mask[mask] = part
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
