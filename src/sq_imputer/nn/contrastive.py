"""Two views of a spot in one space: heads, the contrastive loss, and spots that attend to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sq_imputer.nn.attention import SelfAttention
from sq_imputer.nn.drawn import Dropout, generator

# B spots, F inputs of a head, D width of the common space, W width of a spot before it


class ProjectionHead(nn.Module):
    r"""Into the common space: :math:`z = \mathrm{LN}(p + W_b\,\mathrm{GELU}(p))` with :math:`p = W_a f`.

    Parameters
    ----------
    inputs
        Width of the input.
    width
        Width of the common space.
    dropout
        Share of the input, and of what is added to p, dropped in training.
    """

    def __init__(self, inputs: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = Dropout(dropout)
        self.project = nn.Linear(inputs, width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, f_BF: Tensor) -> Tensor:
        """`(B, F)` to `(B, D)`."""
        p_BD = self.project(self.drop(f_BF))
        return self.norm(p_BD + self.drop(self.mix(F.gelu(p_BD))))


def symmetric_infonce(
    one_BD: Tensor, other_BD: Tensor, temperature: float = 1.0, *, l2_normalize: bool = False
) -> Tensor:
    r"""Symmetric contrastive loss of pairs (Radford et al. 2021): the mean of two cross-entropies.

    With logits :math:`\ell_{ij} = a_i \cdot b_j / \tau`, row by row and column by column, :math:`j = i` is the class
    to be found. Where nothing tells pairs apart it is :math:`\ln B`. Computed in float32, or wider if the input is.

    Parameters
    ----------
    one_BD, other_BD
        Two views of the same B spots.
    temperature
        :math:`\tau`.
    l2_normalize
        Bring all rows to length 1 first, so that the logits are cosines over the temperature.
    """
    with torch.autocast(one_BD.device.type, enabled=False):
        one, other = (view.float() if view.itemsize < 4 else view for view in (one_BD, other_BD))
        if l2_normalize:
            one, other = F.normalize(one, dim=1), F.normalize(other, dim=1)
        logits_BB = one @ other.T / temperature
        pairs = torch.arange(len(logits_BB), device=logits_BB.device)
        return (F.cross_entropy(logits_BB, pairs) + F.cross_entropy(logits_BB.T, pairs)) / 2


class GridPosition(nn.Module):
    """A vector for every cell of a grid: the sum of one for its column and one for its row.

    Parameters
    ----------
    size
        Columns and rows; what lies outside gets the vectors of the rim.
    width
        Width of the vectors.
    kind
        `"learned"`: two tables, initially normal with standard deviation `std`. `"sinusoid"`: sines and cosines of
        geometric wavelengths, of column and row by turns, with root mean square `std`. `"none"`: zero.
    std
        Size of the vectors.
    """

    def __init__(self, size: tuple[int, int], width: int, kind: str = "learned", std: float = 0.02) -> None:
        super().__init__()
        if kind not in ("learned", "sinusoid", "none"):
            raise ValueError(f"kind is {kind!r}; expected 'learned', 'sinusoid' or 'none'.")
        self.kind, self.size, self.width, self.std = kind, size, width, std
        if kind == "learned":
            self.tables = nn.ModuleList(nn.Embedding(n, width) for n in size)
            for table in self.tables:
                nn.init.normal_(table.weight, std=std)

    def forward(self, cell_B2: Tensor) -> Tensor:
        """Columns and rows `(B, 2)`, whole numbers, to `(B, W)`."""
        if self.kind == "none":
            return torch.zeros(len(cell_B2), self.width, device=cell_B2.device)
        if self.kind == "sinusoid":
            return self._waves(cell_B2.float())
        cells = [cell_B2[:, axis].clamp(0, n - 1) for axis, n in enumerate(self.size)]
        return self.tables[0](cells[0]) + self.tables[1](cells[1])

    def _waves(self, cell_B2: Tensor) -> Tensor:
        channel = torch.arange(self.width, device=cell_B2.device)
        turns = cell_B2[:, channel % 2] * 10_000.0 ** (-(channel // 4) / max(1, self.width / 4))
        return 2**0.5 * self.std * torch.where(channel // 2 % 2 == 0, turns.sin(), turns.cos())


class _Block(nn.Module):
    """Attention, then a network on every spot, each on normalized input and added to it."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, head_width, qkv_bias=False)
        self.network = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x_BTW: Tensor) -> Tensor:
        x_BTW = x_BTW + self.attention(self.norm_attention(x_BTW))
        return x_BTW + self.network(self.norm_network(x_BTW))


class SpotEncoder(nn.Module):
    """Spots that look at each other: blocks of attention over all the spots given together.

    Parameters
    ----------
    width
        Width of a spot: the number of genes.
    blocks, heads, head_width
        Size of the transformer.
    """

    def __init__(self, width: int, blocks: int = 2, heads: int = 8, head_width: int = 64) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_Block(width, heads, head_width) for _ in range(blocks)))

    def forward(self, u_BW: Tensor) -> Tensor:
        """Spots `(B, W)` that belong together, to `(B, W)`. A spot's row does not depend on the order of the others."""
        return self.blocks(u_BW[None])[0]


def turned(crops: Tensor) -> Tensor:
    """Crops `(B, 3, S, S)`, each mirrored and turned by right angles at random: one of eight ways, equally likely."""
    chance = {"device": crops.device, "generator": generator(crops.device)}
    flips = torch.rand(3, len(crops), 1, 1, 1, **chance) < 0.5
    crops = torch.where(flips[0], crops.flip(-1), crops)
    crops = torch.where(flips[1], crops.flip(-2), crops)
    return torch.where(flips[2], crops.transpose(-1, -2), crops)
