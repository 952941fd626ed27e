"""What the fields of a config may be, said beside them and checked in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any

from sq_imputer.errors import BadInput, listed


@dataclass(frozen=True)
class Range:
    """What a field may be: a number from `least` to `most`, beyond `above` and `below`, not `but`; or a choice."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    but: float = math.nan
    choices: tuple[str, ...] = ()
    whole: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise `BadInput`, with the value and what is expected, unless it lies in the range."""
        if self.choices:
            if value not in self.choices:
                raise BadInput(f"{name} is {value!r}; expected one of {listed(self.choices)}.")
            return
        number = isinstance(value, Integral if self.whole else Real) and not isinstance(value, bool)
        if not (number and self.least <= value <= self.most and self.above < value < self.below and value != self.but):
            raise BadInput(f"{name} is {value!r}; expected a {'whole ' * self.whole}number {self}.")

    def __str__(self) -> str:
        if math.isfinite(self.but):
            return f"of {self.least:g} or more, but not {self.but:g}"
        if math.isfinite(self.above):
            return f"above {self.above:g}"
        if math.isfinite(self.below):
            return f"from {self.least:g} to below {self.below:g}"
        return f"from {self.least:g} to {self.most:g}" if math.isfinite(self.most) else f"of {self.least:g} or more"


def within(
    default: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above=-math.inf,
    below=math.inf,
    but=math.nan,
    whole=None,
) -> Any:
    """A field of a config that is a number of a range; None is allowed where it is the default.

    Parameters
    ----------
    default
        What the field is if left out; of a tuple, every item lies in the range.
    least, most
        Smallest and largest number.
    above, below
        Numbers that the field is larger and smaller than.
    but
        A number that it is not.
    whole
        Whether it is a whole number; if left out, as the default is.
    """
    whole = isinstance(default, int) if whole is None else whole
    return field(default=default, metadata={"range": Range(least, most, above, below, but, whole=whole)})


def one_of(default: str, choices: Sequence[str]) -> Any:
    """A field of a config that is one of some words."""
    return field(default=default, metadata={"range": Range(choices=tuple(choices))})


# What the training harness reads from any config; a range beside the field goes before it.
HARNESS = {
    "lr": Range(0),
    "weight_decay": Range(0),
    "epochs": Range(1, whole=True),
    "batch_size": Range(1, whole=True),
    "validation": Range(0, below=1),
    "calibration": Range(0, but=1, whole=True),
    "dropout": Range(0, below=1),
}


def check_ranges(config: Any) -> None:
    """Raise `BadInput` if a field of a config, a plug-in's included, is not what it may be."""
    owner = type(config)
    place = f"{owner.__module__.rsplit('.')[-1]}.{owner.__qualname__}"
    for one in fields(config):
        allowed, value = one.metadata.get("range", HARNESS.get(one.name)), getattr(config, one.name)
        if allowed is None or (value is None and one.default is None):
            continue
        for item in value if isinstance(value, tuple) and isinstance(one.default, tuple) else (value,):
            allowed.check(f"{place}.{one.name}", item)
