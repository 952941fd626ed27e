"""Work in a thread of its own: how far it is, ended when asked to, and its errors as words."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sq_imputer.errors import Cancelled, SqImputerError, printable
from sq_imputer.progress import quiet, watched

_heard: dict[int, list[str]] = {}  # warnings by thread, of the jobs that run
_OF_CODE = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)  # which libraries tell who calls them
_gate = threading.Lock()
_before: list[Callable] = []  # how warnings were shown before the first of these jobs


class Step(NamedTuple):
    """What is being done, and how much of it is done."""

    label: str = ""
    done: int = 0
    total: int = 0


class Job:
    """A call that runs in a thread; whoever waits for it looks at its fields, from any thread.

    Parameters
    ----------
    work
        The call, without arguments. What it tracks (:func:`sq_imputer.progress.track`) is its progress.
    name
        What is done, in a few words.
    """

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self.name, self.step, self.result = name, Step(), None
        self.error, self.cancelled, self.warnings = "", False, []
        self._work, self._stop = work, threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sq_imputer: {name}", daemon=True)

    def start(self) -> Job:
        """Begin; the job itself."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """End at the next step. What is already being written is written whole."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended, within so many seconds if said."""
        self._thread.join(seconds)
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether it has been started and does not run any more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def ok(self) -> bool:
        """Whether it has ended with a result."""
        return self.ended and not self.error and not self.cancelled

    def _told(self, label: str, done: int, total: int) -> None:
        self.step = Step(label, done, total)
        if self._stop.is_set():
            raise Cancelled(f"{self.name} was cancelled.")

    def _run(self) -> None:
        with _hearing(self.warnings), quiet(), watched(self._told):
            try:
                self.result = self._work()
            except Cancelled:
                self.cancelled = True
            except Exception as error:  # noqa: BLE001 of any kind: a thread has nobody above it to tell
                self.error = words(error)


def words(error: BaseException) -> str:
    """An error as a person in front of a window reads it: ours as it is; of another its kind, and where to look."""
    if isinstance(error, SqImputerError):
        return str(error)
    logging.getLogger(__name__).error("an error that sq_imputer does not know", exc_info=error)
    return (
        f"{type(error).__name__}: {printable(error)}. This is not an error that sq_imputer knows; the log of this "
        "process has its traceback. Please report it with that."
    )


@contextmanager
def _hearing(heard: list[str]) -> Iterator[None]:
    """Put the warnings of this thread into a list. Those of other threads are shown as ever."""
    me = threading.get_ident()
    with _gate:
        if not _heard:
            _before.append(warnings.showwarning)
            warnings.showwarning = _show
        _heard[me] = heard
    try:
        yield
    finally:
        with _gate:
            del _heard[me]
            if not _heard:
                shown = _before.pop()
                if warnings.showwarning is _show:  # else somebody has set another meanwhile
                    warnings.showwarning = shown


def _show(message, category, filename, lineno, file=None, line=None) -> None:
    heard = None if issubclass(category, _OF_CODE) else _heard.get(threading.get_ident())
    if heard is not None:
        if printable(message) not in heard:
            heard.append(printable(message))
    elif _before:
        _before[-1](message, category, filename, lineno, file, line)
