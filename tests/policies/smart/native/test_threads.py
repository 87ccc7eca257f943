import os
from itertools import pairwise

import pytest
import torch

from policies.smart.native import threads


class Kernels:
    """Notes which rows a kernel was asked for."""

    def __init__(self, result: int = 0) -> None:
        self.calls: list[tuple[int, int]] = []
        self.result = result

    def work(self, *arguments: object) -> int:
        *_, begin, end = arguments
        self.calls.append((begin.value, end.value))  # type: ignore[attr-defined]
        return self.result


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    kernels = Kernels()
    monkeypatch.setattr(threads, "library", lambda: kernels)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    return kernels


def test_little_work_is_done_at_once(kernels: Kernels) -> None:
    threads.run("work", (), 100, cost=1)
    assert kernels.calls == [(0, 100)]


def test_much_work_is_divided_evenly(kernels: Kernels) -> None:
    threads.run("work", (), 100, cost=threads._WORTHWHILE)
    assert sorted(kernels.calls) == [(0, 33), (33, 66), (66, 100)]


def test_a_long_row_counts_as_much_as_many_short_ones(kernels: Kernels) -> None:
    starts = torch.tensor([0, 60, *range(61, 121)])
    threads.run("work", (), starts, cost=threads._WORTHWHILE)
    calls = sorted(kernels.calls)
    assert (calls[0][0], calls[-1][1]) == (0, 61)
    assert all(end == begin for (_, end), (begin, _) in pairwise(calls))
    assert max(int(starts[end] - starts[begin]) for begin, end in calls) == 60


def test_lack_of_memory_is_told(kernels: Kernels) -> None:
    kernels.result = 1
    with pytest.raises(MemoryError, match="'work'"):
        threads.run("work", (), 1, cost=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_has_threads_of_its_own(kernels: Kernels) -> None:
    threads.run("work", (), 100, cost=threads._WORTHWHILE)
    child = os.fork()
    if not child:
        threads.run("work", (), 100, cost=threads._WORTHWHILE)
        os._exit(len(kernels.calls))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
