"""What a model keeps of its training rows before it is trained: mean and spread of what it sees, and what is usual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Batch, Model, Needs, Source
from sq_imputer.nn.bases import composition, lettering
from sq_imputer.predictor.parts import Labels
from sq_imputer.progress import track
from sq_imputer.scores.moments import MANY, chunks, mean_and_std
from sq_imputer.scores.splits import spatial_blocks, whole_parts

PARTS = 5  # that are left out in turn, to know how far rows lie that a model has not seen
FEWEST = 20  # rows
LEAST_SPREAD = 1e-6
READ_BYTES = 2**26
CLIP_SD = 10.0  # features farther out than this are artifacts, not tissue


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
    look = _look_up(predictor, sources, rows)
    part = parts_of(sources)
    predictor.applicability.fit(look(np.ones(len(part), dtype=bool)))
    kept = all(getattr(source, "kept", True) for source in sources)
    if kept and part.max() > 0:
        predictor.applicability.calibrate((look(part != k), look(part == k)) for k in range(part.max() + 1))


def rows_at_once(predictor: Model) -> int:
    """Rows that are looked at together where nothing is learned from them: as many as are some megabytes."""
    return min(256, max(1, READ_BYTES // predictor.bytes_per_row))


def parts_of(sources: Sequence[Source]) -> np.ndarray:
    """Parts `(n,)` of the measured rows that are left out in turn: individuals, else sections, else blocks.

    At most five; all rows are of one where they are too few to leave some out.
    """
    labels = Labels.of(sources)
    n = len(labels.groups)
    if n < FEWEST:
        return np.zeros(n, dtype=int)
    whole = whole_parts(labels.groups, labels.sections)
    part = spatial_blocks(labels.xy_um, PARTS) if whole is None else whole % PARTS
    most = np.bincount(part).max()
    return part if n - most >= FEWEST / 2 else np.zeros(n, dtype=int)


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


def kind_of_parts(sources: Sequence[Source]) -> str:
    """What :func:`parts_of` leaves out, in words."""
    if parts_of(sources).max() == 0:
        return "the training rows themselves"
    labels = Labels.of(sources)
    several = [len(set(np.asarray(one).tolist())) > 1 for one in (labels.groups, labels.sections)]
    return "left-out individuals" if several[0] else "left-out sections" if several[1] else "left-out blocks"


def _look_up(predictor: Model, sources: Sequence[Source], rows: list[np.ndarray]) -> Callable:
    """A function from which `(n,)` of the measured rows to what they look like, some at a time, as often as asked.

    Features lie there, and are in units of the training rows, not of their own section: what is unlike in all of a
    section would not be seen. Pixels are read once.
    """
    ends, needs = np.cumsum([len(part) for part in rows])[:-1], predictor.needs
    if needs.encoders:
        return lambda mask: _Features(predictor, sources, _chosen(rows, np.split(mask, ends)))
    known = torch.zeros(sum(map(len, rows)), 6)
    size = rows_at_once(predictor)
    read = ((k, b) for k, s in enumerate(sources) for b in predictor.seen(s, size, rows=rows[k]))
    starts = [0, *ends.tolist()]
    for k, batch in track(read, f"{predictor.card.name}: statistics", len(known), size=lambda one: len(one[1])):
        known[starts[k] + torch.from_numpy(np.searchsorted(rows[k], batch.index.numpy()))] = summary(batch).cpu()
    return lambda mask: [known[torch.from_numpy(mask)]]


def _chosen(rows: list[np.ndarray], masks: list[np.ndarray]) -> list[np.ndarray]:
    return [own[mask] for own, mask in zip(rows, masks, strict=True)]


class _Features:
    """Features of some rows in units of the training rows, gone through anew whenever they are asked for."""

    def __init__(self, predictor: Model, sources: Sequence[Source], rows: list[np.ndarray]) -> None:
        self.needs = replace(predictor.needs, tokens=0, neighbors=0, whole_slide=False)
        self.predictor, self.pairs = predictor, [(s, r) for s, r in zip(sources, rows, strict=True) if len(r)]

    def __iter__(self) -> Iterator[Tensor]:
        for source, rows in self.pairs:
            for batch in source.batches(self.needs, MANY, rows=rows):
                yield in_training_units(self.predictor, batch.features)


def in_training_units(predictor: Model, features: Tensor) -> Tensor:
    """Features less the mean of all training rows, over their spread; artifacts are cut off."""
    mean, std = predictor.feature_mean, predictor.feature_std
    std = torch.where(std > LEAST_SPREAD, std, torch.ones_like(std))
    return ((features - mean.to(features)) / std.to(features)).clamp(-CLIP_SD, CLIP_SD)


def safe(std: np.ndarray) -> np.ndarray:
    """Standard deviations to divide by: 1 where nothing varies."""
    return np.where(std > LEAST_SPREAD, std, 1.0).astype(std.dtype)


def summary(batch: Batch) -> Tensor:
    """What a row looks like in few numbers: composition of DNA or text, features, or optical density of its pixels."""
    if batch.bases is not None:
        return composition(batch.bases, batch.tracks)
    if batch.text is not None:
        return lettering(batch.text)
    if batch.features is not None:
        return batch.features if batch.features.ndim == 2 else batch.features.mean(dim=1)
    pixels = batch.crops.float()
    density = -torch.log10((pixels + 1) / 256)
    aside = [dim for dim in range(1, density.ndim) if dim != density.ndim - 3]
    return torch.cat([density.mean(dim=aside), density.std(dim=aside, correction=0)], dim=1)
