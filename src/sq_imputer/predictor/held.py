"""Pixels of all training rows in memory: read once for statistics, training, validation and the fit on all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from sq_imputer.contract import Batch, Model, Needs, Source
from sq_imputer.progress import track


class Held:
    """A source whose measured rows are in memory; about all else the source itself is asked.

    Parameters
    ----------
    source
        The source.
    pool
        The rows of all sources of a fit, in the order in which they were read.
    part
        Which of these are the source's.
    """

    def __init__(self, source: Source, pool: Batch, part: slice) -> None:
        self.source, self.pool, self.part = source, pool, part
        self.index = pool.index[part].numpy()

    def __getattr__(self, name: str):
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Where some of its rows are in the pool, in the order of the pool."""
        return self.part.start + np.flatnonzero(np.isin(self.index, rows))

    def batches(
        self, needs: Needs, batch_size: int = 64, *, rows=None, generator=None, device: str = "auto"
    ) -> Iterator[Batch]:
        """As those of the source: of rows that are not in memory, from there."""
        import torch

        rows = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        if not np.isin(rows, self.index).all():
            yield from self.source.batches(needs, batch_size, rows=rows, generator=generator, device=device)
            return
        order = self.at(rows)
        order = order if generator is None else generator.permutation(order)
        for start in range(0, len(order), batch_size):
            batch = self.pool[torch.from_numpy(order[start : start + batch_size])]
            yield replace(batch, section=torch.zeros_like(batch.section))


def hold(predictor: Model, sources: Sequence[Source], memory_mb: int, shown: bool = True) -> list[Source]:
    """The sources with the pixels of their measured rows in memory, if a model sees pixels and they fit; else as is."""
    rows = [np.flatnonzero(source.measured) for source in sources]
    total = sum(map(len, rows))
    if predictor.needs.encoders or predictor.bytes_per_row * total > memory_mb * 2**20:
        return list(sources)
    batches = (
        replace(batch, section=batch.section + k)
        for k, source in enumerate(sources)
        for batch in predictor.seen(source, 64, rows=rows[k])
    )
    pool = Batch.cat(list(track(batches, "reading training rows", total, size=len, shown=shown)))
    stops = np.cumsum([0, *map(len, rows)])
    return [Held(source, pool, slice(*map(int, stops[k : k + 2]))) for k, source in enumerate(sources)]
