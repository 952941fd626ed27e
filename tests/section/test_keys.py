"""The keys that verbs hand on are the arguments of `Slide.from_sdata`."""

from __future__ import annotations

from inspect import signature

from sq_imputer.section.keys import SlideKeys
from sq_imputer.section.slide import Slide


def test_keys_are_the_arguments_of_the_reader() -> None:
    taken = set(signature(Slide.from_sdata).parameters) - {"sdata", "section"}
    assert set(SlideKeys.__annotations__) == taken
