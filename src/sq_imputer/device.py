"""Which device to run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sq_imputer.errors import BadInput


def pick_device(device: str = "auto") -> str:
    """The device asked for, or the best one there is for `"auto"`: CUDA, then Apple's, then the CPU.

    Raises
    ------
    BadInput
        If the device is not known or not there.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind = str(device).split(":")[0]
    if not there.get(kind, False):
        usable = [name for name, is_there in there.items() if is_there]
        raise BadInput(
            f"device '{device}' is not available here; there is {', '.join(usable)}. Pass device='auto' to take the "
            f"best."
        )
    return str(device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread of the CPU meanwhile.

    For many small steps: torch's threads wait for each other after each of them, which gains little on free cores and
    is ten times slower on shared ones.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
