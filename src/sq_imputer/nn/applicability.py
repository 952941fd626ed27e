"""How unlike the training rows a row is."""

from __future__ import annotations

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

    def fit(self, seen_NF: Tensor) -> None:
        """Learn the spread of training rows `(N, F)`."""
        self.center.copy_(seen_NF.mean(dim=0))
        centered = seen_NF - self.center
        _, sizes, directions = torch.linalg.svd(centered, full_matrices=False)
        sizes = sizes / max(len(seen_NF) - 1, 1) ** 0.5
        rank = min(RANK, int((sizes > 1e-6 * sizes.max().clamp_min(1e-12)).sum()))
        self.basis.zero_()
        self.basis[:, :rank] = directions[:rank].T / sizes[:rank]
        # where the components hold everything, what is left outside is rounding error and must not count
        floor = 1e-8 * centered.pow(2).sum(dim=1).mean()
        self.rest.copy_(self._outside(centered).mean().clamp_min(floor).clamp_min(1e-12))
        self.quantiles.copy_(torch.quantile(self.distance(seen_NF), torch.linspace(0, 1, LEVELS)))

    def _outside(self, centered_NF: Tensor) -> Tensor:
        unit = self.basis / self.basis.norm(dim=0).clamp_min(1e-12)
        return (centered_NF - centered_NF @ unit @ unit.T).pow(2).sum(dim=1)

    def distance(self, seen_NF: Tensor) -> Tensor:
        """Squared distance of each row from the training mean."""
        centered = seen_NF - self.center
        return (centered @ self.basis).pow(2).sum(dim=1) + self._outside(centered) / self.rest

    def forward(self, seen_NF: Tensor) -> Tensor:
        """`(N,)` in [0, 1]."""
        place = torch.searchsorted(self.quantiles, self.distance(seen_NF).contiguous())
        return (place.float() / LEVELS).clamp(0, 1)
