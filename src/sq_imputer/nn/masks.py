r"""Masks over the bases of a window: which of them may speak, each by a Beta distribution.

What DNA says of a base and what is measured at it are two Beta factors, which are combined:

.. math::

    \alpha_1 = \mathrm{softplus}(g_1) + b, \quad \beta_1 = \mathrm{softplus}(g_0) + b, \qquad
    \alpha_2 = c \sum_k w_k (s_k + b), \quad \beta_2 = c \sum_k w_k (b_k + b)

`"sum"`: :math:`m \sim \mathrm{Beta}(\alpha_1 + \alpha_2, \beta_1 + \beta_2)`, as released. `"product"`: the product of
the two densities, which is :math:`\mathrm{Beta}(\alpha_1 + \alpha_2 - 1, \beta_1 + \beta_2 - 1)`, as in the paper, held
above zero. An information bottleneck draws every base to a prior of mean r:
:math:`\mathrm{KL}\big(\mathrm{Beta}(\alpha, \beta) \,\Vert\, \mathrm{Beta}(\rho, \rho (1 - r) / r)\big)`.

**Established** (Su et al. 2025, and the code released with it): the factors, both combinations, the prior, and hard
masks that pass on the gradient of soft ones. **Ours**: the divergence is computed in 64 bits, since it is the small
difference of large numbers, and samples are drawn by generators of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# B windows, L bases, T tracks

COMBINATIONS = ("sum", "product")
LEAST = 1e-8  # of a parameter
LEAST_PRODUCT = 1e-3  # of a parameter less one: below, samples are 0 or 1 and tell nothing


class Betas(NamedTuple):
    """Parameters `(B, L)` of a Beta distribution for every base."""

    alpha: Tensor
    beta: Tensor

    @property
    def mean(self) -> Tensor:
        """Expected mask, `(B, L)`."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the mask, `(B, L)`."""
        total = self.alpha + self.beta
        return (self.alpha * self.beta / (total + 1)).sqrt() / total


def of_dna(logits_BL2: Tensor, least: float) -> Betas:
    """The factor of the sequence, from two numbers for every base: for dropping it, and for keeping it.

    Parameters
    ----------
    logits_BL2
        Any numbers.
    least
        Least parameter, b; from 1 on no density has a pole.
    """
    drop, keep = (F.softplus(logits_BL2.float()) + least + LEAST).unbind(-1)
    return Betas(keep, drop)


def of_tracks(tracks_BLT: Tensor, weights_T: Tensor, against_T: Tensor, least: float, scale: float) -> Betas:
    """The factor of what is measured at every base.

    Parameters
    ----------
    tracks_BLT
        Signals, not negative.
    weights_T
        Shares of the tracks, which sum to 1.
    against_T
        Signal at which a track speaks as much for a base as against it.
    least, scale
        b, and how much tracks weigh beside the sequence, c.
    """
    tracks = tracks_BLT.float()
    keep = scale * ((tracks.clamp_min(0) + least) * weights_T).sum(dim=-1)
    drop = scale * ((against_T + least) * weights_T).sum()
    return Betas(keep, drop.expand_as(keep))


def combined(factors: Sequence[Betas], how: str) -> Betas:
    """The distribution of the mask, from its factors, by `"sum"` or `"product"`."""
    less = len(factors) - 1 if how == "product" else 0
    alpha, beta = (sum(part) - less for part in zip(*factors, strict=True))
    if less:
        return Betas(alpha.clamp_min(LEAST_PRODUCT), beta.clamp_min(LEAST_PRODUCT))
    return Betas(alpha, beta)


def shares(weights: Sequence[float], tracks: int) -> Tensor:
    """Shares `(T,)` of the tracks: the softmax of the logarithms of their weights; equal if there are none."""
    return torch.tensor(list(weights) or [1.0] * tracks).log().softmax(dim=0)


def prior(mean: float, strength: float) -> tuple[float, float]:
    """Parameters of a Beta distribution with a mean, the first of which is `strength`."""
    return strength, strength * (1 - mean) / mean


def divergence(betas: Betas, against: tuple[float, float]) -> Tensor:
    r"""KL divergence `(B, L)` of every base from a prior, in nats.

    :math:`\ln B(a_3, b_3) - \ln B(a, b) + (a - a_3) \psi(a) + (b - b_3) \psi(b) + (a_3 - a + b_3 - b) \psi(a + b)`
    """
    wide = torch.float32 if betas.alpha.device.type == "mps" else torch.float64  # which has no 64 bits
    a, b = (part.to(wide) for part in betas)
    a3, b3 = (torch.tensor(part, dtype=wide, device=a.device) for part in against)
    found = _log_beta(a3, b3) - _log_beta(a, b)
    found = found + (a - a3) * a.digamma() + (b - b3) * b.digamma() + (a3 - a + b3 - b) * (a + b).digamma()
    return found.to(betas.alpha.dtype)


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def sample(betas: Betas, generator: torch.Generator | None = None) -> Tensor:
    """Masks `(B, L)` by a generator, with a gradient to both parameters (implicit reparameterization)."""
    return _Drawn.apply(torch.stack(betas, dim=-1), generator)[..., 0]


class _Drawn(torch.autograd.Function):
    """Samples of Dirichlet distributions, as torch.distributions draws them, which takes no generator."""

    @staticmethod
    def forward(ctx, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = torch._sample_dirichlet(parameters, generator=generator)
        ctx.save_for_backward(drawn, parameters)
        return drawn

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        drawn, parameters = ctx.saved_tensors
        total = parameters.sum(dim=-1, keepdim=True).expand_as(parameters)
        by_parameter = torch._dirichlet_grad(drawn, parameters, total)
        return by_parameter * (grad - (drawn * grad).sum(dim=-1, keepdim=True)), None


def center(length: int, width: int) -> slice:
    """The middle positions of a window, as many as `width`."""
    start = (length - min(width, length)) // 2
    return slice(start, start + min(width, length))


def forced(mask_BL: Tensor, allowed_BL: Tensor, always: slice) -> Tensor:
    """The mask with 1 in the middle and, whatever else, 0 where a base is unknown or forbidden."""
    whole = mask_BL.clone()
    whole[:, always] = 1
    return whole * allowed_BL


def hardened(mask_BL: Tensor, threshold: float = 0.5) -> Tensor:
    """1 where a mask is at its threshold or above, else 0, with the gradient of the mask itself.

    What a model does with it must be multiplied by it: a gradient comes from nowhere else.
    """
    hard = (mask_BL >= threshold).to(mask_BL)
    return _Straight.apply(mask_BL, hard)


class _Straight(torch.autograd.Function):
    """The second, exactly, with the gradient of the first."""

    @staticmethod
    def forward(ctx, soft: Tensor, hard: Tensor) -> Tensor:
        return hard

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def top(mask_BL: Tensor, allowed_BL: Tensor, share: float) -> Tensor:
    """1 for the share of all bases of a window with the highest masks, of those that are allowed; else 0."""
    count = max(round(share * mask_BL.shape[1]), 1)
    best = mask_BL.masked_fill(~allowed_BL, -1).topk(count, dim=1).indices
    return torch.zeros_like(mask_BL).scatter_(1, best, 1) * allowed_BL
