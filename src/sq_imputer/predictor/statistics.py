"""What a model keeps of its training rows before it is trained: mean and spread of what it sees, and what is usual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Batch, Model, Needs, Source
from sq_imputer.progress import track
from sq_imputer.scores.moments import MANY, chunks, mean_and_std


def take(predictor: Model, sources: Sequence[Source]) -> None:
    """Set the statistics that every model has: mean and spread of targets and inputs, and how unlike a row may be."""
    rows = [np.flatnonzero(source.measured) for source in sources]
    measured = (s.expression[part] for s, r in zip(sources, rows, strict=True) for part in chunks(r))
    mean, std = mean_and_std(measured)
    predictor.expression_mean.copy_(torch.from_numpy(mean))
    predictor.expression_std.copy_(torch.from_numpy(safe(std)))
    for name, batches in _read(predictor, sources, rows).items():
        mean, std = mean_and_std(values.flatten(0, -2).numpy() for values in batches)
        getattr(predictor, f"{name}_mean").copy_(torch.from_numpy(mean))
        getattr(predictor, f"{name}_std").copy_(torch.from_numpy(std))
    seen = Summaries(predictor, sources, rows)
    predictor.applicability.fit(seen if predictor.needs.encoders else list(seen))  # features lie there, pixels are read


def _read(predictor: Model, sources: Sequence[Source], rows: list[np.ndarray]) -> dict[str, Iterator[Tensor]]:
    """What the training rows are described by: features and, where a model needs them, tokens, each read lazily."""
    needs = replace(predictor.needs, neighbors=0, whole_slide=False, maps=())
    if not needs.encoders:
        return {}
    alone, size = replace(needs, tokens=0), MANY // max(1, needs.tokens**2)
    seen = {"feature": (b.features for s, r in zip(sources, rows, strict=True) for b in s.batches(alone, MANY, rows=r))}
    if needs.tokens:
        pairs = zip(sources, rows, strict=True)
        seen["token"] = (b.tokens for s, r in pairs for b in s.batches(needs, size, rows=r))
    return seen


def widths_of(source: Source, needs: Needs, device: str) -> dict[str, int]:
    """How many features a row has and, where a model needs them, each of its tokens; they are computed if need be."""
    widths = {"features": source.all_features(needs, device=device).shape[-1]}
    if needs.tokens:
        alone = replace(needs, neighbors=0, whole_slide=False, maps=())
        widths["tokens"] = next(source.batches(alone, 1, device=device)).tokens.shape[-1]
    return widths


class Summaries:
    """What training rows look like, read anew whenever they are gone through."""

    def __init__(self, predictor: Model, sources: Sequence[Source], rows: list[np.ndarray]) -> None:
        self.predictor, self.sources, self.rows = predictor, sources, rows

    def __iter__(self) -> Iterator[Tensor]:
        size = MANY // max(1, self.predictor.needs.tokens**2) if self.predictor.needs.encoders else 256
        read = (b for s, r in zip(self.sources, self.rows, strict=True) for b in self.predictor.seen(s, size, rows=r))
        total = sum(map(len, self.rows))
        return map(summary, track(read, f"{self.predictor.card.name}: statistics", total, size=len))


def safe(std: np.ndarray) -> np.ndarray:
    """Standard deviations to divide by: 1 where nothing varies."""
    return np.where(std > 1e-6, std, 1.0).astype(std.dtype)


def summary(batch: Batch) -> Tensor:
    """What a row looks like in few numbers: its features, or mean and spread of the optical density of its pixels."""
    if batch.features is not None:
        return batch.features if batch.features.ndim == 2 else batch.features.mean(dim=1)
    pixels = batch.crops.float()
    density = -torch.log10((pixels + 1) / 256)
    aside = [dim for dim in range(1, density.ndim) if dim != density.ndim - 3]
    return torch.cat([density.mean(dim=aside), density.std(dim=aside, correction=0)], dim=1)
