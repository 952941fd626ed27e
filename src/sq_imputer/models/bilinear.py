r"""Bilinear: frozen features of a spot times what is known of a gene, in closed form.

With features :math:`x` of a spot and the vector :math:`v` of a gene, to which a constant is appended, and expression
:math:`Z` standardized per gene,

.. math::

    \hat z = x^\top W v, \qquad W = \arg\min_W \lVert Z - X W V^\top \rVert^2 + \lambda \lVert W \rVert^2, \qquad
    W = P\,\left[\frac{(P^\top X^\top Z V Q)_{ij}}{a_i b_j + \lambda}\right] Q^\top

where :math:`X^\top X = P\,\mathrm{diag}(a)\,P^\top` and :math:`V^\top V = Q\,\mathrm{diag}(b)\,Q^\top`: a ridge on the
Kronecker product of both sides, which is never formed. Genes share one matrix, so that a gene is predicted as its
vector says, not as its own column was measured. A gene of which nothing is known is predicted by its mean.

:math:`\lambda` is the one of least squared error on *genes and rows that were both left out*: rows of whole
individuals, sections or blocks, and every fifth gene of a drawn order. Each such fit is exact: the sums over what is
left out are taken from the sums over all. Mean and spread of a gene are those of all training rows; of a gene that was
left out nothing else is used. The same is done with the vectors dealt out to the genes anew, as a control:
`model.history` holds the share of variance explained by both, which is what the vectors are worth for genes that nobody
measured.

There is no publication of its own: bilinear regression on both sides of a matrix is classical, everything else is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Batch, Needs, Prediction, Source, Views
from sq_imputer.errors import BadInput
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.parts import Labels
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.statistics import safe
from sq_imputer.predictor.train import Plan
from sq_imputer.ranges import within
from sq_imputer.scores.splits import spatial_blocks, whole_parts

# B rows, N training rows, F features, G genes, D numbers known of a gene and the constant

ROWS_AT_ONCE = 4096
PENALTIES = tuple(float(penalty) for penalty in np.logspace(-6, 2, 17))
GENE_FOLDS = 5


@dataclass(frozen=True)
class Config(Views):
    """What the model is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    penalty
        Relative to the mean eigenvalue of features times the sum of those of vectors; chosen in training if None.
    calibration
        Parts of the training data left out in turn to measure the noise.
    """

    penalty: float | None = within(None, above=0, whole=False)
    calibration: int = within(5, 0)

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: the crop alone, fewer pixels and parts."""
        return cls(size_px=64, context_um=(), calibration=2)


