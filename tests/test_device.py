from __future__ import annotations

import pytest
import torch

from sq_imputer.device import one_thread, pick_device
from sq_imputer.errors import BadInput


@pytest.fixture
def machine(monkeypatch):
    """A function that decides what the machine has."""

    def has(cuda: bool = False, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("there", "best"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
    ids=["cpu", "apple", "cuda", "both"],
)
def test_the_best_device_is_taken(machine, there, best):
    machine(**there)
    assert pick_device() == pick_device("auto") == best


def test_a_device_that_is_named_is_taken(machine):
    machine(cuda=True)
    assert pick_device("cpu") == "cpu"
    assert pick_device("cuda:1") == "cuda:1"
    assert pick_device(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu"])
def test_a_device_that_is_not_there_is_answered_with_those_that_are(machine, name):
    machine()
    with pytest.raises(BadInput, match=f"device '{name}' is not available here; there is cpu. Pass device='auto'"):
        pick_device(name)


@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_is_for_the_moment_only(fails):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(RuntimeError) if fails else one_thread(), one_thread():
            assert torch.get_num_threads() == 1
            if fails:
                raise RuntimeError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
