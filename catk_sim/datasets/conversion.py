"""A source of scenarios to a cache: in parallel, and restartable at any moment.

The cache's folder grows in this order, each file whole or absent: `job.json`, which says what is
converted; the shards of a part of the source, then the part's report in `reports/`; and when all
reports are there, `skipped.json` and `index.json`. A conversion that is started again redoes the
parts that have no report. Every file depends on the job alone, so it comes out the same.

A team of processes, of several machines that share the folder, deals out the parts.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from catk_sim.datasets.cache import INDEX_NAME, JOB_NAME, CacheIndex
from catk_sim.datasets.distinct import is_first
from catk_sim.datasets.errors import DataError, fail
from catk_sim.datasets.part_conversion import REPORTS_NAME, Report, Task, convert_parts
from catk_sim.datasets.shard import VERSION
from catk_sim.datasets.sources import Source
from catk_sim.datasets.whole_file import UNFINISHED_SUFFIX, read_json, write_json

SKIPPED_NAME = "skipped.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: The cache.
        num_scenarios: How many scenarios it holds.
        skipped: What was left out and why, in the order of the source.
    """

    folder: Path
    num_scenarios: int
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class Team:
    """The processes that make a cache together.

    Attributes:
        rank: Which of them this is, from 0. The first claims the folder and finishes the cache.
        size: How many they are.
        wait: Returns when all have called it.
    """

    rank: int
    size: int
    wait: Callable[[], object]


ALONE = Team(rank=0, size=1, wait=lambda: None)


class _Job(NamedTuple):
    """What the bytes of a cache depend on. Its fields are named in errors."""

    format_version: int
    format: str
    data: str
    code: str
    scenarios_per_shard: int


def convert(
    source: Source,
    folder: str | Path,
    *,
    workers: int = 1,
    on_error: Literal["raise", "skip"] = "raise",
    scenarios_per_shard: int = 64,
    show_progress: bool = False,
    team: Team = ALONE,
) -> Conversion:
    """Makes a cache of a source, or finishes one that was begun.

    Waits while another process converts into the same folder.

    Args:
        source: What to convert. Its `on_error` is not asked.
        folder: A new or empty folder, or one where a conversion of the same source was started.
        workers: How many processes read for this one.
        on_error: Whether what cannot be read, and an id that comes again, stops the conversion or
            is left out. What was left out is listed in `skipped.json`.
        scenarios_per_shard: At most so many scenarios go into a shard.
        show_progress: Whether to show a progress bar on a terminal.
        team: Who calls this, all with the same arguments.

    Raises:
        DataError: If a scenario cannot be read or its id comes again, and `on_error` is "raise";
            if none can be read; or if the folder is for something else.
    """
    if workers < 1 or scenarios_per_shard < 1:
        raise ValueError(
            f"wanted at least one worker and one scenario per shard, got {workers} and "
            f"{scenarios_per_shard}"
        )
    folder, skip = Path(folder), on_error == "skip"
    job, is_first_rank = _Job(VERSION, *source.fingerprint(), scenarios_per_shard), team.rank == 0
    with _only_process(folder) if is_first_rank else nullcontext():
        if is_first_rank:
            _start(folder, job)
        team.wait()
        _check_job(folder, job)
        if not (folder / INDEX_NAME).exists():
            (folder / REPORTS_NAME).mkdir(exist_ok=True)
            tasks = [
                Task(folder, number, part, scenarios_per_shard, skip)
                for number, part in enumerate(source.parts)
            ]
            disable = None if show_progress else True  # None: unless on a terminal.
            with tqdm(total=source.num_scenarios, unit=" scenarios", disable=disable) as bar:
                if team.size > 1:
                    _convert_all(tasks[team.rank :: team.size], workers, bar.update)
                    team.wait()
                    bar.reset()
                if is_first_rank:
                    _write_index(folder, _convert_all(tasks, workers, bar.update), source.name)
        team.wait()
        return _finish(folder, skip)


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps other conversions out of it. The lock ends with the process."""
    if folder.exists() and not folder.is_dir():
        raise DataError("wanted a folder for the cache, got a file", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("%s: waiting for another process that prepares it", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _start(folder: Path, job: _Job) -> None:
    """Claims the folder for a job, unless it is begun, and sweeps up after one that was killed."""
    path = folder / JOB_NAME
    others = [one.name for one in folder.iterdir() if not one.name.endswith(UNFINISHED_SUFFIX)]
    if not path.exists() and others:
        got = ", ".join(sorted(others)[:3])
        raise DataError(f"wanted a new or empty folder for the cache, got {got}", str(folder))
    for unfinished in folder.rglob(f".*{UNFINISHED_SUFFIX}"):
        unfinished.unlink()
    if not path.exists():
        write_json(path, job._asdict())


def _check_job(folder: Path, job: _Job) -> None:
    path = folder / JOB_NAME
    if not path.exists():
        raise DataError(f"wanted a folder that all processes share, got no {JOB_NAME}", str(folder))
    started = dict(read_json(path))
    different = [name for name, value in job._asdict().items() if started.get(name) != value]
    if different:
        raise DataError(
            f"it was begun with other {', '.join(different)}: delete it or choose another folder",
            str(folder),
        )


def _convert_all(
    tasks: Sequence[Task], workers: int, advance: Callable[[int], object]
) -> list[Report]:
    """Converts the parts that are not converted yet. Returns the reports of all, in order."""
    reports: dict[int, Report] = {}
    places: dict[str, str] = {}

    def finished(task: Task, report: Report) -> None:
        reports[task.number] = report
        if not task.skip:
            _check(report, places)

    for task in tasks:
        if task.report.exists():
            finished(task, Report.read(task.report))
            advance(len(reports[task.number].index.entries))
    convert_parts(
        [task for task in tasks if task.number not in reports], workers, finished, advance
    )
    return [reports[task.number] for task in tasks]


def _check(report: Report, places: dict[str, str]) -> None:
    """Raises what an earlier run has skipped, and an id that came in another part."""
    if report.skipped:
        raise DataError(report.skipped[0])
    for entry, place in zip(report.index.entries, report.places, strict=True):
        is_first(entry.scenario_id, place, places, fail)


def _merge(reports: Sequence[Report]) -> tuple[CacheIndex, list[str]]:
    """Makes one index of those of the parts, and lists what is skipped."""
    merged = CacheIndex(shards=[], entries=[])
    errors: list[DataError] = []
    places: dict[str, str] = {}
    for report in reports:
        errors += map(DataError, report.skipped)
        for entry, place in zip(report.index.entries, report.places, strict=True):
            if is_first(entry.scenario_id, place, places, errors.append):
                merged.entries.append(entry._replace(shard=entry.shard + len(merged.shards)))
        merged.shards.extend(report.index.shards)
    return merged, [str(error) for error in errors]


def _write_index(folder: Path, reports: Sequence[Report], source: str) -> None:
    index, skipped = _merge(reports)
    if not index.entries:
        raise DataError(f"no scenario could be read: {'; '.join(skipped[:3])}", source)
    write_json(folder / SKIPPED_NAME, skipped)
    index.write(folder)


def _finish(folder: Path, skip: bool) -> Conversion:
    shutil.rmtree(folder / REPORTS_NAME, ignore_errors=True)
    skipped = read_json(folder / SKIPPED_NAME)
    if skipped and not skip:
        raise DataError(skipped[0])
    num_scenarios = len(CacheIndex.read(folder).entries)
    return Conversion(folder=folder, num_scenarios=num_scenarios, skipped=skipped)
