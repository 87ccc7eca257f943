"""Steps of `CatK-Waymo-v0` a second, on one core: `make benchmark`.

All agents are controlled. A step is an action: 0.1 s of motion for "delta", half a second for
"token".
"""

import time
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from catk_sim.datasets.synthetic import load_benchmark
from catk_sim.datatypes import Scenario
from catk_sim.envs import WaymoVectorEnv

# CPU time, so that neighbours on the machine do not count.
pytestmark = pytest.mark.benchmark(timer=time.process_time)

MOTION_ONLY = {"observation": "minimal", "reward": None, "report": ()}
SETTINGS: dict[str, dict[str, Any]] = {
    "motion_only": MOTION_ONLY,
    "collision": {**MOTION_ONLY, "report": ("collision",)},
    "collision_offroad": {**MOTION_ONLY, "report": ("collision", "offroad")},
    "default": {},
}
SCALES = {"delta": 0.1, "token": 1}  # A delta action of 1 is 8 m forward and to the left.
NUM_STEPS = 12  # An episode of tokens has 16, so that no reset is timed.


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [scenario.to(torch.float32) for scenario in load_benchmark()]


@pytest.mark.parametrize("num_envs", [1, 16, 64])
@pytest.mark.parametrize("action", SCALES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_stepping(
    benchmark: BenchmarkFixture,
    scenarios: list[Scenario],
    *,
    setting: str,
    action: str,
    num_envs: int,
) -> None:
    envs = WaymoVectorEnv(num_envs, data=scenarios, action=action, **SETTINGS[setting])
    envs.action_space.seed(0)
    sampled = envs.action_space.sample()
    actions = (SCALES[action] * sampled).astype(sampled.dtype)
    start = time.process_time()
    envs.reset(options={"scenario_index": np.arange(num_envs) % len(scenarios)})
    benchmark.extra_info["reset_cpu_seconds"] = time.process_time() - start
    benchmark.pedantic(envs.step, (actions,), rounds=NUM_STEPS, warmup_rounds=2)
    assert benchmark.stats is not None
    benchmark.extra_info["world_steps_per_second"] = num_envs / benchmark.stats["median"]
    present = envs.state.controlled.sum().item()
    benchmark.extra_info["controlled_agents_per_world"] = present / num_envs
