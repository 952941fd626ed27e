"""Multi-head self-attention, a block of it under a condition, and a pool of a bag by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# B sequences, T tokens, W width, H heads, D width of a head


class SelfAttention(nn.Module):
    """Every token looks at every token of its sequence, by PyTorch's fused attention.

    Parameters
    ----------
    width
        Width of the tokens.
    heads
        Number of heads.
    head_width
        Width of a head; `width / heads` if left out.
    qkv_bias
        Whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, heads: int, head_width: int | None = None, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * (head_width or width // heads)
        self.qkv = nn.Linear(width, 3 * inner, bias=qkv_bias)
        self.out = nn.Linear(inner, width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """`(B, T, W)` to `(B, T, W)`."""
        q_BHTD, k_BHTD, v_BHTD = self.qkv(x_BTW).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHTD = nn.functional.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD)
        return self.out(mixed_BHTD.transpose(1, 2).flatten(2))


class ModulatedBlock(nn.Module):
    """Attention and a two-layer network, each scaled, shifted and gated by a condition (adaLN, Peebles and Xie 2023).

    Parameters
    ----------
    width
        Width of tokens and condition.
    heads
        Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, h_RGD: Tensor, c_RD: Tensor) -> Tensor:
        """Tokens `(R, G, D)` under the condition `(R, D)`."""
        shift, scale, gate, shift_2, scale_2, gate_2 = self.modulation(c_RD)[:, None].chunk(6, dim=-1)
        h_RGD = h_RGD + gate * self.attention(self.norm(h_RGD) * (1 + scale) + shift)
        return h_RGD + gate_2 * self.mlp(self.norm(h_RGD) * (1 + scale_2) + shift_2)


class GatedPool(nn.Module):
    r"""One number of a bag: a line on the mean of its rows, weighted by gated attention (Ilse et al. 2018).

    :math:`a_n \propto \exp\big(w^T(\tanh(V x_n) \odot \sigma(U x_n))\big)`, which sum to 1 over the bag.
    """

    def __init__(self, inputs: int, hidden: int = 32) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(inputs, hidden), nn.Linear(inputs, hidden)
        self.weight, self.out = nn.Linear(hidden, 1), nn.Linear(inputs, 1)

    def attention(self, x_NF: Tensor) -> Tensor:
        """Weights `(N,)` of the rows of a bag."""
        return self.weight(self.value(x_NF).tanh() * self.gate(x_NF).sigmoid())[:, 0].softmax(dim=0)

    def forward(self, x_NF: Tensor) -> Tensor:
        """`(N, F)` to a number."""
        return self.out(torch.einsum("n,nf->f", self.attention(x_NF), x_NF))[0]
