r"""Ridge: a closed form on frozen features at several scales, and the baseline that every other model must beat.

With features :math:`x` of the crop and of wider contexts, scaled within each section, and a feature map
:math:`\varphi`,

.. math::

    \hat y = \bar y + \varphi(x)^\top (\Phi^\top\Phi + \alpha I)^{-1} \Phi^\top (Y - \bar y), \qquad
    \mathrm{sd}^2 = \sigma^2 \left(1 + h(x)\right), \quad
    h(x) = \varphi(x)^\top (\Phi^\top\Phi + \alpha I)^{-1} \varphi(x) + \frac{1 - \lVert\varphi(x)\rVert^2}{\alpha}

:math:`\varphi` is the identity for `kernel="linear"`. For `kernel="rbf"` it is the Nyström map of a Gaussian kernel
on at most `landmarks` training rows; with as many landmarks as rows this is exact kernel ridge regression, and the
mean and standard deviation are those of a Gaussian process; the last term of :math:`h`, which only this kernel has,
is what no landmark is near to. :math:`\alpha` is the one of least squared error when whole individuals, sections or
blocks of the training data are left out in turn.
:math:`\sigma^2` is that error per gene, divided by the mean of :math:`1 + h` over training rows, each left out of
:math:`h`: a row as unusual as they are has the error of the left-out data.

Ridge on frozen features is the common baseline of the field (HEST-Benchmark); scales, scaling within sections and the
choice of :math:`\alpha` are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Batch, Needs, Prediction, Source, Views
from sq_imputer.errors import BadInput
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.scores.splits import spatial_blocks

# B rows, N training rows, F features, M landmarks, D features after the map, G genes

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 3, 25))


@dataclass(frozen=True)
class Config(Views):
    """What ridge is made of, beside the features that it reads (:class:`sq_imputer.contract.Views`).

    Parameters
    ----------
    kernel
        `"linear"` or `"rbf"`.
    landmarks
        Most training rows that the Gaussian kernel is built on.
    alpha
        Penalty, relative to the mean eigenvalue; chosen on the training data if None.
    """

    kernel: str = "linear"
    landmarks: int = 3000
    alpha: float | None = None

    def __post_init__(self) -> None:
        if self.kernel not in ("linear", "rbf"):
            raise BadInput(f"ridge.Config.kernel is '{self.kernel}'; expected 'linear' or 'rbf'.")
        if self.alpha is not None and not self.alpha > 0:
            raise BadInput(f"ridge.Config.alpha is {self.alpha}; expected a positive number, or None to choose it.")

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: one context, fewer pixels."""
        return cls(size_px=64, context_um=(300.0,))