class Model(Predictor):
    """Features of spots times vectors of genes."""

    Config = Config
    card = ModelCard(
        name="bilinear",
        summary="Ridge on frozen features of a spot times what is known of a gene.",
        paper="No publication of its own.",
        established="Ridge regression on a Kronecker product, by two eigendecompositions.",
        ours="Standardized genes, a constant beside the vectors, the penalty chosen on left-out genes and rows.",
        limits=(
            "Genes share one matrix: a measured gene is predicted no better than its vector tells it from others. It "
            "is a floor for genes that nobody measured, not a model for a panel; on a tumor it told such genes no "
            "better than the mean of those most alike."
        ),
        uncertainty="Standard deviation: leverage of the row, sized by the error on left-out training data.",
        zero_shot=True,
    )

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts, and the vectors of genes."""
        views = self.config.needs
        return Needs(**{**vars(views), "knowledge": True})

    def build(self) -> None:
        """Buffers for the matrix of both sides and the posterior of rows."""
        width = self.sizes["features"]
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("weight", torch.zeros(width, self.sizes["knowledge"] + 1))
        self.register_buffer("posterior", torch.zeros(width, width))

    @property
    def vectors(self) -> Tensor:
        """What is known of each gene, `(G, D)`: zeros of a gene of which nothing is known."""
        known = self.gene_known[:, None].to(self.gene_vectors.dtype)
        return torch.cat([self.gene_vectors * known, known], dim=1)

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Solve for the matrix; the penalty is chosen on genes and rows that are both left out."""
        if not self.gene_known.any():
            told = "Use names of genes as the knowledge has them, or pass other knowledge=."
            raise BadInput(f"nothing is known of any of the {len(self.genes)} genes. {told}")
        folds = self._folds(sources)
        vectors = self.vectors.double()
        chosen = self.config.penalty
        refitted = chosen is not None and plan.calibration == 0  # there is nothing to choose, and nothing to tell
        self.history = {}
        if not refitted and int(self.gene_known.sum()) > 1:
            self.history, chosen = self._choose(folds, vectors, plan)
        penalty = chosen or 1.0
        xx, xz = sum(fold[0] for fold in folds), sum(fold[1] for fold in folds)
        axes = torch.linalg.svd(vectors, full_matrices=False).Vh  # no more of them than genes
        own = vectors @ axes.T
        self.weight.copy_(solve(xx, xz @ own, own.T @ own, [penalty])[0] @ axes)
        ridge = xx + torch.eye(len(xx), dtype=xx.dtype) * (penalty * xx.trace() / len(xx)).clamp_min(1e-6)
        self.posterior.copy_(torch.cholesky_inverse(torch.linalg.cholesky(ridge)))
        self.history |= {"penalty": penalty}

    def for_parts(self) -> Model:
        """An unfitted one that takes the penalty of this fit."""
        return type(self)(replace(self.config, penalty=self.history["penalty"]), self.knowledge)

    def _choose(self, folds: Sequence[tuple[Tensor, ...]], vectors: Tensor, plan: Plan) -> tuple[dict, float]:
        """What the vectors explain of left-out genes, and what they do once dealt out anew; and the best penalty."""
        known = np.flatnonzero(self.gene_known.numpy())
        order = np.random.default_rng(plan.seed).permutation(known)
        parts = np.array_split(order, min(GENE_FOLDS, len(order)))
        penalties = PENALTIES if self.config.penalty is None else (self.config.penalty,)
        splits = [Split.of(folds, k) for k in range(len(folds))]
        explained = left_out(splits, vectors, parts, penalties)
        best = int(explained.argmax())
        told = {"left_out_genes_r2": float(explained[best])}
        if plan.calibration != 0:  # a fit that is not kept needs no control
            dealt = vectors.clone()
            dealt[known] = vectors[np.random.default_rng(plan.seed + 1).permutation(known)]
            told["left_out_genes_r2_permuted"] = float(left_out(splits, dealt, parts, penalties).max())
        return told, penalties[best]

    def _folds(self, sources: Sequence[Source]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of every part of the rows: sums of `x x`, `x z` and `z z` about the means of all, in float64."""
        labels = Labels.of(sources)
        parts = whole_parts(labels.groups, labels.sections)
        if parts is None:
            parts = spatial_blocks(labels.xy_um, min(5, len(labels.xy_um)))
        rows = np.split(parts, np.cumsum([int(source.measured.sum()) for source in sources])[:-1])
        center = sum(batch.features.double().sum(dim=0) for _, batch in self._seen(sources, rows))
        self.center.copy_(center / self.sizes["rows"])
        scale = torch.from_numpy(safe(self.expression_std.cpu().numpy()))
        sums: dict[int, tuple[Tensor, ...]] = {}
        for part, batch in self._seen(sources, rows):
            x = (batch.features - self.center).double()
            z = ((batch.expression - self.expression_mean) / scale).double()
            own = (x.T @ x, x.T @ z, z.pow(2).sum(dim=0))
            before = sums.get(part)
            sums[part] = own if before is None else tuple(a + b for a, b in zip(before, own, strict=True))
        return [sums[part] for part in sorted(sums)]

    def _seen(self, sources: Sequence[Source], parts: Sequence[np.ndarray]) -> Iterator[tuple[int, Batch]]:
        """Measured rows as the model sees them, some thousand at a time, with the part that they are of."""
        for source, own in zip(sources, parts, strict=True):
            measured = np.flatnonzero(source.measured)
            for part in np.unique(own):
                for batch in self.seen(source, ROWS_AT_ONCE, rows=measured[own == part]):
                    yield int(part), batch

    def predict_step(self, batch: Batch) -> Prediction:
        """Features times matrix times vectors, in the unit; the leverage of the row is the shape of the error."""
        x = batch.features - self.center
        mean = self.expression_mean + self.expression_std * (x @ self.weight @ self.vectors.T)
        leverage = ((x @ self.posterior) * x).sum(dim=1).clamp_min(0)
        return Prediction(mean=mean, std=self.expression_std * (1 + leverage).sqrt()[:, None])


def solve(xx_FF: Tensor, xzv_FD: Tensor, vv_DD: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """The matrix `(F, D)` for each penalty, by one eigendecomposition of either side.

    Parameters
    ----------
    xx_FF, vv_DD
        Second moments of features and of vectors.
    xzv_FD
        Features, times expression, times vectors.
    penalties
        In units of the mean eigenvalue of features times the sum of those of vectors.
    """
    a, P = torch.linalg.eigh(xx_FF)
    b, Q = torch.linalg.eigh(vv_DD)
    size = a.clamp_min(0).mean().clamp_min(1e-12)
    return [P @ weight @ Q.T for weight in _rotated(a / size, b, P.T @ xzv_FD @ Q / size, penalties)]


def _rotated(a_F: Tensor, b_D: Tensor, target_FD: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """The matrix for each penalty, in the axes of both sides; `a` and the target in units of the mean of `a`."""
    products = torch.outer(a_F.clamp_min(0), b_D.clamp_min(0))
    size = b_D.clamp_min(0).sum().clamp_min(1e-9)
    return [target_FD / (products + penalty * size) for penalty in penalties]


class Split(NamedTuple):
    """A part of the rows that is left out, along the axes `(F',)` of the features of all others.

    `a` is their variance and `rest` `(F', G)` features times expression of the others, both in units of the mean of
    `a`; `xx`, `xz` and `zz` second moments of the part.
    """

    a: Tensor
    rest: Tensor
    xx: Tensor
    xz: Tensor
    zz: Tensor

    @classmethod
    def of(cls, folds: Sequence[tuple[Tensor, ...]], k: int) -> Split:
        """Part k of sums of `x x`, `x z` and `z z`; of a single part genes alone are left out."""
        others = [fold for other, fold in enumerate(folds) if other != k] or folds
        a, P = torch.linalg.eigh(sum(fold[0] for fold in others))
        size, seen = a.clamp_min(0).mean().clamp_min(1e-12), a > 1e-10 * a[-1]  # no more axes than rows vary along
        P, xz_others = P[:, seen], sum(fold[1] for fold in others)
        xx, xz, zz = folds[k]
        return cls(a[seen] / size, P.T @ xz_others / size, P.T @ xx @ P, P.T @ xz, zz)


def left_out(
    splits: Sequence[Split], vectors_GD: Tensor, parts: Sequence[np.ndarray], penalties: Sequence[float]
) -> Tensor:
    """Share of variance, one number a penalty, explained of genes and rows that no fit had seen.

    Parameters
    ----------
    splits
        Every part of the rows, left out.
    vectors_GD
        What is known of the genes.
    parts
        Genes that are left out together.
    penalties
        As :func:`solve` takes them.
    """
    every = np.concatenate(parts)
    U, lengths, _ = torch.linalg.svd(vectors_GD, full_matrices=False)
    vectors = U * lengths  # the same genes to one another, along no more axes than there are genes
    total = sum(float(split.zz[every].sum()) for split in splits)
    error = torch.zeros(len(penalties), dtype=torch.float64)
    for out in parts:
        kept = np.setdiff1d(every, out)
        b, Q = torch.linalg.eigh(vectors[kept].T @ vectors[kept])
        own = Q.T @ vectors[out].T
        for split in splits:
            target = split.rest[:, kept] @ vectors[kept] @ Q
            said = torch.stack([weight @ own for weight in _rotated(split.a, b, target, penalties)], dim=1)
            seen = (split.xx @ said.flatten(1)).view_as(said)  # of the features, what predicts each gene left out
            error += split.zz[out].sum() + (said * (seen - 2 * split.xz[:, None, out])).sum(dim=(0, 2))
    return 1 - error / max(total, 1e-12)
