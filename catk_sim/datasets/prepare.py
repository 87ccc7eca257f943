"""Command: makes a cache of scenarios, `python -m catk_sim.datasets.prepare SRC DST`.

On machines that share a disk, `torchrun --nnodes 4 ... -m catk_sim.datasets.prepare SRC DST` deals
the files out.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import tyro
from torch import distributed as dist

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.cache import ScenarioCache
from catk_sim.datasets.conversion import ALONE, SKIPPED_NAME, Conversion, Team, convert
from catk_sim.datasets.sources import ACCEPTED, open_scenarios

SKIPPED = 3
"""Exit code of a cache that is complete but for what was skipped."""

PATIENCE = timedelta(days=7)
"""How long a process that has done its share waits for the others."""


def _num_processors() -> int:
    """Tells how many processors each process of this machine has."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Converts scenarios into a cache. Stopped half-way and started again, it goes on."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """What to convert."""

    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """The folder to make."""

    workers: int = field(default_factory=_num_processors)
    """How many processes read. Under torchrun, for each that it starts."""

    on_error: Literal["raise", "skip"] = "raise"
    """Whether what cannot be read stops everything, or is left out and listed."""

    scenarios_per_shard: int = 64
    """At most so many scenarios go into one file."""

    def __post_init__(self) -> None:
        for name in ("workers", "scenarios_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")


def main(arguments: list[str]) -> int:
    """Runs the command. Returns its exit code."""
    description = f"Converts scenarios into a cache. SRC is {ACCEPTED}."
    config = tyro.cli(
        PrepareConfig,
        args=arguments,
        prog="python -m catk_sim.datasets.prepare",
        description=f"{description} {DEBUG}",
    )
    start = time.perf_counter()
    with _team() as team:
        made = convert(
            open_scenarios(config.source),
            config.destination,
            workers=config.workers,
            on_error=config.on_error,
            scenarios_per_shard=config.scenarios_per_shard,
            show_progress=team.rank == 0,
            team=team,
        )
    if team.rank == 0:
        _report(made, time.perf_counter() - start)
    return SKIPPED if made.skipped else 0


@contextmanager
def _team() -> Iterator[Team]:
    """Meets the other processes of torchrun, if it has started this one."""
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    yield Team(rank=dist.get_rank(), size=dist.get_world_size(), wait=dist.barrier)
    dist.destroy_process_group()


def _report(made: Conversion, seconds: float) -> None:
    sys.stdout.write(f"{made.folder}: {made.num_scenarios} scenarios, {seconds:.1f} s\n")
    report_lacks(ScenarioCache(made.folder).count_lacks())
    if made.skipped:
        sys.stderr.write(f"skipped {len(made.skipped)}, listed in {made.folder / SKIPPED_NAME}:\n")
        sys.stderr.writelines(f"  {reason}\n" for reason in made.skipped)


def report_lacks(lacks: Counter[str]) -> None:
    """Says on standard output what the sources of scenarios do not tell, and of how many."""
    for phrases, count in sorted(lacks.items()):
        if phrases:
            sys.stdout.write(f"not told by the source of {count}: {phrases}\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
