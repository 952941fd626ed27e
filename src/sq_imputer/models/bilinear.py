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
from dataclasses import dataclass

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
    """What the model is made of, beside the features that it reads (:class:`sq_imputer.contract.Views`).

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
        """For tests and the demo: one context, fewer pixels."""
        return cls(size_px=64, context_um=(300.0,))


class Model(Predictor):
    """Features of spots times vectors of genes."""

    Config = Config
    card = ModelCard(
        name="bilinear",
        summary="Ridge on frozen features of a spot times what is known of a gene.",
        paper="No publication of its own.",
        established="Ridge regression on a Kronecker product, by two eigendecompositions.",
        ours="Standardized genes, a constant beside the vectors, the penalty chosen on left-out genes and rows.",
        limits="Genes share one matrix: a measured gene is predicted no better than its vector tells it from others.",
        uncertainty="Standard deviation: leverage of the row, sized by the error on left-out training data.",
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
        self.history = {}
        penalty = self.config.penalty
        if int(self.gene_known.sum()) > 1:
            penalty = self._choose(folds, vectors, plan.seed)
        penalty = penalty or 1.0
        xx, xz = sum(fold[0] for fold in folds), sum(fold[1] for fold in folds)
        self.weight.copy_(solve(xx, xz @ vectors, vectors.T @ vectors, [penalty])[0])
        ridge = xx + torch.eye(len(xx), dtype=xx.dtype) * (penalty * xx.trace() / len(xx)).clamp_min(1e-6)
        self.posterior.copy_(torch.cholesky_inverse(torch.linalg.cholesky(ridge)))
        self.history |= {"penalty": penalty}

    def _choose(self, folds: Sequence[tuple[Tensor, ...]], vectors: Tensor, seed: int) -> float:
        """The penalty; what vectors, and vectors dealt out anew, explain of left-out genes goes into the history."""
        known = np.flatnonzero(self.gene_known.numpy())
        order = np.random.default_rng(seed).permutation(known)
        parts = np.array_split(order, min(GENE_FOLDS, len(order)))
        penalties = PENALTIES if self.config.penalty is None else (self.config.penalty,)
        dealt = vectors.clone()
        dealt[known] = vectors[np.random.default_rng(seed + 1).permutation(known)]
        explained, control = (left_out(folds, one, parts, penalties) for one in (vectors, dealt))
        best = int(explained.argmax())
        self.history = {
            "left_out_genes_r2": float(explained[best]),
            "left_out_genes_r2_permuted": float(control.max()),
        }
        return penalties[best]

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
    return [P @ weight @ Q.T for weight in _rotated(a, b, P.T @ xzv_FD @ Q, penalties)]


def _rotated(a_F: Tensor, b_D: Tensor, target_FD: Tensor, penalties: Sequence[float]) -> list[Tensor]:
    """The matrix for each penalty, in the axes of both sides."""
    products = torch.outer(a_F.clamp_min(0), b_D.clamp_min(0))
    size = (products.sum() / len(a_F)).clamp_min(1e-9)
    return [target_FD / (products + penalty * size) for penalty in penalties]


def left_out(
    folds: Sequence[tuple[Tensor, ...]], vectors_GD: Tensor, parts: Sequence[np.ndarray], penalties: Sequence[float]
) -> Tensor:
    """Share of variance, one number a penalty, explained of genes and rows that no fit had seen.

    Parameters
    ----------
    folds
        Sums of `x x`, `x z` and `z z` of every part of the rows.
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
    xx, xz = sum(fold[0] for fold in folds), sum(fold[1] for fold in folds)
    error, total = torch.zeros(len(penalties), dtype=torch.float64), sum(float(f[2][every].sum()) for f in folds)
    for fold_xx, fold_xz, fold_zz in folds:
        alone = len(folds) == 1  # of a single part of the rows, genes alone are left out
        a, P = torch.linalg.eigh(xx if alone else xx - fold_xx)
        rest_xz, out_xx, out_xz = P.T @ (xz if alone else xz - fold_xz), P.T @ fold_xx @ P, P.T @ fold_xz
        for out in parts:
            kept = np.setdiff1d(every, out)
            b, Q = torch.linalg.eigh(vectors[kept].T @ vectors[kept])
            target, own = rest_xz[:, kept] @ vectors[kept] @ Q, Q.T @ vectors[out].T
            for k, weight in enumerate(_rotated(a, b, target, penalties)):
                said = weight @ own  # of the features, what predicts each gene that is left out
                error[k] += fold_zz[out].sum() + (said * (out_xx @ said - 2 * out_xz[:, out])).sum()
    return 1 - error / max(total, 1e-12)
