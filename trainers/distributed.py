"""Several processes that train or evaluate together, started by `torchrun`.

torchrun --nproc-per-node 8 -m trainers.catk PRESET ...
torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST -m trainers.bc ...

Plain torch (`DistributedDataParallel`, `all_reduce`) is all that this takes; Lightning Fabric would
add a dependency and a second way to launch and to save, to spare the few lines that follow.

Each process has a rank, from 0 to the world size. Rank 0 is the main process: it alone writes and
prints. A process that was not launched so is a world of its own, and every function here then does
the obvious. All processes read and write the same folders, so nodes need a shared disk.
"""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed as dist

Item = TypeVar("Item")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others, who may be preparing data."""


def join(device: torch.device) -> None:
    """Meets the other processes of `torchrun`, if it has started this one and they have not met.

    Args:
        device: Where this process computes. On GPUs, gradients travel by NCCL.
    """
    if dist.is_initialized() or not dist.is_torchelastic_launched():
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)


def leave() -> None:
    """Parts from the others, after the last word between them.

    Not for a process that fails: it ends without waiting for anyone, and the launcher ends the
    others.
    """
    if dist.is_initialized():
        wait_for_all()
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Returns the device for this process: of the GPUs of a machine each process has its own.

    Raises:
        ValueError: Several processes of a machine would share a GPU.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda" or processes == 1:
        return device
    if device.index is not None:
        raise ValueError(
            f"wanted device cuda, a GPU for each of the {processes} processes, got {device}"
        )
    if processes > torch.cuda.device_count():
        raise ValueError(
            f"wanted a GPU for each of the {processes} processes on this machine, got "
            f"{torch.cuda.device_count()}"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def rank() -> int:
    """Tells which of the processes this is."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Tells how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Tells whether this is the process that writes and prints."""
    return rank() == 0


def share(items: Sequence[Item]) -> list[Item]:
    """Returns the items that fall to this process, when they are dealt out one by one."""
    return list(items[rank() :: world_size()])


def gather_shares(results: Sequence[Item]) -> list[Item]:
    """Collects what every process made of the items of its `share`, in the order of all items.

    Every process must call it and gets everything. Results travel as pickles: pass tensors that are
    on the CPU.
    """
    size = world_size()
    if size == 1:
        return list(results)
    shares: list[list[Item]] = [[] for _ in range(size)]
    dist.all_gather_object(shares, list(results))
    total = sum(map(len, shares))
    return [shares[index % size][index // size] for index in range(total)]


def sum_over_ranks(numbers: Sequence[float]) -> list[float]:
    """Adds numbers up over all processes, each of which must call it and gets the sums."""
    if world_size() == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return total.tolist()


def wait_for_all() -> None:
    """Returns when every process has called it."""
    sum_over_ranks([0.0])


def from_main(function: Callable[[], Item]) -> Item:
    """Calls a function in the main process alone, and returns its result in all.

    Where it fails, the error is the main process's to tell. The others end quietly.
    """
    if world_size() == 1:
        return function()
    answer: list[Any] = [False, None]
    if is_main():
        try:
            answer = [True, function()]
        finally:
            dist.broadcast_object_list(answer)
    else:
        dist.broadcast_object_list(answer)
    done, result = answer
    if not done:
        sys.exit(2)
    return result
