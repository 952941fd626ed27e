r"""MLP: a small ensemble of networks on frozen features of a crop and its neighborhood.

Each of M members sees the same features, of the crop and of wider contexts around it:

.. math::

    \hat y_m = W_m\,\mathrm{drop}(\mathrm{GELU}(V_m\,\mathrm{drop}(x) + a_m)) + b_m, \qquad
    \hat y = \tfrac1M \sum_m \hat y_m, \qquad
    \mathrm{sd}^2 = \mathrm{var}_m(\hat y_m) + \sigma^2

on expression standardized per gene; members differ by their initial weights and dropout and are trained in one pass.
The loss is the squared error of every member. :math:`\sigma` is what the spread of the members leaves unexplained of
the error on training data that were left out (`sq_imputer.predictor.calibrate`). There is no publication of its
own; everything here is ours. It is the smallest model that the shared training harness trains.

Classes and proportions are shares of a softmax of these outputs, on top of the logarithms of the mean shares; the loss
is the cross-entropy of every member, and a temperature, found on the rows that are held out to stop early, makes the
mean of the members no more certain than it should be (`sq_imputer.nn.heads`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, Needs, Prediction, Views
from sq_imputer.nn import heads
from sq_imputer.nn.drawn import Dropout
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.ranges import within
from sq_imputer.target import KINDS

# B rows, M members, F features, H hidden units, G genes


@dataclass(frozen=True)
class Config(Views):
    """What the MLP is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    hidden
        Hidden units.
    members
        Networks in the ensemble.
    dropout
        Share of features and hidden units dropped in training.
    lr, weight_decay, epochs, batch_size, validation
        Training; `validation` is the share of rows held out to stop early.
    calibration
        Parts of the training data left out in turn to measure the noise, each a fit of as many epochs as were best.
    balanced
        Of classes: probabilities as if all were equally frequent.
    """

    hidden: int = within(256, 1)
    members: int = within(8, 1)
    dropout: float = within(0.5, 0, below=1)
    lr: float = within(1e-3, 0)
    weight_decay: float = within(30.0, 0)
    epochs: int = within(200, 1)
    batch_size: int = within(64, 1)
    validation: float = within(0.15, 0, below=1)
    calibration: int = within(5, 0, but=1)
    balanced: bool = False

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: one context, fewer pixels, units, members and folds."""
        return cls(size_px=64, context_um=(300.0,), hidden=32, members=4, epochs=40, calibration=2)


class Linear(nn.Module):
    """M independent linear maps."""

    def __init__(self, members: int, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, inputs, outputs) * scale / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x_MBF: Tensor) -> Tensor:
        """`(M, B, inputs)` to `(M, B, outputs)`."""
        return torch.baddbmm(self.bias, x_MBF, self.weight)


class Model(Predictor):
    """A small ensemble of networks on frozen features of a crop and its neighborhood."""

    Config = Config
    std_of_mean = True
    draws_by_name = True
    card = ModelCard(
        name="mlp",
        summary="An ensemble of small networks on frozen features of a crop and its wider contexts.",
        paper="No publication of its own.",
        established="Deep ensembles for predictive uncertainty (Lakshminarayanan et al. 2017).",
        ours="Architecture, training and the noise level.",
        limits="Predicts a mean. Needs some hundred training rows; with fewer, ridge is safer.",
        uncertainty="Spread of the ensemble, and a noise level per gene from training data that were left out.",
        targets=KINDS,
    )

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts."""
        return self.config.needs

    def build(self) -> None:
        """The layers of every member."""
        c, width, genes = self.config, self.sizes["features"], len(self.genes)
        self.hidden = Linear(c.members, width, c.hidden, scale=1.0)
        self.out = Linear(c.members, c.hidden, genes, scale=0.1)
        self.drop = Dropout(c.dropout)
        if self.target.link == "softmax":
            self.register_buffer("temperature", torch.ones(()))

    def members(self, x_BF: Tensor) -> Tensor:
        """Standardized expression, or scores of shares, by every member, `(M, B, G)`."""
        x = self.drop(x_BF.expand(self.config.members, *x_BF.shape))
        return self.out(self.drop(nn.functional.gelu(self.hidden(x))))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the members, on standardized expression; cross-entropy of shares."""
        if self.target.link == "softmax":
            mean = self.expression_mean
            row = heads.weights(batch.expression, mean) if self.config.balanced else None
            said = self.members(batch.features) + self._usual()
            return {"cross_entropy": heads.cross_entropy(said, batch.expression, row)}
        return {"mse": (self.members(batch.features) - self._standardized(batch)).pow(2).mean()}

    def _standardized(self, batch: Batch) -> Tensor:
        return (batch.expression - self.expression_mean) / self.expression_std

    def _usual(self) -> Tensor:
        """Scores `(G,)` of what is usual: shares start there."""
        mean = self.expression_mean
        return heads.log_share(torch.full_like(mean, 1 / len(mean)) if self.config.balanced else mean)

    def _shares(self, batch: Batch) -> Tensor:
        return (self.members(batch.features) + self._usual()).softmax(dim=-1)

    def calibrate(self, held: Iterable[Batch]) -> dict[str, Tensor]:
        """The temperature of shares; balanced ones are not those of the rows, and stay as they are."""
        if self.target.link != "softmax" or self.config.balanced:
            return {}
        said, truth = zip(*[(self._shares(batch).mean(dim=0), batch.expression) for batch in held], strict=True)
        found = heads.temperature(torch.cat(said), torch.cat(truth))
        return {"temperature": torch.tensor(found)}

    def predict_step(self, batch: Batch) -> Prediction:
        """Mean of the ensemble and its spread; noise is added to it."""
        if self.target.link == "softmax":
            shares = self._shares(batch)
            return Prediction(
                mean=heads.tempered(shares.mean(dim=0), self.temperature), std=shares.std(dim=0, correction=0)
            )
        said = self.members(batch.features)
        return Prediction(
            mean=self.expression_mean + self.expression_std * said.mean(dim=0),
            std=self.expression_std * said.std(dim=0, correction=0),
        )
