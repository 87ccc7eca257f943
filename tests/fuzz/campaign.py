"""Runs damaged inputs through readers."""

import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.targets import Target


@dataclass
class Outcome:
    """What became of the inputs of a target.

    Attributes:
        counts: How often each error came, by its name; "read" if none did.
        faults: The seed of each input that raised what it must not, and the traceback.
        slowest: The longest time that an input took (s).
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0


class TookTooLongError(Exception):
    """An input took longer than it may."""


def run(target: Target, seeds: Sequence[int], *, limit_seconds: int = 0) -> Outcome:
    """Reads an input for each seed.

    Args:
        target: What reads.
        seeds: Each makes an input; the same one always.
        limit_seconds: How long an input may take; 0 for any time.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            damaged = target.make(Random(f"{target.name} {seed}"))
            start = time.perf_counter()
            try:
                with _limited(limit_seconds):
                    target.read(damaged, Path(folder))
                kind = "read"
            except Exception as error:
                kind = type(error).__name__
                # Exactly these: a subclass comes from someone else's code.
                if type(error) not in target.allowed:
                    outcome.faults[seed] = traceback.format_exc(limit=-4)
            outcome.counts[kind] += 1
            outcome.slowest = max(outcome.slowest, time.perf_counter() - start)
    return outcome


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLongError(f"longer than {seconds} s")

    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
