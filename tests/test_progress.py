from __future__ import annotations

import io

import pytest
from rich.console import Console

from sq_imputer import progress
from sq_imputer.errors import Cancelled
from sq_imputer.progress import Bar, quiet, track, watched

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


@pytest.fixture
def work(monkeypatch):
    """Goes through tracked steps, each of which takes as many seconds as it is told."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_last", {})

    def through(n: int, seconds: float, label: str = "crops of A1", **how) -> None:
        for _ in track(range(n), label, n, **how):
            now[0] += seconds

    return through


def test_long_work_is_said_once_where_there_is_no_terminal(work, capsys):
    work(100, 3.0)
    assert capsys.readouterr() == ("", "crops of A1: 4 of 100 done, about 5 min left\n")


def test_first_steps_which_make_ready_what_others_use_do_not_tell_how_long_they_take(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    for step in track(range(1000), "warming up", 1000):
        now[0] += 4.0 if step < 2 else 0.0112
    assert capsys.readouterr().err == "warming up: 50 of 1000 done, about 11 s left\n"
    for step in track(range(5), "slow from the first", 5):
        now[0] += 20.0 if step == 0 else 1.0
    assert capsys.readouterr().err == "slow from the first: 1 of 5 done, at most 80 s left\n"


def test_what_comes_in_every_fold_is_said_once_and_later_again(work, capsys):
    for pause in (5.0, 5.0, 100.0, 5.0):
        work(10, 3.0, "penalty")
        work(1, pause, "something else")
    assert capsys.readouterr().err == 2 * "penalty: 2 of 10 done, about 24 s left\n"


@pytest.mark.parametrize(("n", "seconds"), [(5, 1.9), (1000, 0.009), (1, 60.0)])
def test_work_of_ten_seconds_or_of_one_step_is_not_said(work, capsys, n, seconds):
    work(n, seconds)
    assert capsys.readouterr() == ("", "")


def test_long_work_that_shall_be_silent_is(work, capsys):
    work(100, 3.0, shown=False)
    with progress.quiet():
        work(100, 3.0)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_the_line_and_no_bar(work, capsys, monkeypatch):
    console = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(progress, "_console", lambda: console)
    work(100, 3.0)
    assert "about 5 min left" in capsys.readouterr().err
    assert console.file.getvalue() == ""


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


def test_a_listener_is_told_of_every_step_even_where_bars_are_not_shown():
    told = []
    with watched(lambda *step: told.append(step)), quiet():
        list(track(STEPS, "crops", 6, size=len))
    list(track(STEPS, "others", 6, size=len))
    assert told == [("crops", 2, 6), ("crops", 3, 6), ("crops", 6, 6)]


def test_what_a_listener_raises_ends_the_work_at_that_step():
    def enough(label, done, total):
        if done >= 3:
            raise Cancelled("enough")

    seen = []
    with pytest.raises(Cancelled, match="enough"), watched(enough):
        for step in track(STEPS, "crops", 6, size=len):
            seen.append(step)
    assert seen == STEPS[:2]
