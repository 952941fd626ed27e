from __future__ import annotations

import threading
import warnings

import pytest

from sq_imputer.errors import BadInput
from sq_imputer.progress import track
from sq_imputer.widget._job import Job, Step


def test_a_job_gives_its_result_and_how_far_it_was():
    job = Job(lambda: sum(track([1, 2, 3], "adding", 3)), "a sum").start()
    assert job.wait(10) and job.ok
    assert (job.result, job.step) == (6, Step("adding", 3, 3))


def test_errors_of_ours_are_their_words():
    def work():
        raise BadInput("genes is 0; expected 1 or more.")

    job = Job(work, "work").start()
    assert job.wait(10) and not job.ok
    assert job.error == "genes is 0; expected 1 or more."


def test_other_errors_name_their_kind_and_the_next_step_and_are_logged(caplog):
    job = Job(lambda: {}["x"], "work").start()
    assert job.wait(10)
    assert job.error.startswith("KeyError: 'x'.") and "report it" in job.error
    assert caplog.records[0].exc_info[0] is KeyError


def test_a_cancelled_job_stops_at_its_next_step():
    reached, goes_on, done = threading.Event(), threading.Event(), []

    def work():
        for step in track(range(5), "steps", 5):
            done.append(step)
            if step == 1:
                reached.set()
                goes_on.wait(10)

    job = Job(work, "work").start()
    assert reached.wait(10)
    job.cancel()
    goes_on.set()
    assert job.wait(10)
    assert job.cancelled and not job.ok and not job.error and done == [0, 1]


def test_warnings_of_a_job_are_its_own_and_those_of_other_threads_are_not():
    reached, goes_on = threading.Event(), threading.Event()

    def work():
        warnings.warn("few spots", UserWarning, stacklevel=1)
        warnings.warn("an option of a library goes", DeprecationWarning, stacklevel=1)
        reached.set()
        goes_on.wait(10)

    with pytest.warns(UserWarning, match="from elsewhere"):
        warnings.simplefilter("always")
        job = Job(work, "work").start()
        assert reached.wait(10)
        warnings.warn("from elsewhere", UserWarning, stacklevel=1)
        goes_on.set()
        assert job.wait(10)
    assert job.warnings == ["few spots"]
