"""Reinforcement learning."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.datatypes import Scenario
from catk_sim.envs.sb3 import WaymoVecEnv
from policies.sb3 import SB3Policy, load_policy
from tests.catk_sim.envs import variations
from tests.scenes import straight_road
from trainers.ppo import (
    PRESETS,
    PPOConfig,
    load_scenarios,
    main,
    make_model,
    make_worlds,
    measure,
    shared,
    train,
)
from trainers.run_log import read_log


class Driver:
    """Drives everybody alike."""

    def __init__(self, *action: float) -> None:
        self.action = np.array(action, dtype=np.float32)
        self.num_rows: list[int] = []

    def predict(
        self, observation: dict[str, np.ndarray], *, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        assert deterministic
        self.num_rows.append(len(observation["own"]))
        return np.tile(self.action, (self.num_rows[-1], 1)), None


def free_road() -> Scenario:
    """The straight road without C, so that A may go straight to its goal."""
    road = straight_road()
    valid = road.log.valid.clone()
    valid[2] = False
    return road.replace(scenario_id=("free",), log=road.log.replace(valid=valid))


def blocked_road() -> Scenario:
    """The straight road, where C stays before A's goal."""
    road = straight_road()
    valid = torch.ones_like(road.log.valid)
    return road.replace(scenario_id=("blocked",), log=road.log.replace(valid=valid))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenarios are made once."""
    return tmp_path_factory.mktemp("cache")


def config(**changes: Any) -> PPOConfig:
    return PPOConfig(**{"num_worlds": 2, "hidden_dim": 8, "min_distance": 5.0, **changes})


def test_what_becomes_of_every_scenario_is_counted_once() -> None:
    # A reaches its goal, or runs into C that stands before it.
    scenarios = [free_road(), blocked_road(), free_road()]
    score = measure(Driver(0, 0), config(), scenarios, batch_size=2)
    assert score.episodes == 3
    assert (score.success, score.collision, score.offroad) == pytest.approx((2 / 3, 1 / 3, 0))
    assert score.late == pytest.approx(0)


def test_who_turns_leaves_the_road_and_who_brakes_is_late() -> None:
    turned = measure(Driver(0, 1), config(), [free_road()])
    assert (turned.offroad, turned.success) == (1, 0)
    late = measure(Driver(-0.1, 0), config(), [free_road()])
    assert (late.late, late.success) == (1, 0)


def test_who_collides_off_the_road_counts_once() -> None:
    road = blocked_road()
    xy = road.log.xy.clone()
    xy[0, :, 1] = -6
    xy[2] = xy[0] + 1
    score = measure(Driver(0, 0), config(), [road.replace(log=road.log.replace(xy=xy))])
    assert (score.collision, score.offroad, score.success) == (1, 0, 0)
    assert score.late == 0


def test_vehicles_are_measured_together() -> None:
    driver = Driver(0, 0)
    crowd = variations.crowd(30)
    settings = config(agents="vehicles", max_agents=3)
    score = measure(driver, settings, [crowd, free_road()])
    assert score.episodes == 4
    assert driver.num_rows[0] == 6


def test_scenarios_in_which_nobody_has_to_go_anywhere_are_left_out(cache: Path) -> None:
    everything = load_scenarios(config(min_distance=0.0, cache=cache), "synthetic:6")
    moving = load_scenarios(config(cache=cache), "synthetic:6")
    assert 0 < len(moving) < len(everything) == 6
    vehicles = load_scenarios(config(agents="vehicles", cache=cache), "synthetic:6")
    assert len(vehicles) == 6
    with pytest.raises(ValueError, match=r"has 1000\.0 m or more to go"):
        load_scenarios(config(min_distance=1000.0, cache=cache), "synthetic:6")


def test_traffic_may_be_a_policy() -> None:
    settings = config(traffic="constant_velocity")
    assert make_worlds(settings, [free_road()], 1)["background"] is not None
    assert make_worlds(config(), [free_road()], 1)["background"] is None
    assert measure(Driver(0, 0), settings, [free_road()]).success == 1


def test_batches_need_not_divide_what_is_collected() -> None:
    settings = config(batch_size=7, decisions_per_update=4)
    envs = WaymoVecEnv(**make_worlds(settings, [free_road()], 2))
    make_model(settings, envs).learn(8)


def test_at_first_a_model_keeps_speed_and_heading() -> None:
    settings = config(exploration=(0.25, 0.5))
    envs = WaymoVecEnv(**make_worlds(settings, [free_road()], 2))
    model = make_model(settings, envs)
    actions, _ = model.predict(envs.reset(), deterministic=True)
    assert np.abs(actions).max() < 0.05
    log_std = model.policy.get_parameter("log_std")
    assert log_std.exp().tolist() == pytest.approx([0.25, 0.5])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_worlds": 0}, "num_worlds must be at least 1"),
        ({"exploration": (0.1,)}, "exploration must be 2 numbers above 0 for bicycle"),
        ({"exploration": (0.1, 0.0)}, "above 0"),
        ({"action": "delta"}, "exploration must be 3 numbers"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        config(**changes)


@pytest.mark.parametrize("agents", ["sdc", "vehicles"])
def test_a_run_leaves_a_model_a_log_and_figures(
    agents: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    args = ["debug", "--agents", agents, "--output", str(output), "--cache", str(cache)]
    main(args)
    figures = json.loads((output / "metrics.json").read_text())
    assert set(figures) == {"before", "after"}
    assert figures["after"]["episodes"] > 0
    records = read_log(output / "log.jsonl")
    assert {record["stage"] for record in records} == {"ppo"}
    assert records[-1]["step"] >= 128
    told = {name for record in records for name in record}
    assert {"train/approx_kl", "rollout/success_rate", "cpu_seconds"} <= told
    assert isinstance(load_policy(output / "model.zip"), SB3Policy)
    assert "success" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has a run in it"):
        main(args)


def test_the_same_seed_gives_the_same_model(tmp_path: Path, cache: Path) -> None:
    def weights(name: str, seed: int) -> torch.Tensor:
        settings = PRESETS["debug"]()
        changes = {"seed": seed, "cache": cache, "num_decisions": 64}
        folder = tmp_path / name
        train(PPOConfig(**{**vars(settings), **changes}), folder)
        policy = load_policy(folder / "model.zip")
        return torch.cat([values.flatten() for values in policy._network.parameters()])

    first = weights("one", 0)
    assert torch.equal(first, weights("two", 0))
    assert not torch.equal(first, weights("three", 1))


@pytest.mark.slow
def test_vehicles_learn_to_reach_their_goals(tmp_path: Path, cache: Path) -> None:
    settings = PPOConfig(
        **{
            **vars(shared()),
            "data": "synthetic",
            "validation_data": "synthetic",
            "cache": cache,
            "num_decisions": 40_000,
        }
    )
    scores = train(settings, tmp_path / "run")
    assert scores["after"].success >= scores["before"].success + 0.1


@pytest.mark.slow
def test_what_is_to_be_installed_is_said_in_one_line() -> None:
    code = (
        "import runpy, sys; sys.modules['stable_baselines3'] = None; "
        "runpy.run_module('trainers.ppo', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode != 0
    assert ended.stderr.startswith("error: reinforcement learning needs more: pip install")
    assert ended.stderr.count("\n") == 1
