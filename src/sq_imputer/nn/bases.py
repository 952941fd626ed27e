"""DNA as tensors: one-hot bases, and what a window, or what is written about a gene, is made of in few numbers."""

from __future__ import annotations

import torch
from torch import Tensor

A, C, G, T, UNKNOWN = range(5)
LOOKS = 6  # numbers of `composition` and `lettering`

# B windows, L bases, T tracks


def one_hot(bases_BL: Tensor) -> Tensor:
    """Bases as `(B, L, 4)` float32, in the order A, C, G, T; an unknown base is a row of zeros."""
    table = torch.eye(UNKNOWN + 1, UNKNOWN, device=bases_BL.device)
    return table[bases_BL.int()]


def composition(bases_BL: Tensor, tracks_BLT: Tensor | None = None) -> Tensor:
    """What windows look like in few numbers, `(B, 6)` float32: what says how unlike the training windows one is.

    Shares among known bases of G + C, of CpG and of AA + TT (pairs of neighbors), the skews (G - C) / (G + C) and
    (A - T) / (A + T), and the mean of log(1 + signal) over all tracks, 0 without. This choice is ours.
    """
    counts = torch.stack([(bases_BL == base).sum(dim=1) for base in (A, C, G, T)], dim=1).float()
    known = counts.sum(dim=1).clamp_min(1)
    a, c, g, t = counts.unbind(dim=1)
    before, after = bases_BL[:, :-1], bases_BL[:, 1:]
    cpg = ((before == C) & (after == G)).sum(dim=1)
    twins = ((before == after) & ((before == A) | (before == T))).sum(dim=1)
    skews = [(one - other) / (one + other).clamp_min(1) for one, other in ((g, c), (a, t))]
    signal = torch.zeros_like(known) if tracks_BLT is None else tracks_BLT.clamp_min(0).log1p().mean(dim=(1, 2))
    return torch.stack([(g + c) / known, cpg / known, twins / known, *skews, signal], dim=1)


def lettering(text_BN: Tensor) -> Tensor:
    """What texts look like in few numbers, `(B, 6)` float32, as `composition` says it of windows that have no DNA.

    The log of the length in bytes, and shares of letters, digits, blanks, semicolons and capitals. This choice is ours.
    """
    there = text_BN > 0
    size = there.sum(dim=1).clamp_min(1)
    small, large = (text_BN >= 97) & (text_BN <= 122), (text_BN >= 65) & (text_BN <= 90)
    kinds = (small | large, (text_BN >= 48) & (text_BN <= 57), text_BN == 32, text_BN == 59, large)
    return torch.stack([size.float().log(), *(kind.sum(dim=1) / size for kind in kinds)], dim=1)
