"""What torch was told elsewhere in the process must not reach our numbers, and stays as it was told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from sq_imputer.errors import BadInput

KINDS = ("cpu", "cuda", "mps")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Run as if torch had just been imported: no autocast, no inference mode, with gradients, on the CPU.

    These are settings of a thread, and are put aside in this thread alone. The default type belongs to the process: to
    change it would change what other threads compute.

    Raises
    ------
    BadInput
        If torch's default type is not float32.
    """
    import torch

    if torch.get_default_dtype() != torch.float32:
        raise BadInput(
            f"torch's default type is {torch.get_default_dtype()}, with which models and encoders would give other "
            "numbers. Call torch.set_default_dtype(torch.float32) first; your own tensors can name their type instead."
        )
    with ExitStack() as aside:
        for kind in KINDS:
            if torch.is_autocast_enabled(kind):
                aside.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            aside.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            aside.enter_context(torch.inference_mode(False))
        aside.enter_context(torch.enable_grad())
        yield


def check_deterministic(device: str) -> None:
    """Raise `BadInput` if torch was told to be deterministic, and would stop in the middle on this device."""
    import torch

    if not device.startswith("cuda") or not torch.are_deterministic_algorithms_enabled():
        return
    if not torch.is_deterministic_algorithms_warn_only_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        raise BadInput(
            f"torch uses deterministic algorithms only, which '{device}' has if the environment says so before Python "
            "starts: CUBLAS_WORKSPACE_CONFIG=:4096:8. Set it, pass device='cpu', or call "
            "torch.use_deterministic_algorithms(False)."
        )
