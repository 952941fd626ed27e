"""Which device to run on, and how much it takes at a time."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from sq_imputer.errors import BadInput, OutOfMemory, check_number
from sq_imputer.surroundings import check_deterministic

T = TypeVar("T")


def pick_device(device: str = "auto") -> str:
    """The device asked for, or the best one there is for `"auto"`: CUDA, then Apple's, then the CPU.

    Raises
    ------
    BadInput
        If the device is not known or not there, or cannot do what torch was told to.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind, _, number = str(device).partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind, False) or (number and not (number.isdecimal() and int(number) < count)):
        usable = [name for name, is_there in there.items() if is_there]
        raise BadInput(
            f"device '{device}' is not available here; there is {', '.join(usable)}. Pass device='auto' to take the "
            f"best."
        )
    check_deterministic(str(device))
    return str(device)


class BatchSize:
    """Rows that a device takes at a time: halved whenever it is out of memory, and kept for what follows.

    Parameters
    ----------
    rows
        Rows to begin with; `rows` is what fits from then on.
    """

    def __init__(self, rows: int) -> None:
        check_number("batch_size", rows, 1, whole=True)
        self.rows = int(rows)
        self._warned = False

    def halve(self, rows: int, what: str, error: Exception) -> None:
        """Take half of the rows that did not fit, and say so the first time.

        Raises
        ------
        OutOfMemory
            If not even one row fits.
        """
        if rows == 1:
            raise OutOfMemory(
                f"{what} is out of memory with one row at a time: {error}. Use another device, smaller "
                "crops or a smaller model."
            ) from error
        self.rows = rows // 2
        _empty_cache()
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{what} is out of memory with {rows} rows at a time and goes on with {self.rows} or fewer.",
                RuntimeWarning,
                stacklevel=2,
            )

    def pieces(self, batch, step: Callable[..., T], what: str) -> Iterator[T]:
        """`step(part)` of consecutive parts of a batch, each as large as the device takes.

        Parameters
        ----------
        batch
            Anything with a length and slices: rows.
        step
            What is done with a part; called again with less of it when memory runs out.
        what
            Who does it, for messages.
        """
        start = 0
        while start < len(batch):
            part = batch[start : start + self.rows]
            done = self.attempt(lambda part=part: step(part), len(part), what)
            if done is not None:
                yield done
                start += len(part)

    def attempt(self, step: Callable[[], T], rows: int, what: str) -> T | None:
        """What `step` gives, or None if this many rows did not fit: `rows` is then half of them."""
        try:
            return step()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            failed = type(error)(*error.args)  # without the frames, which hold the tensors that fill the memory
        self.halve(rows, what, failed)
        return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no memory left."""
    import torch

    # on Apple's devices and on the CPU torch raises a plain RuntimeError
    said = any(words in str(error) for words in ("out of memory", "can't allocate memory"))
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, RuntimeError) and said)


def _empty_cache() -> None:
    import torch

    gc.collect()  # what refers to itself in a circle keeps its tensors until then
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


@cache
def _openmp():
    """The OpenMP libraries of the process, torch's among them."""
    import torch  # noqa: F401 loads its own
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread of the CPU meanwhile, as far as it is called from this thread of Python.

    For many small steps: torch's threads wait for each other after each of them, which gains little on free cores and
    is ten times slower on shared ones. `torch.set_num_threads` would be the number of threads made later, too, and
    two that set it at once would leave it at 1.
    """
    import torch

    torch.get_num_threads()  # the first call in a thread sets its number
    with _openmp().limit(limits=1):
        yield


@contextmanager
def threads_kept() -> Iterator[None]:
    """Leave torch the number of threads that it had, whatever runs inside.

    A parallel function of numba (0.68, in scanpy's graphs of neighbors) gives OpenMP as many threads as there are
    processors, in spite of OMP_NUM_THREADS: torch's small steps are ten times slower then where processors are shared.
    """
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            _openmp().limit(limits=before)  # stays so: only as a context would it be taken back
