"""How large the standard deviation of a block is: measured by the errors of the models of the other blocks.

Out of fold a section is predicted by several models, each of a block that it has not seen. Their errors are those that
`sq_imputer.predictor.calibrate` would measure by further fits: none are needed. The errors of a block never size
its own standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.predictor.calibrate import n_folds, size, sized, stretched, unsized

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.train import Plan
    from sq_imputer.runs.run import Piece
    from sq_imputer.section.slide import Slide

# n rows of a piece, G genes


@dataclass(frozen=True)
class Said:
    """What a fit said of rows that it had not seen.

    `error` `(n, G)`, predicted minus measured; `std` `(n, G)` before it has a size; `spread` `(G,)` of the training
    rows; whether `std` is that of the mean alone.
    """

    error: Tensor
    std: Tensor
    spread: Tensor
    of_mean: bool


class Crossed:
    """Fits whose standard deviations are sized by the errors of others.

    Parameters
    ----------
    by
        For the name of such a fit, the names of the fits whose errors count.
    """

    def __init__(self, by: Mapping[str, Sequence[str]]) -> None:
        self.by, self.said = by, {}

    def plan(self, name: str, predictor: Predictor, plan: Plan) -> Plan:
        """The plan of a fit, which measures no error of its own where others do."""
        return replace(plan, calibration=0) if name in self.by and n_folds(predictor, plan) else plan

    def note(self, name: str, piece: Piece, model: Predictor, slide: Slide, plan: Plan) -> None:
        """Remember what a fit said of the rows of a slide, unless its model has measured its own error."""
        import torch

        std = piece.prediction.std
        if std is None or not n_folds(model, plan):
            return
        truth = torch.from_numpy(np.asarray(slide.expression[piece.rows], dtype=np.float32))
        std = unsized(std, model.std_factor.cpu(), model.std_added.cpu())
        self.said[name] = Said(piece.prediction.mean - truth, std, model.expression_std.cpu(), model.std_of_mean)

    def resized(self, name: str, piece: Piece) -> Piece:
        """A piece whose standard deviation, and whose samples, have the size of the errors of others."""
        import torch

        if name not in self.said:
            return piece
        own, others = self.said[name], [self.said[other] for other in self.by[name]]
        error, std = (torch.cat(parts) for parts in zip(*[(o.error, o.std) for o in others], strict=True))
        factor, added = size(error, std, own.spread, of_mean=own.of_mean)
        found = piece.prediction
        changes = {"std": sized(own.std, factor, added)}
        if found.samples is not None:
            changes["samples"] = stretched(found.samples, found.mean, changes["std"], found.std)
        return replace(piece, prediction=replace(found, **changes))
