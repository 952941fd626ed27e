"""Random numbers of a fit, from generators that are its own thread's: blocks and models that draw ask here for them.

Outside of a fit there are none, and torch's global ones draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import local

import torch
from torch import Tensor, nn

_here = local()


@contextmanager
def drawn_by(generator_of: Callable[[torch.device], torch.Generator]) -> Iterator[None]:
    """While this is entered, :func:`generator` gives, in this thread, what `generator_of` gives for a device."""
    before, _here.generator_of = getattr(_here, "generator_of", None), generator_of
    try:
        yield
    finally:
        _here.generator_of = before


def generator(device: torch.device | str = "cpu") -> torch.Generator | None:
    """The generator of a device for what the fit of this thread draws; None, which is torch's own, outside of fits."""
    generator_of = getattr(_here, "generator_of", None)
    return None if generator_of is None else generator_of(torch.device(device))


class Dropout(nn.Dropout):
    """Dropout that draws by :func:`generator`; of one seed it drops what torch's does on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """A tensor of any shape, with a share of it dropped while training."""
        own = generator(input.device) if self.training and self.p else None
        if own is None:
            return super().forward(input)
        return input * torch.empty_like(input).bernoulli_(1 - self.p, generator=own).div_(1 - self.p)
