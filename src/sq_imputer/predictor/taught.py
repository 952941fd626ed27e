"""What training rows are taught, where that is not what was measured at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from sq_imputer.contract import Batch, Needs, Source
from sq_imputer.predictor.sources import target_of


class Taught:
    """A source whose measured rows are taught the mean of themselves and the measured rows next to them."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.expression = source.smoothed(np.flatnonzero(source.measured))

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str):
        return getattr(self.source, name)

    def batches(self, needs: Needs, batch_size: int = 64, **how) -> Iterator[Batch]:
        """As those of the source, with what is taught."""
        for batch in self.source.batches(needs, batch_size, **how):
            yield replace(batch, expression=torch.from_numpy(self.expression[batch.index.numpy()]))


def of(sources: Sequence[Source]) -> list[Source]:
    """Sources as a fit learns from them; what it leaves out to measure its error stays as it was measured."""
    return [Taught(source) if target_of(source).smoothed else source for source in sources]
