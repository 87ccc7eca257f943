"""A part of a source to shards and a report, in this process or in others."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import torch

from catk_sim.datasets.cache import CacheEntry, CacheIndex
from catk_sim.datasets.distinct import distinct
from catk_sim.datasets.errors import DataError, fail
from catk_sim.datasets.parts import Part
from catk_sim.datasets.schema import size_of
from catk_sim.datasets.shard import write_shard
from catk_sim.datasets.whole_file import read_json, write_json
from catk_sim.datatypes import Scenario

REPORTS_NAME = "reports"
"""Folder of the reports, inside the cache that is made."""


class Task(NamedTuple):
    """A part to convert."""

    folder: Path
    number: int
    part: Part
    scenarios_per_shard: int
    skip: bool

    @property
    def report(self) -> Path:
        """The file that says that the part is done."""
        return self.folder / REPORTS_NAME / f"{self.number:05}.json"


@dataclass(frozen=True)
class Report:
    """What became of a part."""

    index: CacheIndex
    places: list[str]
    """Where each scenario of the index was found."""
    skipped: list[str]

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Reads what `write` wrote."""
        index, places, skipped = read_json(path)
        return cls(CacheIndex.from_json(index, str(path)), places, skipped)

    def write(self, path: Path) -> None:
        """Writes the report, which says that the part is done."""
        write_json(path, [self.index.to_json(), self.places, self.skipped])


def convert_parts(
    tasks: Sequence[Task],
    workers: int,
    finished: Callable[[Task, Report], None],
    advance: Callable[[int], object],
) -> None:
    """Converts parts, in other processes if there are several workers.

    Args:
        tasks: The parts.
        workers: How many processes.
        finished: Called for each part when it is done, in any order.
        advance: Called with numbers of scenarios that were converted since.
    """
    if min(workers, len(tasks)) <= 1:
        for task in tasks:
            finished(task, _convert_part(task, advance))
        return
    # Not forked: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_start_worker
    ) as pool:
        futures = {pool.submit(_convert_part, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                finished(futures[future], future.result())
                advance(len(future.result().index.entries))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def die_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()


def _convert_part(task: Task, advance: Callable[[int], object] | None = None) -> Report:
    errors: list[DataError] = []
    on_error = errors.append if task.skip else fail
    places: dict[str, str] = {}
    scenarios = distinct(task.part.read(on_error), places, on_error)
    if advance is not None:
        scenarios = _counted(scenarios, advance)
    index = CacheIndex(shards=[], entries=[])
    while written := _write_next(task, len(index.shards), scenarios):
        index.shards.append(_shard_name(task, len(index.shards)))
        index.entries.extend(written)
    report = Report(index, list(places.values()), [str(error) for error in errors])
    report.write(task.report)
    return report


def _counted(scenarios: Iterator[Scenario], advance: Callable[[int], object]) -> Iterator[Scenario]:
    for scenario in scenarios:
        advance(1)
        yield scenario


def _write_next(task: Task, shard: int, scenarios: Iterator[Scenario]) -> list[CacheEntry]:
    """Writes as many of the next scenarios as a shard takes. They are not held any longer."""
    some = list(islice(scenarios, task.scenarios_per_shard))
    if some:
        write_shard(task.folder / _shard_name(task, shard), some)
    return [
        CacheEntry(one.scenario_id[0], shard, row, size_of(one)) for row, one in enumerate(some)
    ]


def _shard_name(task: Task, shard: int) -> str:
    return f"part-{task.number:05}-{shard:04}.safetensors"
