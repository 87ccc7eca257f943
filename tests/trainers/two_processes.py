"""Two processes that compute together, for tests: what `torchrun` starts, without its seconds."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

SECONDS = 120.0
"""How long a call may take."""


class Outcome(NamedTuple):
    """What a call came to in a process: a result, or the traceback of its error."""

    result: Any
    error: str


class TwoProcesses:
    """Two processes of ranks 0 and 1, that meet by a file.

    Args:
        folder: Where the file goes.
    """

    def __init__(self, folder: Path) -> None:
        # Not forked: tests have threads.
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes: list[Any] = []
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, folder), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Calls a function in both, and returns both results."""
        outcomes = self.outcomes(function, *args)
        errors = [outcome.error for outcome in outcomes if outcome.error]
        assert not errors, "\n".join(errors)
        return [outcome.result for outcome in outcomes]

    def outcomes(self, function: Callable[..., Any], *args: Any) -> list[Outcome]:
        """Calls a function in both, and returns what it came to in each."""
        for end in self._ends:
            end.send((function, args))
        outcomes: dict[int, Outcome] = {}
        while len(outcomes) < 2:
            ready = wait([end for i, end in enumerate(self._ends) if i not in outcomes], SECONDS)
            assert ready, f"no answer from either, after {outcomes}"
            for end in ready:
                assert isinstance(end, Connection)
                outcomes[self._ends.index(end)] = end.recv()
        return [outcomes[0], outcomes[1]]

    def close(self) -> None:
        """Ends both."""
        for process, end in zip(self._processes, self._ends, strict=True):
            end.close()
            process.kill()
            process.join()
            process.close()


def _serve(end: Connection, rank: int, folder: Path) -> None:
    # What they print is nobody's concern.
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=SECONDS),
    )
    while True:
        function, args = end.recv()
        try:
            outcome = Outcome(function(*args), "")
        except BaseException:
            outcome = Outcome(None, traceback.format_exc())
        end.send(outcome)
