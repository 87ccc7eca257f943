"""Scenarios for a `DataLoader`."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import Dataset

from catk_sim.datasets.cache import ScenarioCache
from catk_sim.datasets.conversion import SKIPPED_NAME, convert
from catk_sim.datasets.schema import ScenarioSize
from catk_sim.datasets.shard import VERSION
from catk_sim.datasets.sources import CACHE, open_scenarios
from catk_sim.datatypes import Scenario

_log = logging.getLogger(__name__)


class ScenarioDataset(Dataset[Scenario]):
    """The scenarios of a cache, one by one. It pickles, to `DataLoader` workers too.

    Args:
        folder: A folder made by `python -m catk_sim.datasets.prepare`.
        dtype: Of the floating tensors.
        transform: Applied to each scenario that is read.

    Raises:
        DataError: If the folder is not a complete cache of this version.
        FileNotFoundError: If it has no index.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        transform: Callable[[Scenario], Scenario] | None = None,
    ) -> None:
        self.cache = ScenarioCache(folder)
        self.dtype = dtype
        self.transform = transform

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> Scenario:
        scenario = self.cache.read(index, self.dtype)
        return self.transform(scenario) if self.transform else scenario

    @property
    def scenario_ids(self) -> list[str]:
        """Id of each scenario."""
        return [entry.scenario_id for entry in self.cache.index.entries]

    @property
    def sizes(self) -> list[ScenarioSize]:
        """How large each scenario is before the transform. None is read for it."""
        return [entry.size for entry in self.cache.index.entries]


def prepare_if_needed(
    data: str | Path,
    cache_folder: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    transform: Callable[[Scenario], Scenario] | None = None,
    workers: int = 1,
    on_error: Literal["raise", "skip"] = "raise",
) -> ScenarioDataset:
    """Opens any data as a dataset. What is no cache is converted to one, the first time.

    Args:
        data: Whatever `open_scenarios` accepts.
        cache_folder: Where caches are kept, each under a name that changes with the data and with
            the code that reads or generates it.
        dtype: Of the floating tensors.
        transform: Applied to each scenario that is read.
        workers: How many processes convert.
        on_error: Whether what cannot be read stops the conversion or is left out. What was left
            out is listed in `skipped.json` of the cache.

    Raises:
        DataError: As `open_scenarios` and `convert` do.
        FileNotFoundError: If there is no such data.
    """
    source = open_scenarios(data)
    if source.kind == CACHE:
        return ScenarioDataset(source.name, dtype=dtype, transform=transform)
    digest = hashlib.sha256(json.dumps([VERSION, *source.fingerprint()]).encode()).hexdigest()
    made = convert(
        source,
        Path(cache_folder) / f"{source.kind.lower().replace(' ', '-')}-{digest[:16]}",
        workers=workers,
        on_error=on_error,
        show_progress=True,
    )
    if made.skipped:
        _log.warning(
            "%s: skipped %d, listed in %s",
            source.name,
            len(made.skipped),
            made.folder / SKIPPED_NAME,
        )
    return ScenarioDataset(made.folder, dtype=dtype, transform=transform)
