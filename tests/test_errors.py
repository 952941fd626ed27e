from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.errors import BadInput, MissingKey, SqImputerError, check_frame, check_number, listed, named


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


@pytest.mark.parametrize("value", [2, np.int64(2), 2.5, np.float32(3), 10], ids=repr)
def test_numbers_of_python_and_numpy_are_numbers(value):
    check_number("n", value, 2, 10)


@pytest.mark.parametrize("value", [1, 11, np.nan, np.inf, "2", None, True, np.bool_(True), [2], 2 + 0j], ids=repr)
def test_what_is_no_number_in_the_range_is_named(value):
    with pytest.raises(BadInput, match=r"^n is .*; expected a number from 2 to 10\.$"):
        check_number("n", value, 2, 10)


@pytest.mark.parametrize("value", [2.0, np.float64(2), "2", True], ids=repr)
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(BadInput, match=r"; expected a whole number, 0 or more\.$"):
        check_number("n", value, whole=True)


def test_one_name_or_several_become_a_list():
    assert named("genes", "AB") == ["AB"] and named("genes", ("A", "B")) == ["A", "B"]
    with pytest.raises(BadInput, match="genes is 3; expected a name or a list of names"):
        named("genes", 3)


def test_a_table_of_scores_has_columns():
    with pytest.raises(BadInput, match=r"table is a dict; expected a DataFrame, as tl\.score returns it"):
        check_frame({}, "tl.score")
