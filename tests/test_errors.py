from __future__ import annotations

import pytest

from sq_imputer.errors import BadInput, MissingKey, SqImputerError, listed


@pytest.mark.parametrize(("kind", "python"), [(BadInput, ValueError), (MissingKey, KeyError)])
def test_errors_are_of_one_family_and_of_python_s(kind, python):
    assert issubclass(kind, SqImputerError) and issubclass(kind, python)


@pytest.mark.parametrize("kind", [BadInput, MissingKey])
def test_the_message_is_shown_as_it_was_written(kind):
    assert str(kind("no image 'HE'; sdata has 'he'.")) == "no image 'HE'; sdata has 'he'."


def test_an_error_without_a_message_has_none():
    assert str(MissingKey()) == ""


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "none"),
        (["a"], "'a'"),
        ([3, "b"], "'3', 'b'"),
        ("abcde", "'a', 'b', 'c', 'd', 'e'"),
        (iter("abcdef"), "'a', 'b', 'c', 'd', 'e', ... (6 in all)"),
        ({"x": 1, "y": 2}, "'x', 'y'"),
    ],
    ids=["none", "one", "mixed", "as many as fit", "more", "keys"],
)
def test_items_are_listed_briefly(items, text):
    assert listed(items) == text


def test_how_many_are_listed_can_be_said():
    assert listed("abc", 2) == "'a', 'b', ... (3 in all)"
