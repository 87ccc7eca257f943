"""What planners and reactive traffic cost on real scenes, on one core: `make benchmark`.

CPU milliseconds of 0.1 s of four scenes, of 13 to 168 agents, driven side by side. Where the real
scenes are not at hand, they are generated ones.
"""

import itertools
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from catk_sim.datasets import open_scenarios
from catk_sim.datasets.synthetic import load_benchmark
from catk_sim.datatypes import Scenario
from catk_sim.planning.drivers import PlannerDriver
from catk_sim.planning.planner import Planner
from catk_sim.planning.simulation import TrafficGroup, drive
from policies.idm import IDM
from policies.planners import ConstantVelocityPlanner, IDMPlanner, PDMPlanner
from tests.shared import shared_path

# CPU time, so that neighbours on the machine do not count.
pytestmark = pytest.mark.benchmark(timer=time.process_time)

FOLDER = "data/womd_gpudrive_json"
NUM_STEPS = 20


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    try:
        data = str(shared_path(FOLDER))
    except pytest.skip.Exception:
        return load_benchmark()[:4]
    return list(itertools.islice(open_scenarios(data), 0, 20, 5))


@pytest.mark.parametrize("traffic", ["log", "idm"])
@pytest.mark.parametrize("make", [ConstantVelocityPlanner, IDMPlanner, PDMPlanner])
def test_driving(
    benchmark: BenchmarkFixture,
    scenarios: list[Scenario],
    make: Callable[[], Planner],
    *,
    traffic: str,
) -> None:
    torch.set_num_threads(1)
    groups = [TrafficGroup(policy=IDM())] if traffic == "idm" else []
    driver = PlannerDriver(make)
    benchmark.pedantic(
        drive, (driver, scenarios), {"traffic": groups, "num_steps": NUM_STEPS}, rounds=2
    )
    assert benchmark.stats is not None
    benchmark.extra_info["milliseconds_per_step"] = 1e3 * benchmark.stats["min"] / NUM_STEPS
