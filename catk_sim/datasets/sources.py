"""Scenarios from wherever the user points: whatever follows `--data`."""

import glob
import hashlib
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from catk_sim.datasets import argoverse2, synthetic
from catk_sim.datasets.cache import INDEX_NAME, JOB_NAME, ScenarioCache
from catk_sim.datasets.code_digest import code_digest
from catk_sim.datasets.distinct import distinct
from catk_sim.datasets.errors import DataError, OnError, fail
from catk_sim.datasets.file_formats import FileFormat, recognise_file
from catk_sim.datasets.parts import (
    Argoverse2Part,
    CachePart,
    GpuDrivePart,
    Part,
    ScenarioNetPart,
    SyntheticPart,
    WomdPart,
)
from catk_sim.datatypes import Scenario

ACCEPTED = (
    "a WOMD TFRecord of the scenario release (also .gz), GPUDrive JSON or a ScenarioNet pickle "
    "(also .gz, .xz), an Argoverse 2 scenario_*.parquet with its map beside it, a folder or a glob "
    "of one of them, a folder made by catk_sim.datasets.prepare, or synthetic[:COUNT[:SEED]]"
)
SCENARIOS_PER_SEED = 1_000_000
"""`synthetic:COUNT:SEED` generates from seed `SEED * SCENARIOS_PER_SEED` on."""

CACHE = "cache"
SYNTHETIC = "synthetic"

_SCENARIOS_PER_PART = 64
_ONE_A_FILE = (FileFormat.GPUDRIVE, FileFormat.ARGOVERSE2)

_Items = TypeVar("_Items", range, tuple[Path, ...])
_log = logging.getLogger(__name__)


class Fingerprint(NamedTuple):
    """What a source's scenarios depend on.

    Attributes:
        kind: The format.
        data: A digest of the files' names, sizes and times of change, or of the seeds.
        code: A digest of the code that reads or generates.
    """

    kind: str
    data: str
    code: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Scenarios that are read or generated when they are asked for.

    Attributes:
        name: Where they come from.
        kind: The format.
        parts: The pieces, in order.
        num_scenarios: How many there are, as far as that is known without reading them all. Those
            that are skipped count too.
        on_error: What to do about what cannot be read.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]
    num_scenarios: int | None
    on_error: OnError = fail

    def __iter__(self) -> Iterator[Scenario]:
        """Streams the scenarios in order.

        Raises:
            DataError: From `on_error`, for what cannot be read and for an id that comes again.
        """
        places: dict[str, str] = {}
        for part in self.parts:
            yield from distinct(part.read(self.on_error), places, self.on_error)

    def fingerprint(self) -> Fingerprint:
        """Computes what changes whenever the scenarios may."""
        files = [path for part in self.parts for path in part.files]
        common = os.path.commonpath([path.absolute().parent for path in files]) if files else ""
        known = [_file_identity(path, common) for path in files]
        known += [repr(part) for part in self.parts if not part.files]
        return Fingerprint(
            kind=self.kind,
            data=hashlib.sha256(json.dumps(known).encode()).hexdigest(),
            code=code_digest(self.parts[0].reader),
        )


def open_scenarios(data: str | Path, *, on_error: OnError = fail) -> Source:
    """Opens scenarios of any accepted form. Nothing is read until they are asked for.

    Files are recognised by their content. They come in the order of their names.

    Args:
        data: A path, a glob, or: "synthetic", the benchmark that ships with the package;
            "synthetic:COUNT" or "synthetic:COUNT:SEED", generated. Different seeds share nothing.
        on_error: What to do about a scenario that cannot be read. If it returns, the scenario is
            left out; `list.append` collects the errors.

    Raises:
        DataError: If the data has no accepted form, or mixes several.
        FileNotFoundError: If there is nothing there.
        ValueError: If "synthetic:..." is malformed.

    Example:
        >>> for scenario in open_scenarios("synthetic:1:7"):
        ...     print(scenario.scenario_id[0], scenario.log.num_agents)
        synthetic-roundabout-7000000 36
    """
    name = str(data)
    if name == SYNTHETIC:
        return open_scenarios(synthetic.benchmark_path(), on_error=on_error)
    if name.startswith(f"{SYNTHETIC}:"):
        return _open_synthetic(name, on_error)
    path = Path(name).expanduser()
    if (path / INDEX_NAME).exists():
        return _open_cache(path, on_error)
    if (path / JOB_NAME).exists():
        raise DataError("a cache that is not finished: prepare it again with the same data", name)
    return _open_files(name, _list_files(path), on_error)


