"""Files that someone made to do harm. Each would leave a canary, an empty file, if what is in it ran; none may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from quick_zarr import *  # noqa: F403

import sq_imputer as sqi


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


@pytest.fixture
def canary(tmp_path) -> Path:
    """The file that would be there if a payload had run."""
    return tmp_path / "canary"


@pytest.fixture
def payload(canary) -> Payload:
    """An object that leaves the canary where it is unpickled."""
    return Payload(canary)


@pytest.fixture
def refused(canary) -> Callable:
    """A function that checks that a call is refused in one line that holds some words, and that nothing ran."""

    def check(call: Callable, *holds: str) -> None:
        with pytest.raises(sqi.SqImputerError) as caught:
            call()
        assert not canary.exists()
        said = str(caught.value)
        assert said.isprintable()
        for words in holds:
            assert words in said

    return check
