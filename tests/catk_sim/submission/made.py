"""Small submissions."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS
from catk_sim.datatypes import Scenario
from catk_sim.submission import (
    NUM_ROLLOUTS,
    ScenarioRollouts,
    SubmissionMetadata,
    write_submission,
)
from tests import scenes

METADATA = SubmissionMetadata(
    account_name="someone@example.org",
    unique_method_name="drawn at random",
    authors=("Some One", "Any Öne"),
    affiliation="nowhere",
    description="Noise.",
    num_model_parameters="7M",
    method_link="https://example.org/paper",
    acknowledge_complies_with_closed_loop_requirement=True,
)

FIELDS = ("x", "y", "z", "heading")


def named_road(scenario_id: str = "road") -> Scenario:
    """The drawn road with three agents, of which the second is absent at the current step."""
    road = scenes.straight_road()
    valid = road.log.valid.clone()
    valid[1, CURRENT_STEP] = False
    return road.replace(scenario_id=(scenario_id,), log=road.log.replace(valid=valid))


def noise(scenario_id: str = "road") -> ScenarioRollouts:
    """Rollouts of `named_road`'s two sim agents, a kilometre around the file's origin."""
    generator = np.random.default_rng(sum(scenario_id.encode()))
    shape = (NUM_ROLLOUTS, 2, FUTURE_STEPS)
    arrays = {name: generator.normal(0, 1000, shape).astype(np.float32) for name in FIELDS}
    return ScenarioRollouts(scenario_id=scenario_id, object_id=np.array([100, 102]), **arrays)


def changed(rollouts: ScenarioRollouts, **fields: Any) -> ScenarioRollouts:
    """A copy with some fields changed, whether or not they then agree in shape."""
    copy = dataclasses.replace(rollouts)
    for name, value in fields.items():
        object.__setattr__(copy, name, value)
    return copy


def roads(names: Iterable[str]) -> list[tuple[Scenario, ScenarioRollouts]]:
    """Scenarios with rollouts."""
    return [(named_road(name), noise(name)) for name in names]


def write(path: Path, names: str = "abcde", num_shards: int = 3) -> Path:
    """Writes a submission for scenarios that are named by a letter."""
    write_submission(path, METADATA, roads(names), num_scenarios=len(names), num_shards=num_shards)
    return path


def assert_same(ours: ScenarioRollouts, other: ScenarioRollouts) -> None:
    """Compares all fields, bit for bit."""
    assert ours.scenario_id == other.scenario_id
    for name in ("object_id", *FIELDS):
        np.testing.assert_array_equal(getattr(ours, name), getattr(other, name), strict=True)


def origin_at(scenario: Scenario, *origin: float) -> Scenario:
    """The same scenario elsewhere in its file's coordinates."""
    return scenario.replace(origin=torch.tensor(origin))
