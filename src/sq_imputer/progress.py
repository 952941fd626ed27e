"""Progress of steps that take a while: a bar in a terminal; elsewhere, notebooks too, a line that says how long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from time import monotonic
from typing import TypeVar

from sq_imputer.errors import printable

T = TypeVar("T")
PATIENCE_S = 1.5
LONG_S = 10.0  # what takes longer is said where there are no bars
FEW = 0.05  # of all steps, which do not tell yet how long the others take
AGAIN_S = 60.0  # what comes again sooner, as in every fold, is not said again
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
_last: dict[str, float] = {}  # when a label was to be said
Listener = Callable[[str, int, int], None]  # told a label, how much is done, and of how much
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def quiet(silent: bool = True) -> Iterator[None]:
    """No bars inside, if asked for; what is quiet around it stays so."""
    token = _quiet.set(_quiet.get() or silent)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def watched(listener: Listener) -> Iterator[None]:
    """Tell a listener of every step inside, in this thread, whether bars are shown or not.

    What the listener raises ends the work at that step, as Ctrl-C would: nothing has been written by then.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@cache
def _console():
    """One for all bars: rich stacks those of nested steps if they share it."""
    from rich.console import Console

    return Console(stderr=True)


def say(text: str, *, shown: bool = True) -> None:
    """One line of what is about to be done, unless bars are not to be shown."""
    if shown and not _quiet.get():
        print(printable(text), file=sys.stderr)


class Bar:
    """A progress bar that shows itself once its steps have taken more than a moment, and leaves nothing behind.

    Without a terminal there is a line instead, once, as soon as the first steps tell that all takes over ten seconds.
    Notebooks get the line too: rich's bars leave empty boxes there, and a warning where ipywidgets is missing.

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
        told = shown and not _quiet.get()
        self.shown = told and _console().is_terminal
        self._to_say = told and not self.shown
        self._start, self._bar, self._task = monotonic(), None, None
        self._first: tuple[float, int] | None = None  # when the first steps ended, and what was done by then
        self._tell = _listener.get()

    def advance(self, size: int = 1, label: str | None = None) -> None:
        """Count a step, and say something new about it."""
        self.done, self.label, now = self.done + size, printable(label or self.label), monotonic()
        if self._tell is not None:
            self._tell(self.label, self.done, self.total)
        if self.shown and self._bar is None and now - self._start > PATIENCE_S:
            self._open()
        if self._to_say and self.done < self.total and now - self._start > PATIENCE_S:
            self._say(now)
        if self._first is None or self.done < FEW / 2 * self.total:
            self._first = now, self.done
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=self.label)

    def _say(self, now: float) -> None:
        """One line, if what is done so far tells that all of it is long.

        The first steps also make ready what the others use: it is waited for a few, unless these are long.
        """
        alone = self._first is None
        if now - self._start <= LONG_S and (alone or self.done < FEW * self.total):
            return
        since, before = self._first or (self._start, 0)
        left = (now - since) * (self.total - self.done) / max(self.done - before, 1)
        if now - self._start + left > LONG_S:
            self._to_say = False
            last = _last.get(self.label, -AGAIN_S)
            _last[self.label] = now + left
            if now - last >= AGAIN_S:
                said = f"{'at most' if alone else 'about'} {_duration(left)} left"
                print(f"{self.label}: {self.done} of {self.total} done, {said}", file=sys.stderr)

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


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


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
