"""Calls of somebody else's code: timed, limited, and told about when they fail."""

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a call did not give what was wanted.

    Attributes:
        reason: In one line.
        details: The traceback, if there is one.
    """

    reason: str
    details: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Problem":
        """Tells what was raised, and where."""
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        text = " ".join(str(error).split())
        name = type(error).__name__
        return cls(
            reason=(f"{name}: {text}" if text else name) + where,
            details="".join(traceback.format_exception(error)),
        )


class OutOfTimeError(BaseException):
    """The call took too long. No `Exception`, so that the code that is called does not catch it."""


def timed_call(
    function: Callable[[], Any], limit: float | None = None
) -> tuple[Any | Problem, float]:
    """Calls a function. Returns what it returned, or the problem; and how long that took (s).

    A call that takes longer than the limit is interrupted as soon as Python can, in the main thread
    of a process. In other threads it is let finish. Both are a problem.
    """
    start = time.perf_counter()
    try:
        with _alarm(limit):
            result = function()
    except OutOfTimeError:
        result = None  # The time tells.
    except (Exception, SystemExit) as error:
        result = Problem.of(error)
    seconds = time.perf_counter() - start
    if limit is not None and seconds > limit:
        result = Problem(reason=f"took {seconds:.3g} s, and may take {limit:g} s")
    return result, seconds


@contextmanager
def _alarm(limit: float | None) -> Iterator[None]:
    if limit is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
