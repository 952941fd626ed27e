"""Transformer blocks that normalize first: of one sequence, of one that looks at another, and attention in windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sq_imputer.nn.drawn import Dropout

# B sequences, Q queries, K keys, T tokens, W width, H heads, D width of a head

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]  # of queries, keys and values (B, H, T, D)


class Attention(nn.Module):
    """Tokens look at tokens by several heads; without biases, and projected afterwards if there are several.

    Parameters
    ----------
    width, heads
        Width of the tokens, a multiple of the number of heads.
    dropout
        Share of what is added to the tokens that is dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), Dropout(dropout)) if heads > 1 else nn.Identity()

    def forward(self, x_BQW: Tensor, y_BKW: Tensor, mask: Tensor | None = None, mix: Mix | None = None) -> Tensor:
        """What tokens `x` take from tokens `y`.

        Parameters
        ----------
        mask
            What is added to the scores, or where they count; of a shape that fits `(B, H, Q, K)`.
        mix
            Another way to mix values than by all scores.
        """
        q = self.query(x_BQW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(y_BKW).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask) if mix is None else mix(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention within a sequence, then a network of two layers, each of normalized tokens and added to them.

    Parameters
    ----------
    width, heads, dropout
        As of :class:`Attention`.
    ratio
        Hidden units of the network per width.
    """

    def __init__(self, width: int, heads: int, ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        hidden = max(1, round(ratio * width))
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, width), Dropout(dropout)
        )

    def forward(
        self, x_BTW: Tensor, mask: Tensor | None = None, mix: Mix | None = None, only: Tensor | None = None
    ) -> Tensor:
        """`(B, T, W)` to `(B, T, W)`, or to `(B, Q, W)` of those tokens `only` that are numbered `(Q,)`."""
        seen = self.norm(x_BTW)
        asking, x_BTW = (seen, x_BTW) if only is None else (seen[:, only], x_BTW[:, only])
        return self._after(x_BTW + self.attention(asking, seen, mask, mix))

    def _after(self, x_BTW: Tensor) -> Tensor:
        return x_BTW + self.mlp(self.norm_2(x_BTW))


class CrossBlock(Block):
    """The same of tokens that look at others, which are normalized as they are."""

    def forward(self, x_BQW: Tensor, y_BKW: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens `(B, Q, W)` that have looked at tokens `(B, K, W)`."""
        return self._after(x_BQW + self.attention(self.norm(x_BQW), self.norm(y_BKW), mask))


class GridBias(nn.Module):
    """A learned number per head for how far two cells of a square grid lie apart, in either direction; 0 at first.

    Cells that lie apart by the same two distances, whichever is along x, share it: turning or mirroring the grid
    changes nothing.
    """

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        at = torch.arange(side)
        y, x = torch.meshgrid(at, at, indexing="ij")
        apart = torch.stack([(line[:, None] - line).abs() for line in (y.flatten(), x.flatten())])
        near, far = apart.min(dim=0).values, apart.max(dim=0).values
        self.register_buffer("which", far * (far + 1) // 2 + near, persistent=False)
        self.bias = nn.Parameter(torch.zeros(heads, side * (side + 1) // 2))

    def forward(self, inside_BT: Tensor | None = None) -> Tensor:
        """What is added to scores, `(1, H, T, T)`, or `(B, H, T, T)` and never to be looked at where not `inside`."""
        bias = self.bias[:, self.which][None]
        return bias if inside_BT is None else bias.masked_fill(~inside_BT[:, None, None], -torch.inf)


def windowed(q: Tensor, k: Tensor, v: Tensor, size: int, shift: int = 0) -> Tensor:
    """Attention `(B, H, T, D)` within windows of consecutive tokens; memory grows as their number does.

    Parameters
    ----------
    size
        Tokens of a window; the last one may have fewer.
    shift
        Tokens of the first window, so that those of the next layer lie across the borders of this one's.
    """
    shift = min(shift, q.shape[2])
    whole = shift + (q.shape[2] - shift) // size * size
    parts = []
    for start, stop, each in ((0, shift, shift), (shift, whole, size), (whole, q.shape[2], q.shape[2] - whole)):
        if stop > start:
            cut = [t[:, :, start:stop].unflatten(2, (-1, each)).transpose(1, 2).flatten(0, 1) for t in (q, k, v)]
            mixed = scaled_dot_product_attention(*cut)
            parts.append(mixed.unflatten(0, (len(q), -1)).transpose(1, 2).flatten(2, 3))
    return torch.cat(parts, dim=2)
