r"""Pairs of image and expression in one space: heads, encoders of expression, the two losses, and low-rank tuning.

With unit vectors :math:`v_i` of images and :math:`g_j` of expression and a scale :math:`\tau = \exp(s)`,

.. math::

    L_\mathrm{CLIP} = \tfrac12\big[\mathrm{CE}(\tau v g^T) + \mathrm{CE}(\tau g v^T)\big], \qquad
    L_\mathrm{SigLIP} = -\tfrac1N \sum_{ij} \log\sigma\big(y_{ij}(\tau\, v_i \cdot g_j + b)\big)

(Radford et al. 2021, arXiv:2103.00020; Zhai et al. 2023, arXiv:2303.15343), where the pair of row i is the class to be
found, or :math:`y_{ii} = 1` and -1 elsewhere. :math:`s` is held within [0, ln 100].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sq_imputer.nn.contrastive import symmetric_infonce
from sq_imputer.nn.drawn import Dropout

START = math.log(1 / 0.07)
MOST = math.log(100)
BIAS = -10.0  # of SigLIP: nearly all pairs of a batch are none

# N pairs, F inputs, D width of the common space


def clip_loss(image_ND: Tensor, genes_ND: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric cross-entropy of the pairs of a batch, scaled; ln N where nothing tells pairs apart."""
    return symmetric_infonce(image_ND * scale, genes_ND)


def siglip_loss(image_ND: Tensor, genes_ND: Tensor, scale: Tensor | float, bias: Tensor | float = BIAS) -> Tensor:
    """Sum over a row of the log-losses of "is a pair", each by itself, averaged over rows."""
    logits = scale * image_ND @ genes_ND.T + bias
    sign = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


class PairLoss(nn.Module):
    """One of the two losses with its learned scale (and bias).

    Parameters
    ----------
    kind
        `"clip"` or `"siglip"`.
    normalize
        Bring vectors to length 1 first. The published code does not.
    """

    def __init__(self, kind: str = "clip", normalize: bool = True) -> None:
        super().__init__()
        self.kind, self.normalize = kind, normalize
        self.log_scale = nn.Parameter(torch.tensor(START))
        self.bias = nn.Parameter(torch.tensor(BIAS)) if kind == "siglip" else None

    @property
    def scale(self) -> Tensor:
        """What logits are multiplied by, from 1 to 100."""
        return self.log_scale.clamp(0, MOST).exp()

    def forward(self, image_ND: Tensor, genes_ND: Tensor) -> Tensor:
        """The loss of a batch of pairs."""
        if self.normalize:
            image_ND, genes_ND = F.normalize(image_ND, dim=1), F.normalize(genes_ND, dim=1)
        if self.kind == "clip":
            return clip_loss(image_ND, genes_ND, self.scale)
        return siglip_loss(image_ND, genes_ND, self.scale, self.bias)


def image_head(kind: str, inputs: int, width: int, dropout: float = 0.2) -> nn.Module:
    """`"linear"`, or `"mlp"`: two layers with GELU and a normalization between them, as published."""
    if kind == "linear":
        return nn.Linear(inputs, width)
    hidden = 2 * width
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.GELU(),
        Dropout(dropout),
        nn.LayerNorm(hidden),
        nn.Linear(hidden, width),
        Dropout(dropout),
    )


class GeneNetwork(nn.Module):
    """Expression `(N, G)` to `(N, width)`: a linear layer and three of normalization, ReLU, dropout, linear."""

    def __init__(self, genes: int, width: int = 128, layers: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Linear(genes, width)]
        for _ in range(layers):
            parts += [nn.BatchNorm1d(width), nn.ReLU(), Dropout(dropout), nn.Linear(width, width)]
        self.layers = nn.Sequential(*parts, nn.BatchNorm1d(width), nn.ReLU())

    def forward(self, x_NG: Tensor) -> Tensor:
        """`(N, G)` to `(N, width)`."""
        return self.layers(x_NG)


class LowRank(nn.Module):
    r"""A frozen linear layer with a trained change of low rank (Hu et al. 2021, arXiv:2106.09685).

    :math:`y = Wx + b + \tfrac{\alpha}{r} B A\,\mathrm{drop}(x)`; `B` starts at 0, so that nothing is changed at first.
    """

    def __init__(self, frozen: nn.Linear, rank: int = 8, alpha: float = 16.0, dropout: float = 0.1) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, frozen.in_features))
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        self.drop, self.factor = Dropout(dropout), alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """As the layer itself, and the change."""
        return self.frozen(x) + self.factor * (self.drop(x) @ self.down.T @ self.up.T)


def with_low_rank(trunk: nn.Module, names: tuple[str, ...] = ("qkv", "proj"), **how) -> list[LowRank]:
    """Give the attention's linear layers of these names, in place, a trained change of low rank; the rest is frozen.

    Returns
    -------
    The changed layers, none if the trunk has no attention of such names.
    """
    trunk.requires_grad_(False)
    changed = []
    for place, module in list(trunk.named_modules()):
        if place.rsplit(".", 1)[-1] != "attn":
            continue
        for name in names:
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Linear):
                changed.append(LowRank(layer, **how))
                setattr(module, name, changed[-1])
    return changed
