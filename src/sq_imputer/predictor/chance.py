"""Random numbers of a fit, from generators of its own: torch's global one is shared by all threads of the process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sq_imputer.contract import Model
from sq_imputer.errors import SqImputerError
from sq_imputer.nn.drawn import drawn_by

aten = torch.ops.aten


class Chance(TorchDispatchMode):
    """While this is entered, whatever torch draws in this thread comes from generators of one seed.

    Initial weights, dropout and noise of a model are drawn by torch's global generator unless they name another one.
    All threads share that: of two fits at once each takes numbers from the other. A mode of torch is its thread's own,
    so that a model need not know of generators, and the global one stays as it was. There is one generator for each
    device; that of the CPU draws what `torch.manual_seed(seed)` would give. It may be entered again, and then goes on.

    Every operation passes through Python then, which costs small models half of their time. Those that draw by the
    generators of `sq_imputer.nn.drawn` alone do without (:meth:`of`), and draw the same.

    Parameters
    ----------
    seed
        What decides all that is drawn.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.generators = seed, {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would load its compiler, which takes seconds, and ask it about every operation."""
        return False

    def of(self, predictor: Model) -> AbstractContextManager:
        """What to enter while a model computes: this, or its generators alone where the model asks for them."""
        return drawn_by(self.generator) if predictor.draws_by_name else self

    def generator(self, device: torch.device) -> torch.Generator:
        """The one of a device."""
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run an operation of torch; if it draws, by the generator of its device."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in operation.tags or kwargs.get("generator") is not None:
            return operation(*args, **kwargs)
        on = next((arg.device for arg in args if isinstance(arg, Tensor)), torch.device(kwargs.get("device") or "cpu"))
        if on.type == "meta":  # nothing is drawn where there are no numbers
            return operation(*args, **kwargs)
        packet = operation.overloadpacket
        if _takes_generator(packet):
            return packet(*args, **kwargs | {"generator": self.generator(on)})
        if packet in BY_HAND:
            return BY_HAND[packet](self.generator(on), *args, **kwargs)
        if _drops_nothing(operation, args, kwargs):
            return operation(*args, **kwargs)
        raise SqImputerError(
            f"the model draws by '{packet}', which takes no generator: its fits could not be repeated. Use "
            "torch.nn.functional.dropout, or draw what it needs by torch.rand or torch.randn."
        )


@cache
def _takes_generator(packet) -> bool:
    overloads = (getattr(packet, name) for name in packet.overloads())
    return any(argument.name == "generator" for one in overloads for argument in one._schema.arguments)


def _drops_nothing(operation, args, kwargs) -> bool:
    """Whether an operation, such as attention, only could draw: its share of dropout is 0."""
    names = [argument.name for argument in operation._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    shares = [given.get(name, 0) for name in ("dropout_p", "dropout") if name in names]
    return bool(shares) and not any(shares)


def _rand_like(generator, x, **how):
    return aten.empty_like(x, **how).uniform_(generator=generator)


def _randn_like(generator, x, **how):
    return aten.empty_like(x, **how).normal_(generator=generator)


def _randint_like(generator, x, *bounds, **how):
    low, high = bounds if len(bounds) > 1 else (0, *bounds)
    return aten.empty_like(x, **how).random_(low, high, generator=generator)


def _dropout(generator, x, p, train=True):
    """Dropout as GPUs have it: what is left, and the mask."""
    share = p if train or train is None else 0.0
    mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - share, generator=generator)
    return x * mask * (1 / (1 - share) if share < 1 else 0.0), mask


BY_HAND = {
    aten.rand_like: _rand_like,
    aten.randn_like: _randn_like,
    aten.randint_like: _randint_like,
    aten.native_dropout: _dropout,
}
