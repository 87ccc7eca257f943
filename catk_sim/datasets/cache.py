"""Parsed scenarios on disk.

A cache is a folder of shards and an `index.json`. The index tells which shard holds which scenario
and how large each is, so that batches can be planned without reading any.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from catk_sim.datasets.errors import DataError, require_file
from catk_sim.datasets.schema import ScenarioSize
from catk_sim.datasets.shard import FORMAT, VERSION, Shard, check_version, read_lacks
from catk_sim.datasets.whole_file import read_json, write_json
from catk_sim.datatypes import Scenario

INDEX_NAME = "index.json"
JOB_NAME = "job.json"
"""What a cache is made of. It is there from the start, while the index comes last."""

_MAX_OPEN_SHARDS = 64


class CacheEntry(NamedTuple):
    """Where a scenario is, and how large."""

    scenario_id: str
    shard: int
    row: int
    size: ScenarioSize


@dataclass(frozen=True)
class CacheIndex:
    """What a cache holds.

    Attributes:
        shards: File names of the shards.
        entries: The scenarios in order, with indices into `shards`.
    """

    shards: list[str]
    entries: list[CacheEntry]

    def to_json(self) -> dict[str, Any]:
        """Returns the index as it is written."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "columns": ["scenario_id", "shard", "row", *ScenarioSize._fields],
            "scenarios": [[*entry[:3], *entry.size] for entry in self.entries],
            "shards": self.shards,
        }

    @classmethod
    def from_json(cls, content: Any, source: str) -> "CacheIndex":
        """Reads an index from what was written.

        Raises:
            DataError: If it is not the index of a cache of this version.
        """
        try:
            check_version(content)
            rows = content["scenarios"]
            entries = [CacheEntry(*row[:3], size=ScenarioSize(*row[3:])) for row in rows]
            return cls(shards=list(content["shards"]), entries=entries)
        except (ValueError, TypeError, KeyError) as error:
            problem = f"wanted the index of {FORMAT}, version {VERSION}: {error}"
            raise DataError(problem, source) from error

    @classmethod
    def read(cls, folder: Path) -> "CacheIndex":
        """Reads the index of a cache. See `from_json`."""
        path = folder / INDEX_NAME
        require_file(path)
        return cls.from_json(read_json(path), str(path))

    def write(self, folder: Path) -> None:
        """Writes the index, which makes the cache complete."""
        write_json(folder / INDEX_NAME, self.to_json())


class ScenarioCache:
    """A prepared cache, open for reading. It pickles as its path and opens shards when needed.

    Args:
        folder: A folder made by `python -m catk_sim.datasets.prepare`.

    Raises:
        DataError: If the folder is not a complete cache of this version.
        FileNotFoundError: If it has no index.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = CacheIndex.read(self.folder)
        self._open: OrderedDict[str, Shard] = OrderedDict()

    def __len__(self) -> int:
        return len(self.index.entries)

    def __reduce__(self) -> tuple[Callable[..., "ScenarioCache"], tuple[Path]]:
        return ScenarioCache, (self.folder,)

    def read(self, index: int, dtype: torch.dtype | None = None) -> Scenario:
        """Reads a scenario as it was parsed, or with its floating tensors in another dtype.

        Raises:
            DataError: If the cache is damaged.
            FileNotFoundError: If the shard is missing.
            IndexError: If there is no such scenario.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"scenario {index} of a cache of {len(self)}")
        entry = self.index.entries[index]
        shard = self._shard(self.index.shards[entry.shard])
        known = shard.ids[entry.row : entry.row + 1], shard.sizes[entry.row : entry.row + 1]
        if known != ([entry.scenario_id], [entry.size]):
            problem = f"wanted {entry}, as {INDEX_NAME} says, got {known}"
            raise DataError(problem, f"{shard.path}, scenario {entry.row}")
        return shard.read(entry.row, dtype)

    def count_lacks(self) -> Counter[str]:
        """Counts the scenarios that lack the same; see `Scenario.lacks`. No scenario is read."""
        names = self.index.shards
        lacks = [read_lacks(self.folder / name) for name in names]
        return Counter(lacks[entry.shard][entry.row] for entry in self.index.entries)

    def _shard(self, name: str) -> Shard:
        shard = self._open.pop(name, None) or Shard(self.folder / name)
        self._open[name] = shard
        if len(self._open) > _MAX_OPEN_SHARDS:
            self._open.popitem(last=False)
        return shard
