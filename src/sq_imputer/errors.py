"""One error family: every message names the element, what was found, what was expected, and the fix."""

from __future__ import annotations

from collections.abc import Iterable


class SqImputerError(Exception):
    """Base of every error that sq_imputer raises on purpose."""


class BadInput(SqImputerError, ValueError):
    """An input has the wrong content: channels, coordinates, counts, units, genes."""


class MissingKey(SqImputerError, KeyError):
    """A name was asked for that is not there, or several fit and none was named."""

    def __str__(self) -> str:
        """The message itself; `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


def listed(items: Iterable, most: int = 5) -> str:
    """Items as `'a', 'b', ... (12 in all)`, for messages that must stay short."""
    items = list(items)
    shown = ", ".join(repr(str(item)) for item in items[:most])
    return f"{shown}, ... ({len(items)} in all)" if len(items) > most else shown or "none"
