from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from sq_imputer.device import BatchSize, one_thread, pick_device, threads_kept
from sq_imputer.errors import BadInput, OutOfMemory


@pytest.fixture
def machine(monkeypatch):
    """A function that decides what the machine has."""

    def has(cuda: bool = False, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
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


def test_what_other_libraries_tell_openmp_does_not_stay():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threads_kept():
            torch.set_num_threads(3)  # as numba does
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_one_thread_is_for_the_thread_alone():
    """Two that run at once, each beginning before the other ends, leave the number for later threads as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    inside, done = Barrier(2), Barrier(2)

    def work(_) -> tuple[int, int]:
        with one_thread():
            inside.wait(timeout=10)
            within = torch.get_num_threads()
            done.wait(timeout=10)
        return within, torch.get_num_threads()

    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(work, range(2))) == [(1, 3), (1, 3)]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


class Card:
    """A device on which at most so many rows fit at a time."""

    def __init__(self, fits: int, error: type[Exception] = torch.OutOfMemoryError, words: str = "out of memory"):
        self.fits, self.error, self.words, self.seen, self.tries = fits, error, words, [], 0

    def __call__(self, rows):
        self.tries += 1
        if len(rows) > self.fits:
            raise self.error(self.words)
        self.seen += list(rows)
        return len(rows)


@pytest.mark.parametrize("fits", [1, 2, 3, 7, 8, 31, 32, 33, 63, 64])
def test_a_batch_is_halved_until_it_fits_and_no_row_is_lost(fits):
    size, card = BatchSize(64), Card(fits)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for start in range(0, 192, 64):
            done = list(size.pieces(range(start, start + 64), card, "the card"))
            assert sum(done) == 64
    assert card.seen == list(range(192))
    assert fits / 2 < size.rows <= fits
    assert card.tries <= 7 + 192 // size.rows
    assert len(said) == (fits < 64)


def test_the_warning_says_who_and_what_to_do():
    with pytest.warns(RuntimeWarning, match=r"the card is out of memory with 64 rows at a time and goes on with 32 or"):
        list(BatchSize(64).pieces(range(64), Card(8), "the card"))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (RuntimeError, "MPS backend out of memory (MPS allocated: 8 GB)"),
        (RuntimeError, "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
        (MemoryError, "Unable to allocate 3 GiB for an array"),
    ],
    ids=["cuda", "apple", "cpu", "numpy"],
)
def test_every_device_says_it_in_its_own_way(error, words):
    size = BatchSize(4)
    with pytest.warns(RuntimeWarning):
        assert sum(size.pieces(range(4), Card(2, error, words), "it")) == 4
    assert size.rows == 2


def test_one_row_that_does_not_fit_is_an_error_with_the_cause():
    with pytest.warns(RuntimeWarning), pytest.raises(OutOfMemory, match="one row at a time") as failed:
        list(BatchSize(2).pieces(range(2), Card(0), "the card"))
    assert isinstance(failed.value, MemoryError)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(BatchSize(2).pieces(range(2), Card(0, RuntimeError, "shapes do not match"), "the card"))


def test_a_batch_size_may_be_of_numpy():
    assert type(BatchSize(np.int64(3)).rows) is int


@pytest.mark.parametrize("rows", [0, -1, 1.5, "64", None, True])
def test_a_batch_size_is_a_positive_whole_number(rows):
    with pytest.raises(BadInput, match="batch_size is .* expected a whole number, 1 or more"):
        BatchSize(rows)
