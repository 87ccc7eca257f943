import signal
import threading
import time
from typing import Any

import pytest

from catk_sim.planning.calls import Problem, timed_call


def test_a_call_gives_its_result_and_its_time() -> None:
    result, seconds = timed_call(lambda: 7, 10.0)
    assert result == 7
    assert 0 <= seconds < 10


def test_what_is_raised_is_a_problem_in_one_line() -> None:
    def fail() -> None:
        raise ValueError("one\ntwo")

    problem, _ = timed_call(fail)
    assert isinstance(problem, Problem)
    assert problem.reason.startswith("ValueError: one two (test_calls.py:")
    assert "one\ntwo" in problem.details
    assert "in fail" in problem.details


def test_an_interruption_by_the_user_is_none() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timed_call(interrupt)


def test_an_endless_call_ends() -> None:
    def endless() -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    problem, seconds = timed_call(endless, 0.05)
    assert isinstance(problem, Problem)
    assert problem.reason.endswith("and may take 0.05 s")
    assert seconds > 0.05


def test_a_call_that_hides_its_interruption_is_found_out() -> None:
    def hide() -> str:
        try:
            time.sleep(5)
        except BaseException:
            time.sleep(0.01)
        return "done"

    problem, _ = timed_call(hide, 0.05)
    assert isinstance(problem, Problem)


def test_in_other_threads_a_long_call_is_found_out_afterwards() -> None:
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(timed_call(lambda: time.sleep(0.05), 0.01))
    )
    thread.start()
    thread.join()
    problem, _ = results[0]
    assert isinstance(problem, Problem)
    assert "may take 0.01 s" in problem.reason


def test_the_alarm_is_left_as_it_was() -> None:
    before = signal.getsignal(signal.SIGALRM)
    timed_call(lambda: None, 5.0)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
