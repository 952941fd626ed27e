"""Progress bars that appear only where a person is looking, and only for steps that take a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from time import monotonic
from typing import TypeVar

from sq_imputer.errors import printable

T = TypeVar("T")
PATIENCE_S = 1.5
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet(silent: bool = True) -> Iterator[None]:
    """No bars inside, if asked for; what is quiet around it stays so."""
    token = _quiet.set(_quiet.get() or silent)
    try:
        yield
    finally:
        _quiet.reset(token)


@cache
def _console():
    """One for all bars: rich stacks those of nested steps if they share it."""
    from rich.console import Console

    return Console(stderr=True)


class Bar:
    """A progress bar that shows itself once its steps have taken more than a moment, and leaves nothing behind.

    Parameters
    ----------
    label
        What the bar says.
    total
        Sum of the sizes of all steps.
    shown
        False: never.
    """

    def __init__(self, label: str, total: int, *, shown: bool = True) -> None:
        self.label, self.total, self.done = printable(label), total, 0
        self.shown = shown and not _quiet.get() and (_console().is_terminal or _console().is_jupyter)
        self._start, self._bar, self._task = monotonic(), None, None

    def advance(self, size: int = 1, label: str | None = None) -> None:
        """Count a step, and say something new about it."""
        self.done, self.label = self.done + size, printable(label or self.label)
        if self.shown and self._bar is None and monotonic() - self._start > PATIENCE_S:
            self._open()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=self.label)

    def _open(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=_console(), transient=True)
        self._task = self._bar.add_task(self.label, total=self.total)
        self._bar.start()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def track(steps: Iterable[T], label: str, total: int, size=lambda step: 1, *, shown: bool = True) -> Iterator[T]:
    """The steps themselves, with a rich progress bar once they have taken more than a moment.

    Parameters
    ----------
    steps
        What is iterated.
    label
        What the bar says.
    total
        Sum of the sizes of all steps.
    size
        Size of one step.
    shown
        False: never a bar.
    """
    bar = Bar(label, total, shown=shown)
    try:
        for step in steps:
            yield step
            bar.advance(size(step))
    finally:
        bar.stop()