class Model(Predictor):
    """A closed form on frozen features at several scales."""

    Config = Config
    card = ModelCard(
        name="ridge",
        summary="Ridge or Gaussian-kernel regression on frozen features of a crop and its wider contexts.",
        paper="No publication; ridge on frozen features is the baseline of the HEST-Benchmark (Jaume et al. 2024).",
        established="Ridge regression and its posterior variance.",
        ours="Three fields of view, scaling within sections, the penalty chosen by leaving training sections out.",
        limits="Predicts a mean: maps are smoother than the tissue; genes the image does not show shrink to the mean.",
        uncertainty="Standard deviation of a new measurement: error on left-out training data, and leverage.",
    )

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts."""
        return self.config.needs

    def build(self) -> None:
        """Buffers for the map, the weights and the posterior."""
        width, genes = self.sizes["features"], len(self.genes)
        depth = width
        if self.config.kernel == "rbf":
            depth = min(self.sizes["rows"], self.config.landmarks)
            self.register_buffer("landmarks", torch.zeros(depth, width))
            self.register_buffer("whiten", torch.zeros(depth, depth))
            self.register_buffer("gamma", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(depth, genes))
        self.register_buffer("mapped_mean", torch.zeros(depth))
        self.register_buffer("posterior", torch.zeros(depth, depth))
        self.register_buffer("penalty", torch.ones(()))
        self.register_buffer("noise", torch.zeros(genes))

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Solve for the weights; the penalty is chosen by leaving training data out."""
        seen = Batch.cat([b for s in sources for b in self.seen(s, 4096, rows=np.flatnonzero(s.measured))])
        x, y = seen.features, seen.expression
        mapped = self._fit_map(x, plan.seed)
        alphas = (self.config.alpha,) if self.config.alpha else ALPHAS
        error = _left_out_error(mapped, y, _left_out(sources), alphas)
        best = int(error.mean(dim=1).argmin())
        self._solve(mapped, y, alphas[best])
        inside = self.leverage(mapped)
        outside = inside / (1 - inside).clamp_min(1e-6) + self.missed(mapped)  # had the row been left out
        self.noise.copy_((error[best] / (1 + outside.mean())).sqrt())
        self.history = {"alpha": alphas[best], "left_out_mse": float(error[best].mean())}

    def _fit_map(self, x_NF: Tensor, seed: int) -> Tensor:
        """Set the feature map from training rows and return the rows mapped."""
        if self.config.kernel == "linear":
            return x_NF
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(x_NF), generator=generator)[: len(self.landmarks)].sort().values
        self.landmarks.copy_(x_NF[chosen])
        square = torch.cdist(self.landmarks, self.landmarks).pow(2)
        apart = square[square > 0]
        self.gamma.copy_(1 / apart.median() if len(apart) else torch.tensor(1.0))
        values, vectors = torch.linalg.eigh(torch.exp(-self.gamma * square).double())
        keep = values > 1e-7 * values[-1]
        self.whiten.zero_()
        self.whiten[:, keep] = (vectors[:, keep] / values[keep].sqrt()).float()
        return self.map(x_NF)

    def map(self, x_BF: Tensor) -> Tensor:
        """Features after the map, `(B, D)`."""
        if self.config.kernel == "linear":
            return x_BF
        return torch.exp(-self.gamma * torch.cdist(x_BF, self.landmarks).pow(2)) @ self.whiten

    def leverage(self, mapped_BD: Tensor) -> Tensor:
        """Variance of the mean in units of the noise's, `(B,)`, within what the map holds."""
        centered = mapped_BD - self.mapped_mean
        return ((centered @ self.posterior) * centered).sum(dim=1).clamp_min(0)

    def missed(self, mapped_BD: Tensor) -> Tensor:
        """The same, `(B,)`, outside of what the map holds; nothing if the kernel is linear."""
        if self.config.kernel == "linear":
            return mapped_BD.new_zeros(len(mapped_BD))
        return (1 - mapped_BD.pow(2).sum(dim=1)).clamp_min(0) / self.penalty

    def _solve(self, mapped_ND: Tensor, y_NG: Tensor, alpha: float) -> None:
        values, vectors, mean = _spectrum(mapped_ND)
        self.mapped_mean.copy_(mean)
        self.penalty.copy_(_penalty(values, alpha))
        inverse = (vectors / (values + _penalty(values, alpha))) @ vectors.T
        centered = mapped_ND.double() - mean
        self.weight.copy_(inverse @ (centered.T @ (y_NG.double() - y_NG.double().mean(dim=0))))
        self.posterior.copy_(inverse)

    def predict_step(self, batch: Batch) -> Prediction:
        """Posterior mean and standard deviation."""
        mapped = self.map(batch.features)
        mean = self.expression_mean + (mapped - self.mapped_mean) @ self.weight
        spread = 1 + self.leverage(mapped) + self.missed(mapped)
        return Prediction(mean=mean, std=self.noise * spread.sqrt()[:, None])


def _left_out(sources: Sequence[Source]) -> list[np.ndarray]:
    """Masks over all measured rows: each individual left out in turn, else each section, else each of five blocks."""
    rows = [np.flatnonzero(source.measured) for source in sources]
    groups = np.concatenate(
        [np.full(len(r), source.group, dtype=object) for source, r in zip(sources, rows, strict=True)]
    )
    sections = np.concatenate([np.full(len(r), k) for k, r in enumerate(rows)])
    labels = groups if len(set(groups)) > 1 else sections
    if len(set(labels)) == 1:
        xy = np.concatenate([source.xy_um[r] for source, r in zip(sources, rows, strict=True)])
        labels = spatial_blocks(xy, min(5, len(labels)))
    return [labels == label for label in dict.fromkeys(labels.tolist())]


def _spectrum(mapped_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and vectors of the centered second moment, and the mean, in float64."""
    mapped = mapped_ND.double()
    mean = mapped.mean(dim=0)
    values, vectors = torch.linalg.eigh((mapped - mean).T @ (mapped - mean))
    return values.clamp_min(0), vectors, mean


def _penalty(values: Tensor, alpha: float) -> Tensor:
    """The penalty in the units of the eigenvalues; positive even where no feature varies."""
    return alpha * values.mean().clamp_min(1e-6)


def _left_out_error(mapped_ND: Tensor, y_NG: Tensor, folds: Sequence[np.ndarray], alphas: Sequence[float]) -> Tensor:
    """Mean squared error `(alphas, G)` on rows that were left out of the fit."""
    error = torch.zeros(len(alphas), y_NG.shape[1], dtype=torch.float64)
    for fold in track(folds, "ridge: penalty", len(folds)):
        out = torch.from_numpy(fold)
        values, vectors, mean = _spectrum(mapped_ND[~out])
        y_mean = y_NG[~out].double().mean(dim=0)
        rotated = (mapped_ND[~out].double() - mean) @ vectors
        target = rotated.T @ (y_NG[~out].double() - y_mean)
        left_out = (mapped_ND[out].double() - mean) @ vectors
        for i, alpha in enumerate(alphas):
            guess = y_mean + left_out @ (target / (values + _penalty(values, alpha))[:, None])
            error[i] += (guess - y_NG[out].double()).pow(2).sum(dim=0)
    return error / len(y_NG)
