"""CPU seconds of the Sim Agents metric of 32 rollouts, on one core: `make benchmark`.

Beside the official package: `python -m tests.official.speed`.
"""

import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from catk_sim.constants import FUTURE_STEPS, STEP_SECONDS
from catk_sim.datasets import collate, open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes
from catk_sim.metrics.sim_agents.metric import SimAgentsMetric
from catk_sim.metrics.sim_agents.scene import EvaluatedScene
from tests.shared import shared_path

pytestmark = pytest.mark.benchmark(timer=time.process_time)

NUM_ROLLOUTS = 32
FILE = "data/womd_scenario_proto/motion_data_one_scenario.tfrecord"


@pytest.fixture(autouse=True)
def one_core() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["womd", "generated"])
def scenario(request: pytest.FixtureRequest) -> Scenario:
    data = shared_path(FILE) if request.param == "womd" else "synthetic:1"
    return next(iter(open_scenarios(data)))


def drifting(scene: EvaluatedScene) -> JointScenes:
    """Logged futures, from which everyone drifts in a direction of their own."""
    log = JointScenes.from_log(scene)
    generator = torch.Generator().manual_seed(0)
    time = STEP_SECONDS * torch.arange(1, FUTURE_STEPS + 1)

    def drifted(values: torch.Tensor, metres_a_second: float) -> torch.Tensor:
        speed = metres_a_second * torch.randn(
            NUM_ROLLOUTS, *values.shape[1:-1], 1, generator=generator
        )
        return values + speed * time

    return JointScenes(
        x=drifted(log.x, 1),
        y=drifted(log.y, 1),
        z=log.z.expand(NUM_ROLLOUTS, *log.z.shape[1:]),
        heading=drifted(log.heading, 0.05),
    )


def time_scoring(
    benchmark: BenchmarkFixture, score: Callable[[], object], scene: EvaluatedScene
) -> None:
    benchmark.pedantic(score, rounds=5, warmup_rounds=1)
    count = len(scene.scenario_id)
    assert benchmark.stats is not None
    benchmark.extra_info["scenarios_per_second"] = count / benchmark.stats["median"]
    benchmark.extra_info["agents_per_scenario"] = int(scene.is_sim_agent.sum()) / count
    benchmark.extra_info["evaluated_per_scenario"] = int(scene.is_evaluated.sum()) / count


@pytest.mark.parametrize("log_features", ["cached", "not_cached"])
@pytest.mark.parametrize("num_scenarios", [1, 8])
def test_scoring(
    benchmark: BenchmarkFixture, scenario: Scenario, *, num_scenarios: int, log_features: str
) -> None:
    """From scenarios and rollouts in memory to the scores."""
    logged = scenario if num_scenarios == 1 else collate([scenario] * num_scenarios)
    metric = SimAgentsMetric("2025")
    prepared = metric.prepare(logged)
    simulated = drifting(prepared.scene)
    if log_features == "cached":
        time_scoring(benchmark, lambda: metric(prepared, simulated), prepared.scene)
    else:
        time_scoring(benchmark, lambda: metric(metric.prepare(logged), simulated), prepared.scene)
