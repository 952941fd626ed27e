"""What the masks of a fitted model keep of every window, and what its prediction becomes where windows are edited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Batch
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput
from sq_imputer.genes.genome import UNKNOWN, coded
from sq_imputer.progress import track
from sq_imputer.runs.prior import rows_at_once
from sq_imputer.runs.sections import resolve_model

if TYPE_CHECKING:
    from pathlib import Path

    from sq_imputer.genes.windows import GeneWindows
    from sq_imputer.predictor.base import Predictor

# L bases of a window


def with_masks(model: str | Path | Predictor) -> Predictor:
    """A fitted model of the gene axis that has masks."""
    predictor = resolve_model(model, rows="genes")
    if not predictor.fitted:
        raise BadInput(
            f"'{predictor.card.name}' is not fitted: a map is of one model. Pass get_model('{predictor.card.name}')"
            "(config).fit(windows.by_chromosome()), or a folder written by save."
        )
    if not hasattr(predictor, "regulation"):
        raise BadInput(f"'{predictor.card.name}' keeps no masks of its windows. Pass a 'seq2exp'.")
    return predictor


def masks(predictor: Predictor, windows: GeneWindows, rows: np.ndarray, device: str, shown: bool = True) -> Iterator:
    """Row number and `mask`, `std`, `dna`, `signal`, `allowed` `(L,)` of every window, along the genome."""
    import torch

    device = pick_device(device)
    predictor.to(device).eval()
    size = rows_at_once(predictor.needs.sequence)
    batches = predictor.seen(windows, size, rows=rows)
    for batch in track(batches, f"{predictor.card.name}: masks", len(rows), size=len, shown=shown):
        with torch.inference_mode():
            found = predictor.regulation(batch.to(device)) | {"allowed": batch.allowed}
        arrays = {name: part.cpu().numpy() for name, part in found.items()}
        for k, row in enumerate(batch.index.tolist()):
            yield row, {name: part[k] for name, part in arrays.items()}


@dataclass(frozen=True)
class Edit:
    """A change of the bases from `first` to before `last` of a window.

    Parameters
    ----------
    first, last
        Bases of the window.
    motif
        Letters that stand there instead; N or none: the bases are knocked out, and no mask keeps them.
    track
        Number of a track that is set to `value` there instead; -1 for none.
    value
        What the track is set to.
    """

    first: int
    last: int
    motif: str = ""
    track: int = -1
    value: float = 0.0

    def __call__(self, batch: Batch) -> Batch:
        """The batch, with this in all of its windows."""
        import torch

        at = slice(self.first, self.last)
        if self.track >= 0:
            tracks = batch.tracks.clone()
            tracks[:, at, self.track] = self.value
            return replace(batch, tracks=tracks)
        bases, allowed = batch.bases.clone(), batch.allowed.clone()
        bases[:, at] = torch.from_numpy(coded(self.motif)) if self.motif else UNKNOWN
        allowed[:, at] = bool(self.motif)
        return replace(batch, bases=bases, allowed=allowed)

    def moved(self, first: int) -> Edit:
        """The same elsewhere."""
        return replace(self, first=first, last=first + self.last - self.first)


def predictions(predictor: Predictor, window: Batch, edits: Sequence[Edit], device: str) -> np.ndarray:
    """Predictions `(1 + edits, C)` of one window: as it is, and with every edit by itself."""
    import torch

    device = pick_device(device)
    predictor.to(device).eval()
    size, found = rows_at_once(predictor.needs.sequence), []
    changed = [window, *(edit(window) for edit in edits)]
    for start in range(0, len(changed), size):
        batch = Batch.cat(changed[start : start + size])
        key = torch.full_like(batch.index, int(window.index[0]))
        with torch.inference_mode():
            found.append(predictor.expected(replace(batch, expression=None, key=key).to(device)).cpu())
    return torch.cat(found).numpy()


def elsewhere(edit: Edit, free: np.ndarray, n: int, rng: np.random.Generator) -> list[Edit]:
    """The same edit at random places of the window, all of whose bases are free; fewer where there are fewer."""
    length = edit.last - edit.first
    whole = np.convolve(free.astype(int), np.ones(length, dtype=int), mode="valid") == length
    places = np.flatnonzero(whole)
    chosen = rng.choice(places, min(n, len(places)), replace=False) if len(places) else []
    return [edit.moved(int(place)) for place in chosen]
