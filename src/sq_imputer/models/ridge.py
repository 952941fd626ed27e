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
:math:`\sigma^2` is the mean, per gene, of that error over :math:`1 + h` of its row, as if the row alone had been left
out. Each error is divided by its own: a few rows unlike all others, of ink or of a fold, say nothing of the rest.

Classes and proportions are fitted by the same least squares, whose values :math:`z` (of classes, by their indicators)
then are the scores of a softmax (`sq_imputer.nn.heads`): its map is fitted to the scores of the rows that were left out
for the choice of :math:`\alpha`, so that probabilities are calibrated on rows that no fit had seen.

Rows are gone through some thousand at a time, and fits are made of sums over rows: those of the rows that are not left
out are the sums over all minus those over the rows that are. Where there are fewer rows than features, sums are along
the axes that the rows span.

Ridge on frozen features is the common baseline of the field (HEST-Benchmark); scales, scaling within sections and the
choice of :math:`\alpha` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Batch, Needs, Prediction, Source, Views
from sq_imputer.nn import heads
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.parts import LEAST_HALVED, MOST, SD_OF_95, Labels, sd_of, share_left
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.ranges import one_of, within
from sq_imputer.scores.splits import half_of, spatial_blocks, whole_parts
from sq_imputer.target import KINDS

# B rows, N training rows, F features, M landmarks, D features after the map, G genes

ROWS_AT_ONCE = 4096
ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 3, 25))


