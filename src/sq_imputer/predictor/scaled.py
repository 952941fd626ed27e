"""Features as a model sees them: scaled within each section, or by the training rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Batch, Model, Source, WholeSlide
from sq_imputer.predictor.statistics import CLIP_SD, in_training_units, safe


class Scaled:
    """What scales the batches of one source for a model.

    Tiles around a row are scaled as its crop is, of which they are neighbors; the rows of the whole section as those of
    the batch. Tokens have a mean and spread of their own.
    """

    def __init__(self, predictor: Model, source: Source, device: str) -> None:
        needs, own, tokens = predictor.needs, None, None
        if needs.per_section:
            own = source.moments(needs, device=device)
            tokens = source.moments(needs, device=device, tokens=True) if needs.tokens else None
        self.features = _Scale(*(own or (predictor.feature_mean, predictor.feature_std)))
        self.tokens = _Scale(*(tokens or (predictor.token_mean, predictor.token_std))) if needs.tokens else None
        self.slides: dict[int, WholeSlide] = {}

    def __call__(self, batch: Batch) -> Batch:
        """The batch, scaled."""
        parts: dict = {"features": self.features(batch.features)}
        if batch.tokens is not None:
            parts["tokens"] = self.tokens(batch.tokens)
        if batch.neighbors is not None:
            parts["neighbors"] = self.features(batch.neighbors)
        if batch.slides:
            parts["slides"] = tuple(map(self._whole, batch.slides))
        return replace(batch, **parts)

    def _whole(self, slide: WholeSlide) -> WholeSlide:
        """The section, scaled once for all batches."""
        if id(slide) not in self.slides:
            self.slides[id(slide)] = replace(slide, tokens=self.features(slide.tokens))
        return self.slides[id(slide)]


class Apart:
    """What says how unlike the training rows those of one source are: features that were scaled are scaled back.

    Scaled within their own section, those of another stain or organ look as all others do.
    """

    def __init__(self, predictor: Model, source: Source, device: str) -> None:
        needs, own = predictor.needs, None
        if needs.encoders and needs.per_section:
            own = source.moments(needs, device=device)
        self.predictor, self.own = predictor, own and _Scale(*own)

    def __call__(self, seen: Tensor) -> Tensor:
        """`(B,)` in [0, 1] of rows `(B, F)` as the model sees them."""
        if self.own is not None:
            seen = in_training_units(self.predictor, seen * self.own.std.to(seen) + self.own.mean.to(seen))
        return self.predictor.applicability(seen)


class _Scale:
    def __init__(self, mean, std) -> None:
        mean, std = (
            np.asarray(part.cpu() if isinstance(part, Tensor) else part, dtype=np.float32) for part in (mean, std)
        )
        self.mean, self.std = torch.from_numpy(mean), torch.from_numpy(safe(std))

    def __call__(self, values: Tensor) -> Tensor:
        width = values.shape[-1]
        return ((values - self.mean[:width]) / self.std[:width]).clamp(-CLIP_SD, CLIP_SD)
