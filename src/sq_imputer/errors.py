"""One error family: every message names the element, what was found, what was expected, and the fix."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real


class SqImputerError(Exception):
    """Base of every error that sq_imputer raises on purpose. Its message is one line, whatever the names in it hold."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg) if isinstance(arg, str) else arg for arg in args))


class BadInput(SqImputerError, ValueError):
    """An input has the wrong content: channels, coordinates, counts, units, genes."""


class MissingKey(SqImputerError, KeyError):
    """A name was asked for that is not there, or several fit and none was named."""

    def __str__(self) -> str:
        """The message itself; `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


class StoreError(SqImputerError, OSError):
    """A store could not be written: no space, no permission, another writer. It is as it was."""


class OutOfMemory(SqImputerError, MemoryError):
    """The device has no memory left for even one row."""


class Cancelled(SqImputerError):
    """Work was ended by who asked for it; nothing has been written."""


def printable(text: object) -> str:
    """Text to be shown: names come from files, and may hold line breaks or what a terminal takes for a command."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def listed(items: Iterable, most: int = 5) -> str:
    """Items as `'a', 'b', ... (12 in all)`, for messages that must stay short."""
    items = list(items)
    shown = ", ".join(repr(str(item)) for item in items[:most])
    return f"{shown}, ... ({len(items)} in all)" if len(items) > most else shown or "none"


def check_number(name: str, value, least: float = 0, most: float = math.inf, *, whole: bool = False) -> None:
    """Check that an argument, which users call `name`, is a finite number in a range, and whole if asked for.

    Raises
    ------
    BadInput
        If it is not.
    """
    right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not least <= value <= most:
        bound = f", {least} or more" if most == math.inf else f" from {least} to {most}"
        raise BadInput(f"{name} is {value!r}; expected a {'whole ' * whole}number{bound}.")


def named(argument: str, names) -> list[str]:
    """One name or several, as a list; an error if they are none."""
    if isinstance(names, str):
        return [names]
    if not isinstance(names, Iterable):
        raise BadInput(f"{argument} is {names!r}; expected a name or a list of names.")
    return list(names)


def check_frame(table, maker: str) -> None:
    """Check that scores are a table, as the verb `maker` returns it."""
    if not hasattr(table, "columns"):
        raise BadInput(f"table is a {type(table).__name__}; expected a DataFrame, as {maker} returns it.")
