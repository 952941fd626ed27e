"""Pre-norm transformer blocks that look at their own tokens or at others', under a mask and a bias of places."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sq_imputer.nn.drawn import Dropout

# B sequences, Q tokens that ask, K tokens that are looked at, W width, H heads


class Attention(nn.Module):
    """Tokens that look at others: multi-head, by PyTorch's fused attention; no bias on queries, keys and values.

    Parameters
    ----------
    width
        Width of all tokens.
    heads
        Number of heads; their outputs are mixed by a linear map if there are several.
    dropout
        Share of what is found dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width) if heads > 1 else nn.Identity()
        self.drop = Dropout(dropout)

    def forward(
        self, x_BQW: Tensor, seen_BKW: Tensor, mask_BK: Tensor | None = None, bias_HQK: Tensor | None = None
    ) -> Tensor:
        """`(B, Q, W)` that ask, or `(1, Q, W)` that ask everywhere, and `(B, K, W)` to look at, to `(B, Q, W)`.

        `mask_BK` says which may be looked at, one of a sequence at least; `bias_HQK` is added before the softmax.
        """
        q, k, v = (
            of(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for of, tokens in ((self.query, x_BQW), (self.key, seen_BKW), (self.value, seen_BKW))
        )
        mask = None if mask_BK is None else mask_BK[:, None, None]
        if bias_HQK is not None:
            mask = bias_HQK[None] if mask is None else torch.where(mask, bias_HQK[None], -torch.inf)
            mask = mask.to(q.dtype)
        found = scaled_dot_product_attention(q.expand(len(k), -1, -1, -1), k, v, attn_mask=mask)
        return self.drop(self.out(found.transpose(1, 2).flatten(2)))


class One(nn.Module):
    """Attention where there is one token to look at: its weight is 1 whatever is asked, so that nothing asks."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width) if heads > 1 else nn.Identity()
        self.drop = Dropout(dropout)

    def forward(self, x_BQW: Tensor, seen_B1W: Tensor) -> Tensor:
        """`(B, 1, W)`, the same for all that ask."""
        return self.drop(self.out(self.value(seen_B1W)))


class Block(nn.Module):
    """Attention, then a network on every token, each of normalized tokens and added to them.

    Parameters
    ----------
    width
        Width of the tokens.
    heads
        Number of heads.
    ratio
        Hidden units of the network per width.
    dropout
        Share of what attention finds, and of the network's units and outputs, dropped in training.
    looks
        `"self"`: at its own tokens. `"others"`: at other tokens, which have a norm of their own. `"one"`: at one other.
    """

    def __init__(self, width: int, heads: int, ratio: float = 4.0, dropout: float = 0.0, looks: str = "self") -> None:
        super().__init__()
        self.norm, self.norm_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_seen = nn.LayerNorm(width) if looks != "self" else None
        self.attention = (One if looks == "one" else Attention)(width, heads, dropout)
        hidden = int(width * ratio)
        self.network = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, width), Dropout(dropout)
        )

    def forward(self, x_BQW: Tensor, seen_BKW: Tensor | None = None, *where: Tensor | None) -> Tensor:
        """`(B, Q, W)` to `(B, Q, W)`; `where` is mask and bias, as :class:`Attention` takes them."""
        asked = self.norm(x_BQW)
        x_BQW = x_BQW + self.attention(asked, asked if self.norm_seen is None else self.norm_seen(seen_BKW), *where)
        return x_BQW + self.network(self.norm_network(x_BQW))
