"""Divides the work of a kernel among as many threads as torch uses."""

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from policies.smart.native.library import library

# Multiplications that take much longer than it takes to wake a thread.
_WORTHWHILE = 2**22
_pool: list[ThreadPoolExecutor] = []


def run(kernel: str, arguments: Sequence[Any], work: Tensor | int, *, cost: int) -> None:
    """Runs a kernel on all rows. It gives back the interpreter's lock meanwhile.

    Args:
        kernel: Works on the rows from one to another, which are its last arguments.
        arguments: The ones before these.
        work: The number of rows; or, if some are more work than others, how much work is before
            each, and in total.
        cost: Multiplications in a unit of work.
    """
    function = getattr(library(), kernel)
    total = int(work[-1]) if isinstance(work, Tensor) else work
    parts = worthwhile(total * cost)
    if parts == 1:
        count = len(work) - 1 if isinstance(work, Tensor) else work
        failed = function(*arguments, ctypes.c_int64(0), ctypes.c_int64(count))
    else:
        if not _pool:
            _pool.append(ThreadPoolExecutor(thread_name_prefix=__name__))
        futures = [
            _pool[0].submit(function, *arguments, ctypes.c_int64(begin), ctypes.c_int64(end))
            for begin, end in pairwise(_bounds(work, total, parts))
        ]
        failed = max(future.result() for future in futures)
    if failed:
        raise MemoryError(f"no memory for the scores of a row in {kernel!r}")


def worthwhile(cost: int) -> int:
    """Tells how many threads some work is for.

    Args:
        cost: Multiplications in all.
    """
    return min(torch.get_num_threads(), max(1, cost // _WORTHWHILE))


def _bounds(work: Tensor | int, total: int, parts: int) -> list[int]:
    goals = [total * part // parts for part in range(parts + 1)]
    if isinstance(work, int):
        return goals
    inner = torch.searchsorted(work, torch.tensor(goals[1:-1], dtype=work.dtype))
    return [0, *inner.tolist(), len(work) - 1]


# A process that is forked has the pool, but none of its threads.
os.register_at_fork(after_in_child=_pool.clear)
