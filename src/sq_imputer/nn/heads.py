r"""What makes a prediction of scores, by kind of target: nothing for numbers, a softmax for what sums to 1.

Classes and proportions are both shares :math:`y_k` of sum 1 (of a row of one class, one of them is 1), and both are
predicted by

.. math::

    \hat y = \mathrm{softmax}(W^\top z + b), \qquad \mathrm{loss} = -\sum_i w_i \sum_k y_{ik} \log \hat y_{ik}

of scores :math:`z`. The cross-entropy is least where :math:`\hat y` is the mean of :math:`y`, whatever its
distribution about it: probabilities are calibrated, and proportions may be 0. Rows weigh the same, or, *balanced*, by
one over how frequent what they are of is: probabilities are then those of classes that are equally frequent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sq_imputer.contract import Target
from sq_imputer.target import CLASSES

# B rows, M members, K classes or parts

LEAST = 1e-4  # share of a class that no training row is of
STEPS = 200  # at most, of a fit of a softmax to scores
SHRINKS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)  # penalties on the squared map of standard scores, in rows
ENOUGH = 4096  # rows by which one of them is chosen


class Softmax(nn.Module):
    """Shares of scores, by a map that is fitted to scores of left-out rows."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n))
        self.register_buffer("scale", torch.ones(n))
        self.register_buffer("weight", torch.zeros(n, n))
        self.register_buffer("bias", torch.zeros(n))

    def forward(self, score_BK: Tensor) -> Tensor:
        """Shares `(B, K)` of sum 1."""
        center, scale, weight, bias = (part.to(score_BK) for part in (self.center, self.scale, self.weight, self.bias))
        return (((score_BK - center) / scale) @ weight + bias).softmax(dim=-1)

    def fit(self, score_BK: Tensor, share_BK: Tensor, fold_B: Tensor, *, balanced: bool) -> None:
        """Set the map by the scores of rows, what was measured there, and the fold that each was left out with."""
        score, share = score_BK.double(), share_BK.double()
        center, scale = score.mean(dim=0), score.std(dim=0, correction=0).clamp_min(1e-6)
        score = (score - center) / scale
        shrink = best_shrink(score, share, fold_B, balanced=balanced)
        weight, bias = fit_softmax(score, share, shrink, balanced=balanced)
        for name, value in {"center": center, "scale": scale, "weight": weight, "bias": bias}.items():
            getattr(self, name).copy_(value)


def link(target: Target, n: int) -> nn.Module:
    """What makes a prediction of scores that were fitted by least squares."""
    return Softmax(n) if target.link == "softmax" else nn.Identity()


def best_shrink(score_BF: Tensor, share_BK: Tensor, fold_B: Tensor, *, balanced: bool = False) -> float:
    """The penalty under which what was measured in each fold is likeliest, by maps fitted on the others.

    Of few rows or scores that say nothing it is the largest, under which shares are next to those of all rows.
    """
    every = max(1, len(score_BF) // ENOUGH)
    score, share, fold = score_BF[::every], share_BK[::every], fold_B[::every]
    losses = torch.zeros(len(SHRINKS), dtype=torch.float64)
    for one in fold.unique() if len(fold.unique()) > 1 else ():
        out = fold == one
        row = weights(share[out], share[~out].mean(dim=0)) if balanced else None
        start = None
        for k, shrink in enumerate(SHRINKS):
            start = fit_softmax(score[~out], share[~out], shrink, balanced=balanced, start=start)
            losses[k] += out.sum() * cross_entropy(score[out] @ start[0] + start[1], share[out], row)
    return SHRINKS[int(losses.argmin())]


def fit_softmax(
    score_BF: Tensor,
    share_BK: Tensor,
    shrink: float,
    *,
    balanced: bool = False,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Map `(F, K)` and bias `(K,)` of least cross-entropy, shrunk; convex, so always the same, wherever it starts."""
    n, k = len(score_BF), share_BK.shape[1]
    row_B = weights(share_BK, share_BK.mean(dim=0)) if balanced else share_BK.new_ones(n)
    usual = log_share((row_B[:, None] * share_BK).mean(dim=0))
    first = start or (torch.zeros(score_BF.shape[1], k, dtype=score_BF.dtype), usual)
    weight, bias = (part.clone().requires_grad_(True) for part in first)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(score_BF @ weight + bias, share_BK, row_B)
        loss = loss + shrink / (2 * n) * (weight.pow(2).sum() + (bias - usual).pow(2).sum())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def cross_entropy(logit_BK: Tensor, share_BK: Tensor, row_B: Tensor | None = None) -> Tensor:
    """Mean over rows (and members, in front) of the cross-entropy, rows weighted if said."""
    loss = -(share_BK * logit_BK.log_softmax(dim=-1)).sum(dim=-1)
    return (loss if row_B is None else loss * row_B).mean()


def weights(share_BK: Tensor, mean_K: Tensor) -> Tensor:
    """Weights `(B,)` of rows under which all classes weigh the same; their mean over the training rows is 1."""
    there = mean_K > 0
    return (share_BK[:, there] / mean_K[there]).sum(dim=1) / there.sum()


def log_share(mean_K: Tensor) -> Tensor:
    """Logarithm of shares, none of which is 0."""
    return mean_K.clamp_min(LEAST).log()


def tempered(share_BK: Tensor, temperature: Tensor) -> Tensor:
    """Shares whose logarithms were divided by a temperature: nearer to each other where it is above 1."""
    return (share_BK.clamp_min(1e-12).log() / temperature).softmax(dim=-1)


def temperature(share_BK: Tensor, truth_BK: Tensor) -> float:
    """The temperature, not below 1, under which what was measured at left-out rows is likeliest.

    Left-out rows may lie among training rows, which flatters: shares are never made more certain than they are.
    """
    choices = torch.logspace(0, 0.7, 36).tolist()
    log = share_BK.clamp_min(1e-12).log()
    losses = torch.stack([cross_entropy(log / choice, truth_BK) for choice in choices])
    return choices[int(losses.argmin())]


def spread(target: Target, mean_BK: Tensor, std_BK: Tensor | None) -> Tensor | None:
    """Standard deviation of what is measured: of a class, which is or is not, by its probability alone."""
    return (mean_BK * (1 - mean_BK)).clamp_min(1e-12).sqrt() if target.kind == CLASSES else std_BK
