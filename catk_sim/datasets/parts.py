"""The pieces that a source of scenarios is read in, each by one process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol, runtime_checkable

from catk_sim.datasets import argoverse2, gpudrive, scenarionet, shard, synthetic, womd
from catk_sim.datasets.cache import INDEX_NAME, ScenarioCache
from catk_sim.datasets.errors import DataError, OnError
from catk_sim.datasets.tfrecord import enumerate_records
from catk_sim.datatypes import Scenario


@runtime_checkable
class Part(Protocol):
    """A piece of a source. It pickles, and reading it twice gives the same scenarios."""

    reader: ClassVar[ModuleType]
    """The code that its scenarios depend on."""

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Streams the scenarios, each with the place where it was found.

        Raises:
            DataError: From `on_error`, for what cannot be read. If it returns, that is left out.
        """
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        ...


@dataclass(frozen=True)
class WomdPart:
    """A TFRecord of WOMD."""

    reader: ClassVar[ModuleType] = womd
    path: Path

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Streams the scenarios of the file."""
        for number, data in enumerate_records(self.path, on_error):
            place = f"{self.path}, record {number}"
            try:
                scenario = womd.parse_scenario(data, source=place)
            except DataError as error:
                on_error(error)
            else:
                yield place, scenario

    @property
    def files(self) -> tuple[Path, ...]:
        """The TFRecord."""
        return (self.path,)


@dataclass(frozen=True)
class GpuDrivePart:
    """Some files of GPUDrive JSON, which hold one scenario each."""

    reader: ClassVar[ModuleType] = gpudrive
    files: tuple[Path, ...]

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Streams the scenarios, one a file."""
        return _read_files(self.files, lambda path: [gpudrive.read_scenario(path)], on_error)


@dataclass(frozen=True)
class ScenarioNetPart:
    """Some pickles of ScenarioNet, which hold one log each, of one or more scenarios."""

    reader: ClassVar[ModuleType] = scenarionet
    files: tuple[Path, ...]

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Streams the scenarios, those of a log in order of time."""
        return _read_files(self.files, scenarionet.read_scenarios, on_error)


@dataclass(frozen=True)
class Argoverse2Part:
    """Some parquet files of Argoverse 2, which hold one scenario each."""

    reader: ClassVar[ModuleType] = argoverse2
    files: tuple[Path, ...]

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Streams the scenarios, one a file."""
        return _read_files(self.files, lambda path: [argoverse2.read_scenario(path)], on_error)


def _read_files(
    files: Sequence[Path], read: Callable[[Path], list[Scenario]], on_error: OnError
) -> Iterator[tuple[str, Scenario]]:
    """Streams the scenarios of files that are read whole, each with its file."""
    for path in files:
        try:
            scenarios = read(path)
        except DataError as error:
            on_error(error)
        else:
            yield from ((str(path), scenario) for scenario in scenarios)


@dataclass(frozen=True)
class CachePart:
    """Some scenarios of a prepared cache."""

    reader: ClassVar[ModuleType] = shard
    folder: Path
    scenarios: range

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Streams the scenarios in the order of the cache."""
        cache = ScenarioCache(self.folder)
        for index in self.scenarios:
            try:
                scenario = cache.read(index)
            except DataError as error:
                on_error(error)
            else:
                yield f"{self.folder}, scenario {index}", scenario

    @property
    def files(self) -> tuple[Path, ...]:
        """The index, which changes whenever a shard does."""
        return (self.folder / INDEX_NAME,)


@dataclass(frozen=True)
class SyntheticPart:
    """Some generated scenarios."""

    reader: ClassVar[ModuleType] = synthetic
    seeds: range

    def read(self, on_error: OnError) -> Iterator[tuple[str, Scenario]]:
        """Generates the scenarios, one a seed."""
        for seed in self.seeds:
            yield f"synthetic, seed {seed}", synthetic.generate_scenario(seed)

    @property
    def files(self) -> tuple[Path, ...]:
        """Nothing is read."""
        return ()
