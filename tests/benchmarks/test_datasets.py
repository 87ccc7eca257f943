"""Scenarios a second, on one core: `make benchmark`."""

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets import ScenarioDataset, open_scenarios
from catk_sim.datasets.conversion import convert
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from tests.shared import shared_path

# CPU time, so that neighbours on the machine do not count.
pytestmark = pytest.mark.benchmark(timer=time.process_time)

NUM_SCENARIOS = 16
REAL = {
    "womd": "data/womd_scenario_proto/motion_data_one_scenario.tfrecord",
    "gpudrive_json": "data/womd_gpudrive_json",
}
"""Real scenarios of the reference material."""


def find(data: str) -> str | Path:
    return shared_path(REAL[data]) if data in REAL else data


def time_reading(benchmark: BenchmarkFixture, read: Callable[[], list[Scenario]]) -> None:
    scenarios = benchmark(read)
    count = len(scenarios)
    assert benchmark.stats is not None
    benchmark.extra_info["scenarios_per_second"] = count / benchmark.stats["median"]
    present = [int(one.log.valid[:, CURRENT_STEP].sum()) for one in scenarios]
    points = [one.roadgraph.xyz.shape[0] for one in scenarios]
    benchmark.extra_info["agents_per_scenario"] = sum(present) / count
    benchmark.extra_info["map_points_per_scenario"] = sum(points) / count


@pytest.mark.parametrize("data", ["womd", "synthetic", "gpudrive_json"])
def test_parsing_files(benchmark: BenchmarkFixture, data: str) -> None:
    """From the file, decompressed and checked, to records. "synthetic" is the built-in file."""
    source = open_scenarios(find(data))
    time_reading(benchmark, lambda: list(islice(source, NUM_SCENARIOS)))


@pytest.mark.parametrize("data", ["womd", "synthetic"])
def test_reading_from_a_cache(benchmark: BenchmarkFixture, tmp_path: Path, data: str) -> None:
    """From a cache whose files the system has in memory."""
    made = convert(open_scenarios(find(data)), tmp_path / "cache")
    dataset = ScenarioDataset(made.folder)
    indices = range(min(NUM_SCENARIOS, len(dataset)))
    time_reading(benchmark, lambda: [dataset[index] for index in indices])


def test_generating(benchmark: BenchmarkFixture) -> None:
    time_reading(benchmark, lambda: [generate_scenario(seed) for seed in range(NUM_SCENARIOS)])
