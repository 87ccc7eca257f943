"""Steps a second of the environment and of PPO on it, on one core: `make benchmark`.

Beside Waymax (JAX 0.10.2 on the CPU of an x86-64 machine, delta dynamics, float32): one call of a
jitted step, and, where that was measured, 80 steps in one `lax.scan`, which no learner that looks
at the world between two steps can do. Its worlds are one WOMD record tiled, of 128 slots with 73
agents and 20,000 map points; another machine makes another ratio. Ours are 637f20cafde22ff8 of
WOMD, tiled likewise, with 50 agents at the current step (83 tracks) and 19,636 map points. Where
that is not at hand, they are generated scenes, without ratios.

A step of the environment is 0.1 s of all worlds, without resets. PPO is `trainers.ppo ego`: it
collects 16 actions of each ego, of 0.5 s, on the scenes that ship with the package, resets
included, and learns from them.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console
from rich.table import Table

from catk_sim.datasets import open_scenarios
from catk_sim.datasets.synthetic import load_benchmark
from catk_sim.datatypes import Scenario
from catk_sim.envs import WaymoVectorEnv
from catk_sim.envs.sb3 import WaymoVecEnv
from tests.shared import shared_path
from trainers.ppo import ego, make_model, make_worlds

# CPU time, so that neighbours on the machine do not count.
pytestmark = pytest.mark.benchmark(timer=time.process_time)

FILE = "data/womd_scenario_proto/motion_data_one_scenario.tfrecord"
NUM_WORLDS = [1, 16, 64, 256]
REPORTS: dict[str, tuple[str, ...]] = {
    "motion": (),
    "+ collision": ("collision",),
    "+ collision, off-road": ("collision", "offroad"),
}
WAYMAX = {
    ("motion", 1): (0.80, 0.020),
    ("motion", 16): (16.0, 0.49),
    ("+ collision", 1): (0.79, 0.17),
    ("+ collision", 16): (18.0, 4.0),
    ("+ collision, off-road", 1): (227.0, None),
    ("+ collision, off-road", 16): (3970.0, None),
}
"""CPU milliseconds of a batched step of Waymax, by call and in a scan: the least of what was
measured. With off-road it was measured without, or with more than, collisions: the less counts."""

Rows = list[tuple[str, ...]]


@pytest.fixture(scope="module")
def scenario() -> tuple[Scenario, bool]:
    """The scenario, and whether it is like Waymax's."""
    try:
        data = str(shared_path(FILE))
    except pytest.skip.Exception:
        return load_benchmark()[0].to(torch.float32), False
    return next(iter(open_scenarios(data))).to(torch.float32), True


@pytest.fixture(scope="module")
def stepping_rows(request: pytest.FixtureRequest) -> Iterator[Rows]:
    rows: Rows = []
    yield rows
    headings = ("what", "worlds", "CPU ms", "world steps/s", "Waymax call", "Waymax scan")
    title = "CatK-Waymo-v0, delta actions, beside Waymax (world steps/s)"
    print_table(request, title, headings, rows)


@pytest.fixture(scope="module")
def learning_rows(request: pytest.FixtureRequest) -> Iterator[Rows]:
    rows: Rows = []
    yield rows
    headings = ("what", "worlds", "CPU ms", "actions/s", "simulated steps/s")
    print_table(request, "Stable-Baselines3 on CatK-Waymo-v0, the ego", headings, rows)


def print_table(
    request: pytest.FixtureRequest, title: str, headings: tuple[str, ...], rows: Rows
) -> None:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        table.add_row(*row)
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        Console(width=120).print(table)


@pytest.mark.parametrize("num_worlds", NUM_WORLDS)
@pytest.mark.parametrize("report", REPORTS)
def test_stepping(
    benchmark: BenchmarkFixture,
    stepping_rows: Rows,
    scenario: tuple[Scenario, bool],
    *,
    report: str,
    num_worlds: int,
) -> None:
    one, is_like_waymax = scenario
    arguments = {"observation": "minimal", "reward": None, "report": REPORTS[report]}
    envs = WaymoVectorEnv(num_worlds, data=[one], action="delta", **arguments)
    envs.reset()
    actions = np.zeros((num_worlds, *(envs.single_action_space.shape or ())), dtype=np.float32)
    actions[..., 0] = 0.1
    benchmark.pedantic(envs.step, (actions,), rounds=20, warmup_rounds=2)
    seconds = fastest(benchmark)
    benchmark.extra_info["world_steps_per_second"] = num_worlds / seconds
    theirs = WAYMAX.get((report, num_worlds), (None, None)) if is_like_waymax else (None, None)
    speeds = ["" if cost is None else f"{1e3 * num_worlds / cost:,.0f}" for cost in theirs]
    stepping_rows.append((report, str(num_worlds), *figures(seconds, num_worlds), *speeds))


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [scenario.to(torch.float32) for scenario in load_benchmark()]


@pytest.mark.parametrize("num_worlds", NUM_WORLDS)
def test_stepping_with_views_rewards_and_resets(
    benchmark: BenchmarkFixture, learning_rows: Rows, scenarios: list[Scenario], num_worlds: int
) -> None:
    envs = make_envs(scenarios, num_worlds)
    actions = np.zeros((num_worlds, 2), dtype=np.float32)

    def step_often() -> None:
        for _ in range(16):
            envs.step(actions)

    benchmark.pedantic(step_often, rounds=2, warmup_rounds=1)
    note(benchmark, learning_rows, "WaymoVecEnv", num_worlds)


@pytest.mark.parametrize("num_worlds", NUM_WORLDS)
def test_ppo(
    benchmark: BenchmarkFixture, learning_rows: Rows, scenarios: list[Scenario], num_worlds: int
) -> None:
    model = make_model(ego(), make_envs(scenarios, num_worlds))
    benchmark.pedantic(
        model.learn,
        kwargs={"total_timesteps": 16 * num_worlds, "reset_num_timesteps": False},
        rounds=2,
        warmup_rounds=1,
    )
    note(benchmark, learning_rows, "PPO, collect and learn", num_worlds)


def make_envs(scenarios: list[Scenario], num_worlds: int) -> WaymoVecEnv:
    torch.set_num_threads(1)
    arguments: dict[str, Any] = make_worlds(ego(), scenarios, num_worlds)
    envs = WaymoVecEnv(**arguments)
    envs.seed(0)
    envs.reset()
    return envs


def note(benchmark: BenchmarkFixture, rows: Rows, what: str, num_worlds: int) -> None:
    """Adds a line for 16 actions of every world."""
    seconds = fastest(benchmark) / 16
    benchmark.extra_info["actions_per_second"] = num_worlds / seconds
    steps = f"{num_worlds * ego().action_repeat / seconds:,.0f}"
    rows.append((what, str(num_worlds), *figures(seconds, num_worlds), steps))


def fastest(benchmark: BenchmarkFixture) -> float:
    assert benchmark.stats is not None
    return benchmark.stats["min"]


def figures(seconds: float, num_worlds: int) -> tuple[str, str]:
    return f"{1e3 * seconds:.2f}", f"{num_worlds / seconds:,.0f}"
