"""How unlike the training rows a row is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

RANK = 16
LEVELS = 201


class Applicability(nn.Module):
    """Share of training rows that lie nearer to the training mean than a row does.

    The distance is Mahalanobis' in the leading principal components of what the model sees, plus the part outside of
    them relative to its usual size. 0 is the middle of the training data, 1 is farther than all of it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, RANK))
        self.register_buffer("rest", torch.ones(()))
        self.register_buffer("quantiles", torch.zeros(LEVELS))

    def fit(self, seen: Iterable[Tensor]) -> None:
        """Learn the spread of training rows, some `(n, F)` at a time; they are gone through three times."""
        total = n = 0
        for part in seen:
            total, n = total + part.double().sum(dim=0), n + len(part)
        self.center.copy_(total / n)
        moment = sum((part - self.center).double().T @ (part - self.center).double() for part in seen)
        values, vectors = torch.linalg.eigh(moment)
        sizes = (values.flip(0).clamp_min(0) / max(n - 1, 1)).sqrt()
        rank = min(RANK, int((sizes > 1e-6 * sizes.max().clamp_min(1e-12)).sum()))
        self.basis.zero_()
        self.basis[:, :rank] = vectors.flip(1)[:, :rank] / sizes[:rank]
        inside, outside = (torch.cat(parts) for parts in zip(*map(self._parts, seen), strict=True))
        # where the components hold everything, what is left outside is rounding error and must not count
        floor = 1e-8 * float(moment.trace()) / n
        self.rest.copy_(outside.mean().clamp_min(floor).clamp_min(1e-12))
        self.quantiles.copy_(torch.quantile(inside + outside / self.rest, torch.linspace(0, 1, LEVELS)))

    def _parts(self, seen_NF: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance from the mean within the components, and what is left outside of them."""
        centered = seen_NF - self.center
        unit = self.basis / self.basis.norm(dim=0).clamp_min(1e-12)
        outside = (centered - centered @ unit @ unit.T).pow(2).sum(dim=1)
        return (centered @ self.basis).pow(2).sum(dim=1), outside

    def distance(self, seen_NF: Tensor) -> Tensor:
        """Squared distance of each row from the training mean."""
        inside, outside = self._parts(seen_NF)
        return inside + outside / self.rest

    def forward(self, seen_NF: Tensor) -> Tensor:
        """`(N,)` in [0, 1]."""
        place = torch.searchsorted(self.quantiles, self.distance(seen_NF).contiguous())
        return (place.float() / LEVELS).clamp(0, 1)