def _open_synthetic(name: str, on_error: OnError) -> Source:
    match = re.fullmatch(r"synthetic:(\d+)(?::(\d+))?", name)
    count, seed = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    if not 0 < count <= SCENARIOS_PER_SEED:
        raise ValueError(
            f"wanted synthetic:COUNT or synthetic:COUNT:SEED with whole numbers and a count from 1 "
            f"to {SCENARIOS_PER_SEED}, got {name!r}"
        )
    first = seed * SCENARIOS_PER_SEED
    seeds = _cut(range(first, first + count))
    parts = tuple(SyntheticPart(some) for some in seeds)
    return Source(name=name, kind=SYNTHETIC, parts=parts, num_scenarios=count, on_error=on_error)


def _open_cache(folder: Path, on_error: OnError) -> Source:
    count = len(ScenarioCache(folder))
    parts = tuple(CachePart(folder, some) for some in _cut(range(count)))
    return Source(name=str(folder), kind=CACHE, parts=parts, num_scenarios=count, on_error=on_error)


def _open_files(name: str, files: Sequence[Path], on_error: OnError) -> Source:
    found: dict[FileFormat, list[Path]] = defaultdict(list)
    others: list[Path] = []
    for path in files:
        kind = recognise_file(path)
        (others if kind is None else found[kind]).append(path)
    if len(found) != 1:
        raise DataError(f"wanted {ACCEPTED}; got {_describe(found, others)}", name)
    [(kind, paths)] = found.items()
    if kind == FileFormat.ARGOVERSE2:
        # The maps are read with the scenarios that they belong to.
        others = [path for path in others if not path.name.startswith(argoverse2.MAP_PREFIX)]
    if others:
        _log.warning("%s: left out what holds no scenarios: %s", name, _names(others))
    parts = _file_parts(kind, tuple(paths))
    count = len(paths) if kind in _ONE_A_FILE else None
    return Source(name=name, kind=kind, parts=parts, num_scenarios=count, on_error=on_error)


def _file_parts(kind: FileFormat, paths: tuple[Path, ...]) -> tuple[Part, ...]:
    match kind:
        case FileFormat.WOMD:
            return tuple(WomdPart(path) for path in paths)
        case FileFormat.GPUDRIVE:
            return tuple(GpuDrivePart(some) for some in _cut(paths))
        case FileFormat.SCENARIONET:
            return tuple(ScenarioNetPart(some) for some in _cut(paths))
        case FileFormat.ARGOVERSE2:
            return tuple(Argoverse2Part(some) for some in _cut(paths))


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.iterdir())
    else:
        found = [Path(match) for match in glob.glob(str(path), recursive=True)]
        if not found:
            raise FileNotFoundError(f"{path}: no such file or folder; wanted {ACCEPTED}")
    return sorted(one for one in found if one.is_file() and not one.name.startswith("."))


def _describe(found: dict[FileFormat, list[Path]], others: list[Path]) -> str:
    groups = [f"{len(paths)} of {kind} ({_names(paths)})" for kind, paths in found.items()]
    if others:
        groups.append(f"{len(others)} of no known format ({_names(others)})")
    return ", ".join(groups) or "no files (only a glob such as FOLDER/**/* searches inner folders)"


def _names(paths: Sequence[Path]) -> str:
    names = [path.name for path in paths[:3]]
    return ", ".join(names if len(paths) <= 3 else [*names, "..."])


def _cut(items: _Items) -> list[_Items]:
    """Cuts a range or a tuple into pieces for the parts of a source."""
    starts = range(0, len(items), _SCENARIOS_PER_PART)
    return [items[start : start + _SCENARIOS_PER_PART] for start in starts]


def _file_identity(path: Path, common: str) -> list[str | int]:
    status = path.stat()
    return [os.path.relpath(path.absolute(), common), status.st_size, status.st_mtime_ns]