@dataclass(frozen=True)
class Config(Views):
    """What ridge is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    kernel
        `"linear"` or `"rbf"`.
    landmarks
        Most training rows that the Gaussian kernel is built on.
    alpha
        Penalty, relative to the mean eigenvalue; chosen on the training data if None.
    balanced
        Of classes: probabilities as if all were equally frequent.
    """

    kernel: str = one_of("linear", ("linear", "rbf"))
    landmarks: int = within(3000, 1)
    alpha: float | None = within(None, above=0, whole=False)
    balanced: bool = False

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: one context, fewer pixels."""
        return cls(size_px=64, context_um=(300.0,))


class Model(Predictor):
    """A closed form on frozen features at several scales."""

    Config = Config
    measures_error = True  # sigma is of left-out data
    card = ModelCard(
        name="ridge",
        summary="Ridge or Gaussian-kernel regression on frozen features of a crop and its wider contexts.",
        paper="No publication; ridge on frozen features is the baseline of the HEST-Benchmark (Jaume et al. 2024).",
        established="Ridge regression and its posterior variance.",
        ours="Three fields of view, scaling within sections, the penalty chosen by leaving training sections out.",
        limits="Predicts a mean: maps are smoother than the tissue; genes the image does not show shrink to the mean.",
        uncertainty="Standard deviation of a new measurement: error on left-out training data, and leverage.",
        targets=KINDS,
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
        self.link = heads.link(self.target, genes)

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Solve for the weights; the penalty is chosen by leaving training data out."""
        self._fit_map(sources, plan.seed)
        labels = Labels.of(sources)
        masks, axes = _left_out(labels), self._axes(sources)
        folds = [_Fold(self, sources, mask, axes) for mask in masks]
        whole = reduce(_Sums.__add__, (fold.sums for fold in folds))
        alpha = self.config.alpha or _best_alpha(whole, folds)
        fit = _Fit(whole, alpha)
        if self.target.link == "softmax":
            self.link.fit(*_left_out_scores(whole, folds, alpha), balanced=self.config.balanced)
        noise = self._noise(whole, folds, alpha, fit)
        if len(folds) == 2 and min(map(np.sum, masks)) >= LEAST_HALVED:
            halves = [half_of(labels.sections, labels.xy_um, mask) for mask in masks]
            parts = [_Fold(self, sources, half, axes) for half in halves]
            noise = noise * self._share_left(folds, parts, alpha)
        self.noise.copy_(noise.sqrt())
        for name, value in fit.in_features(axes).items():
            getattr(self, name).copy_(value)
        self.history |= {"alpha": alpha}

    def _axes(self, sources: Sequence[Source]) -> Tensor | None:
        """Orthonormal axes `(D, N)` that hold all training rows, where these are fewer than the features.

        Along them the fit is the same, and of as many numbers as there are rows.
        """
        n = self.sizes["rows"]
        if self.config.kernel == "rbf" or n >= self.sizes["features"]:
            return None
        rows = torch.cat([batch.features for batch in _batches(self, sources, np.ones(n, dtype=bool))])
        return torch.linalg.qr(rows.double().T).Q

    def _noise(self, whole: _Sums, folds: Sequence[_Fold], alpha: float, final: _Fit) -> Tensor:
        """Variance `(G,)` of a measurement: mean squared error of left-out rows, each over its own 1 + h.

        h is what :meth:`predict_step` would say of the row had it alone been left out of the final fit. That of the fit
        without its fold is larger, by more than errors are where the kernel is rbf.
        """
        error, noise, some, every = 0.0, 0.0, [], max(1, whole.n // MOST)
        for fold in track(folds, "ridge: noise", len(folds)):
            without = _Fit(whole - fold.sums, alpha)
            for mapped, y in fold.rows():
                square = (self.link(without(mapped)) - y).pow(2)
                inside = final.leverage(mapped)
                outside = inside / (1 - inside).clamp_min(1e-6) + self.missed(mapped, final.penalty)
                error = error + square.sum(dim=0)
                own = square / (1 + outside)[:, None]
                noise = noise + own.sum(dim=0)
                some.append(own[::every].float())
        noise = noise / whole.n
        unit = torch.cat(some) / noise.clamp_min(1e-12)
        self.history = {"left_out_mse": float((error / whole.n).mean()), SD_OF_95: sd_of(0.95, unit.numpy())}
        return noise

    def _share_left(self, folds: Sequence[_Fold], parts: Sequence[_Fold], alpha: float) -> float:
        """Share of the error of fits on one of two folds that all rows leave, by that of fits on half of each."""
        error, of_half = 0.0, 0.0
        for fold, other, part in zip(folds, folds[::-1], parts[::-1], strict=True):
            of_other, of_part = _Fit(other.sums, alpha), _Fit(part.sums, alpha)
            for mapped, y in fold.rows():
                error = error + (self.link(of_other(mapped)) - y).pow(2).sum(dim=0)
                of_half = of_half + (self.link(of_part(mapped)) - y).pow(2).sum(dim=0)
        return share_left(error, of_half, self.expression_std)

    def _fit_map(self, sources: Sequence[Source], seed: int) -> None:
        """Set the feature map from training rows."""
        if self.config.kernel == "linear":
            return
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(self.sizes["rows"], generator=generator)[: len(self.landmarks)]
        mask = np.zeros(self.sizes["rows"], dtype=bool)
        mask[chosen.numpy()] = True
        self.landmarks.copy_(torch.cat([batch.features for batch in _batches(self, sources, mask)]))
        square = torch.cdist(self.landmarks, self.landmarks).pow(2)
        apart = square[square > 0]
        self.gamma.copy_(1 / apart.median() if len(apart) else torch.tensor(1.0))
        values, vectors = torch.linalg.eigh(torch.exp(-self.gamma * square).double())
        keep = values > 1e-7 * values[-1]
        self.whiten.zero_()
        self.whiten[:, keep] = (vectors[:, keep] / values[keep].sqrt()).float()

    def map(self, x_BF: Tensor) -> Tensor:
        """Features after the map, `(B, D)`."""
        if self.config.kernel == "linear":
            return x_BF
        return torch.exp(-self.gamma * torch.cdist(x_BF, self.landmarks).pow(2)) @ self.whiten

    def leverage(self, mapped_BD: Tensor) -> Tensor:
        """Variance of the mean in units of the noise's, `(B,)`, within what the map holds."""
        centered = mapped_BD - self.mapped_mean
        return ((centered @ self.posterior) * centered).sum(dim=1).clamp_min(0)

    def missed(self, mapped_BD: Tensor, penalty: Tensor) -> Tensor:
        """The same, `(B,)`, outside of what the map holds; nothing if the kernel is linear."""
        if self.config.kernel == "linear":
            return mapped_BD.new_zeros(len(mapped_BD))
        return (1 - mapped_BD.pow(2).sum(dim=1)).clamp_min(0) / penalty

    def predict_step(self, batch: Batch) -> Prediction:
        """Posterior mean and standard deviation."""
        mapped = self.map(batch.features)
        mean = self.link(self.expression_mean + (mapped - self.mapped_mean) @ self.weight)
        spread = 1 + self.leverage(mapped) + self.missed(mapped, self.penalty)
        return Prediction(mean=mean, std=self.noise * spread.sqrt()[:, None])


def _left_out(labels: Labels) -> list[np.ndarray]:
    """Masks over all measured rows: each individual left out in turn, else each section, else each of five blocks."""
    parts = whole_parts(labels.groups, labels.sections)
    if parts is None:
        parts = spatial_blocks(labels.xy_um, min(5, len(labels.xy_um)))
    return [parts == part for part in range(parts.max() + 1)]


def _batches(model: Model, sources: Sequence[Source], mask: np.ndarray) -> Iterator[Batch]:
    """Rows as the model sees them, some thousand at a time; `mask` is over the measured rows of all sources."""
    measured = [np.flatnonzero(source.measured) for source in sources]
    parts = np.split(mask, np.cumsum([len(rows) for rows in measured])[:-1])
    for source, rows, part in zip(sources, measured, parts, strict=True):
        if part.any():
            yield from model.seen(source, ROWS_AT_ONCE, rows=rows[part])


@dataclass
class _Sums:
    """Sums over rows, of which every fit is made: their number, and first and second moments, in float64.

    They are of all `width` features after the map, or along the fewer axes that hold the rows.
    """

    width: int
    n: int
    x_D: Tensor
    y_G: Tensor
    xx_DD: Tensor
    xy_DG: Tensor
    yy_G: Tensor

    @classmethod
    def over(cls, rows: Iterator[tuple[Tensor, Tensor]], width: int) -> _Sums:
        """The sums over features `(n, D)` and targets `(n, G)`, which come some rows at a time."""
        sums = None
        for x, y in rows:
            own = cls(width, len(x), x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y, y.pow(2).sum(dim=0))
            sums = own if sums is None else sums + own
        return sums

    def _map(self, other: _Sums, change) -> _Sums:
        values = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)[1:]]
        return _Sums(self.width, *(change(*pair) for pair in values))

    def __add__(self, other: _Sums) -> _Sums:
        return self._map(other, lambda one, two: one + two)

    def __sub__(self, other: _Sums) -> _Sums:
        return self._map(other, lambda one, two: one - two)

    def about(self, x_D: Tensor, y_G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Second moments `(D, D)`, `(D, G)` and `(G,)` about a point instead of 0."""
        xx = self.xx_DD - torch.outer(x_D, self.x_D) - torch.outer(self.x_D, x_D) + self.n * torch.outer(x_D, x_D)
        xy = self.xy_DG - torch.outer(x_D, self.y_G) - torch.outer(self.x_D, y_G) + self.n * torch.outer(x_D, y_G)
        return xx, xy, self.yy_G - 2 * y_G * self.y_G + self.n * y_G.pow(2)

    @property
    def means(self) -> tuple[Tensor, Tensor]:
        """Of features and targets."""
        return self.x_D / self.n, self.y_G / self.n


class _Fit:
    """The closed form on the rows of some sums."""

    def __init__(self, sums: _Sums, alpha: float) -> None:
        self.mapped_mean, self.y_mean = sums.means
        xx, xy, _ = sums.about(*sums.means)
        self.penalty = _penalty(xx.trace() / sums.width, alpha)
        xx.diagonal().add_(self.penalty)
        self.posterior = torch.cholesky_inverse(torch.linalg.cholesky(xx))
        self.weight = self.posterior @ xy

    def __call__(self, mapped_BD: Tensor) -> Tensor:
        """The mean of every row, `(B, G)`."""
        return self.y_mean + (mapped_BD - self.mapped_mean) @ self.weight

    leverage = Model.leverage

    def in_features(self, axes_DN: Tensor | None) -> dict[str, Tensor]:
        """What the model keeps, in features after the map."""
        found = {name: getattr(self, name) for name in ("mapped_mean", "penalty", "weight", "posterior")}
        if axes_DN is None:
            return found
        beside = torch.eye(len(axes_DN), dtype=axes_DN.dtype) - axes_DN @ axes_DN.T  # no row varies there
        posterior = axes_DN @ self.posterior @ axes_DN.T + beside / self.penalty
        weight = axes_DN @ self.weight
        return found | {"mapped_mean": axes_DN @ self.mapped_mean, "weight": weight, "posterior": posterior}


class _Fold:
    """Rows that are left out together."""

    def __init__(self, model: Model, sources: Sequence[Source], mask: np.ndarray, axes_DN: Tensor | None) -> None:
        self.model, self.sources, self.mask, self.axes_DN, self._kept = model, sources, mask, axes_DN, None

    def rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Mapped features, along the axes, and targets in float64, some rows at a time."""
        for batch in _batches(self.model, self.sources, self.mask):
            mapped = self.model.map(batch.features).double()
            yield mapped if self.axes_DN is None else mapped @ self.axes_DN, batch.expression.double()

    @property
    def sums(self) -> _Sums:
        """Kept if they are smaller than the rows, else added up again."""
        if self._kept is not None:
            return self._kept
        sums = _Sums.over(self.rows(), len(self.model.mapped_mean))
        if 8 * sums.xx_DD.numel() < 4 * sums.n * self.model.sizes["features"]:
            self._kept = sums
        return sums


def _left_out_scores(whole: _Sums, folds: Sequence[_Fold], alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """What fits without a fold say of its rows, and what was measured there, both `(N, K)`, and the fold `(N,)`."""
    found = []
    for k, fold in enumerate(folds):
        without = _Fit(whole - fold.sums, alpha)
        found += [(without(mapped), y, torch.full((len(y),), k)) for mapped, y in fold.rows()]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _penalty(size: Tensor, alpha: float) -> Tensor:
    """The penalty in units of the mean eigenvalue; positive even where no feature varies."""
    return alpha * size.clamp_min(1e-6)


def _best_alpha(whole: _Sums, folds: Sequence[_Fold]) -> float:
    """The penalty of least squared error on rows that were left out of the fit."""
    error = torch.zeros(len(ALPHAS), dtype=torch.float64)
    for fold in track(folds, "ridge: penalty", len(folds)):
        out = fold.sums
        error += _left_out_error(whole - out, out, fold, ALPHAS).sum(dim=1)
    return ALPHAS[int(error.argmin())]


def _left_out_error(inside: _Sums, out: _Sums, fold: _Fold, alphas: Sequence[float]) -> Tensor:
    """Squared error `(alphas, G)` on the rows of a fold, summed, of fits on those of `inside`.

    Of the fold its sums are enough; where it has fewer rows than features, the rows are the shorter way.
    """
    mean, y_mean = inside.means
    xx, xy, _ = inside.about(mean, y_mean)
    values, vectors = torch.linalg.eigh(xx)
    values, target = values.clamp_min(0), vectors.T @ xy
    size = values.sum() / inside.width
    weights = [target / (values + _penalty(size, alpha))[:, None] for alpha in alphas]
    if out.n < len(values):
        x, y = (torch.cat(parts) for parts in zip(*fold.rows(), strict=True))
        x, y = (x - mean) @ vectors, y - y_mean
        return torch.stack([(x @ weight - y).pow(2).sum(dim=0) for weight in weights])
    out_xx, out_xy, out_yy = out.about(mean, y_mean)
    out_xx, out_xy = vectors.T @ out_xx @ vectors, vectors.T @ out_xy
    return torch.stack([out_yy + (weight * (out_xx @ weight - 2 * out_xy)).sum(dim=0) for weight in weights])
