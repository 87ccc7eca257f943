"""The official values of `shared/golden/wosac`, and how to read them."""

import json
from functools import cache
from typing import Any

import numpy as np
from numpy import ndarray

from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes, generated_scenes
from catk_sim.metrics.sim_agents.scene import EvaluatedScene
from tests.shared import shared_path

SCENARIO_ID = "637f20cafde22ff8"
CASES = ("a_log_replay", "b_constant_velocity", "c_log_noise", "e_accelerate", "t_test_submission")
GENERATED = "g_scenario_gen"

SCENARIOS = "data/womd_scenario_proto/motion_data_one_scenario.tfrecord"

VERSIONS = {
    "2025": "2025",
    "2024": "2024",
    "2024_pkg164": "2024_pkg164",
    "2023": "2023_pkg161",
}
"""Our names of the versions, and those of the goldens."""


@cache
def real_scenario() -> Scenario:
    return next(iter(open_scenarios(shared_path(SCENARIOS))))


def golden_arrays(name: str) -> dict[str, ndarray]:
    with np.load(shared_path(f"golden/wosac/{SCENARIO_ID}_{name}.npz")) as file:
        return dict(file)


def golden_json(name: str) -> dict[str, Any]:
    return json.loads(shared_path(f"golden/wosac/{name}.json").read_text())


def golden_rollouts(case: str, scene: EvaluatedScene) -> JointScenes:
    arrays = golden_arrays(f"{case}_sim")
    names = ("object_id", "x", "y", "z", "heading")
    return JointScenes.from_arrays(**{name: arrays[name] for name in names}, scene=scene)


def golden_generated_scenes(scene: EvaluatedScene):
    arrays = golden_arrays(f"{GENERATED}_sim")
    return generated_scenes(
        arrays["object_id"],
        {name: arrays[name] for name in ("x", "y", "z", "heading")},
        {name: arrays[name] for name in ("length", "width", "height")},
        scene,
    )
