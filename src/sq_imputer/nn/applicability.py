"""How unlike the training rows a row is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

RANK = 16
LEVELS = 201
WHOLE = 1024  # features; of more only the leading components are found, by iteration
SWEEPS = 20


class Applicability(nn.Module):
    """Share of training rows that lie nearer to the training mean than a row does.

    The distance is Mahalanobis' in the leading principal components of what the model sees, plus the part outside of
    them relative to its usual size: a covariance whose trailing part is shrunk to one number. 0 is the middle of the
    training data, 1 is farther than all of it. After :meth:`calibrate` the shares are those of rows that were left out,
    so that 1 minus a share is a p-value (conformal: Laxhammar and Falkman, 2010) as far as a new row is to the training
    data what these were.
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
        values, vectors, size = self._spread(seen, n)
        sizes = (values.clamp_min(0) / max(n - 1, 1)).sqrt()
        rank = min(RANK, int((sizes > 1e-6 * sizes.max().clamp_min(1e-12)).sum()))
        self.basis.zero_()
        self.basis[:, :rank] = vectors[:, :rank] / sizes[:rank]
        inside, outside = (torch.cat(parts) for parts in zip(*map(self._parts, seen), strict=True))
        # where the components hold everything, what is left outside is rounding error and must not count
        floor = 1e-8 * size / n
        self.rest.copy_(outside.mean().clamp_min(floor).clamp_min(1e-12))
        self._rank([inside + outside / self.rest])

    def _spread(self, seen: Iterable[Tensor], n: int) -> tuple[Tensor, Tensor, float]:
        """Eigenvalues and eigenvectors of the moment of the rows, the largest first, and its trace."""
        if n < len(self.center):  # products of rows with each other are fewer, and have the same eigenvalues
            rows = torch.cat([part - self.center for part in seen]).double()
            values, turn = (found.flip(-1) for found in torch.linalg.eigh(rows @ rows.T))
            return values, rows.T @ turn / values.clamp_min(1e-12).sqrt(), float(rows.pow(2).sum())
        moment = sum((part - self.center).double().T @ (part - self.center).double() for part in seen)
        return *_leading(moment), float(moment.trace())

    def calibrate(self, folds: Iterable[tuple[Iterable[Tensor], Iterable[Tensor]]]) -> None:
        """Take the shares from rows that were left out: of pairs of the rows that are kept, and those left out."""
        found = []
        for kept, left in folds:
            one = Applicability(len(self.center))
            one.fit(kept)
            found += map(one.distance, left)
        self._rank(found)

    def _rank(self, distances: Sequence[Tensor]) -> None:
        ordered = torch.cat(list(distances)).sort().values
        place = torch.linspace(0, 1, LEVELS, dtype=torch.float64) * (len(ordered) - 1)
        low = place.floor().long()
        high = (low + 1).clamp_max(len(ordered) - 1)
        self.quantiles.copy_(torch.lerp(ordered[low].double(), ordered[high].double(), place - low))

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


def _leading(moment: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix, the largest first: of a large one the leading ones alone."""
    if len(moment) <= WHOLE:
        values, vectors = torch.linalg.eigh(moment)
        return values.flip(0), vectors.flip(1)
    start = torch.Generator().manual_seed(0)
    found = torch.randn(len(moment), 2 * RANK, generator=start, dtype=torch.float64)
    for _ in range(SWEEPS):
        found = torch.linalg.qr(moment @ found).Q
    values, turn = torch.linalg.eigh(found.T @ moment @ found)
    return values.flip(0), (found @ turn).flip(1)
