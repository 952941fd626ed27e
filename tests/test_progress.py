from __future__ import annotations

import io

import pytest
from rich.console import Console

from sq_imputer import progress
from sq_imputer.progress import Bar, track

STEPS = [[1, 2], [3], [4, 5, 6]]


@pytest.fixture
def screen(monkeypatch) -> io.StringIO:
    """What a person at a terminal sees; bars appear at once."""
    text = io.StringIO()

    console = Console(file=text, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "_console", lambda: console)
    monkeypatch.setattr(progress, "PATIENCE_S", -1.0)
    return text


def test_the_steps_come_as_they_are():
    assert list(track(iter(STEPS), "crops", 6, size=len)) == STEPS


def test_nothing_is_shown_where_nobody_looks(capsys):
    list(track(STEPS, "crops", 6, size=len))
    assert capsys.readouterr() == ("", "")


def test_a_person_sees_what_is_done_and_how_far_it_is(screen):
    assert list(track(iter(STEPS), "crops of A1", 6, size=len)) == STEPS
    assert "crops of A1" in screen.getvalue() and "6/6" in screen.getvalue()


def test_short_work_shows_no_bar(screen, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_S", 60.0)
    assert list(track(STEPS, "crops", 6, size=len)) == STEPS
    assert "crops" not in screen.getvalue()


def test_a_bar_that_shall_not_be_shown_is_not(screen):
    assert list(track(STEPS, "crops", 6, size=len, shown=False)) == STEPS
    assert screen.getvalue() == ""


def test_a_bar_says_what_is_new(screen):
    bar = Bar("epoch 1", 3)
    bar.advance()
    bar.advance(2, "epoch 2, loss 0.5")
    bar.stop()
    assert bar.done == 3 and "epoch 2, loss 0.5" in screen.getvalue() and "3/3" in screen.getvalue()


def test_bars_of_nested_steps_stand_below_each_other(screen):
    for _ in track(range(2), "folds", 2):
        assert list(track(STEPS, "crops", 6, size=len)) == STEPS
    assert "folds" in screen.getvalue() and "crops" in screen.getvalue()


def test_the_bar_goes_when_the_work_is_left_or_fails(screen):
    steps = track(STEPS, "crops", 6)
    next(steps), next(steps)
    steps.close()

    def failing():
        yield STEPS[0]
        yield STEPS[1]
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        list(track(failing(), "crops", 6))
    assert screen.getvalue().count("\x1b[?25h") == screen.getvalue().count("\x1b[?25l") == 2  # the cursor is back
