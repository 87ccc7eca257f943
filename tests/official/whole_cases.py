"""Whole scenes: generated, and the real one."""

from typing import Any

import numpy as np

from catk_sim.datasets.protos import waymo_protos
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datasets.tfrecord import read_records
from catk_sim.datasets.womd_writer import scenario_to_proto
from tests.official.agent_cases import gaps_of_one_step_in_the_log, traffic
from tests.official.drawing import Case, Rollouts, driven, noisy, replay, scattered
from tests.official.light_cases import red_throughout
from tests.shared import shared_path

REAL = "data/womd_scenario_proto/motion_data_one_scenario.tfrecord"


def generated_signal() -> Case:
    return _generated("signal", num_rollouts=8)


def generated_all_stop() -> Case:
    return _generated("all_stop")


def generated_tee() -> Case:
    return _generated("tee")


def generated_roundabout() -> Case:
    return _generated("roundabout")


def generated_midblock() -> Case:
    return _generated("midblock")


def generated_merge() -> Case:
    return _generated("merge")


def generated_signal_scattered() -> Case:
    return _everywhere(scenario_to_proto(generate_scenario(2, "signal")))


def real() -> Case:
    scenario = real_scenario()
    return Case(scenario, driven(scenario, num_rollouts=8))


def real_scattered() -> Case:
    return _everywhere(real_scenario())


def real_scenario() -> Any:
    record = next(iter(read_records(shared_path(REAL))))
    return waymo_protos("scenario_pb2").Scenario.FromString(record)


def _everywhere(scenario: Any) -> Case:
    """Puts everyone anywhere among the agents."""
    rollouts = replay(scenario, 2)
    x, y = rollouts["x"], rollouts["y"]
    return Case(scenario, scattered(rollouts, (x.min(), x.max()), (y.min(), y.max())))


def _generated(kind: str, num_rollouts: int = 4) -> Case:
    scenario = scenario_to_proto(generate_scenario(1, kind))
    return Case(scenario, driven(scenario, num_rollouts=num_rollouts))


def scenario_generation() -> Case:
    scenario = traffic()
    return Case(scenario, whole_episode(noisy(replay(scenario)), scenario))


def scenario_generation_with_gaps() -> Case:
    scenario = gaps_of_one_step_in_the_log().scenario
    return Case(scenario, whole_episode(noisy(replay(scenario)), scenario))


def scenario_generation_with_a_red_light() -> Case:
    scenario, rollouts = (case := red_throughout()).scenario, case.rollouts
    return Case(scenario, whole_episode(rollouts, scenario))


def whole_episode(rollouts: Rollouts, scenario: Any) -> Rollouts:
    """Puts eleven steps of standing still in front, and gives everyone a type and a size."""
    tracks = {track.id: track for track in scenario.tracks}
    present = [tracks[agent_id] for agent_id in rollouts["object_id"].tolist()]
    growth = np.linspace(1, 1.2, 91)
    sizes = {
        name: np.array([getattr(track.states[10], name) for track in present])[:, None] * growth
        for name in ("length", "width", "height")
    }
    poses = {
        name: np.concatenate([rollouts[name][..., :1].repeat(11, -1), rollouts[name]], axis=-1)
        for name in ("x", "y", "z", "heading")
    }
    types = np.array([track.object_type for track in present], dtype=np.int32)
    return {"object_id": rollouts["object_id"], **poses, **sizes, "object_type": types}
