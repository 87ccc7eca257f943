"""Speeds and accelerations: by hand, and those of the Sim Agents challenge."""

import functools
import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS, HISTORY_STEPS, NUM_STEPS
from catk_sim.datasets import womd
from catk_sim.datatypes import Scenario
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.kinematics import (
    Differences,
    kinematic_validity,
    kinematics,
    planar_speed,
)
from tests.shared import shared_path

ROLLOUT_CASES = (
    "a_log_replay",
    "b_constant_velocity",
    "c_log_noise",
    "e_accelerate",
    "t_test_submission",
)
CASES = ("log", *ROLLOUT_CASES)
GENERATION_CASES = ("g_scenario_gen_log", "g_scenario_gen")
MEASURES = ("linear_speed", "linear_acceleration", "angular_speed", "angular_acceleration")
BOTH = [Differences.CENTRAL, Differences.BACKWARD]


@functools.cache
def golden_scene() -> Scenario:
    folder = shared_path("data/womd_scenario_proto")
    return next(iter(womd.read_scenarios(folder / "motion_data_one_scenario.tfrecord")))


@functools.cache
def golden(name: str) -> Mapping[str, np.ndarray]:
    """What is in a golden file."""
    return dict(np.load(shared_path("golden/wosac") / f"637f20cafde22ff8_{name}.npz"))


def golden_features(
    case: str, differences: Differences = Differences.CENTRAL
) -> Mapping[str, np.ndarray]:
    return golden(f"{case}_features" + "_2023" * (differences is Differences.BACKWARD))


def golden_boxes(case: str) -> BoxTrajectory:
    """The boxes whose features a golden case tells: of all sim agents at all steps."""
    scenario = golden_scene()
    present = scenario.log.valid[:, CURRENT_STEP]
    agent_ids = scenario.agents.agent_id[present].tolist()
    log = _logged(scenario).map(lambda tensor: tensor[present])
    if case == "g_scenario_gen_log":
        return log.repeat(1)
    size = {
        name: _current_size(getattr(log, name)).repeat(1, 1, 1)
        for name in ("length", "width", "height")
    }
    if case == "log":
        return log.repeat(1).replace(**size)

    simulated = golden(f"{case}_sim")
    rows = [simulated["object_id"].tolist().index(agent_id) for agent_id in agent_ids]
    motion = {
        name: torch.from_numpy(simulated[name][:2][:, rows]) for name in ("x", "y", "z", "heading")
    }
    valid = torch.ones_like(motion["x"], dtype=torch.bool)
    if case == "g_scenario_gen":
        size = {name: torch.from_numpy(simulated[name])[rows].repeat(2, 1, 1) for name in size}
        return BoxTrajectory(**motion, **size, valid=valid)
    history = log.slice(0, HISTORY_STEPS).repeat(2)
    motion = {
        name: torch.cat([getattr(history, name), field], dim=-1) for name, field in motion.items()
    }
    return BoxTrajectory(
        **motion,
        **{name: field.repeat(2, 1, 1) for name, field in size.items()},
        valid=torch.cat([history.valid, valid], dim=-1),
    )


def golden_agents(case: str) -> Tensor:
    """Indices of the agents whose features a golden case tells."""
    scenario = golden_scene()
    agent_ids = scenario.agents.agent_id[scenario.log.valid[:, CURRENT_STEP]].tolist()
    return torch.tensor([agent_ids.index(one) for one in golden_features(case)["object_id"]])


def _logged(scenario: Scenario) -> BoxTrajectory:
    """The log in the frame of its file."""
    log, size = scenario.log, scenario.log_size.float()

    def uncentered(centered: Tensor, origin: Tensor) -> Tensor:
        return torch.where(log.valid, centered + origin, 0.0).float()

    return BoxTrajectory(
        x=uncentered(log.xy[..., 0], scenario.origin[0]),
        y=uncentered(log.xy[..., 1], scenario.origin[1]),
        z=uncentered(log.z, scenario.origin[2]),
        heading=log.heading.float(),
        length=size[..., 0],
        width=size[..., 1],
        height=size[..., 2],
        valid=log.valid,
    )


def _current_size(size: Tensor) -> Tensor:
    return torch.cat([size[:, :HISTORY_STEPS], size[:, [CURRENT_STEP] * FUTURE_STEPS]], dim=1)


def boxes_of(
    x: Tensor, *, y: Tensor | None = None, z: Tensor | None = None, heading: Tensor | None = None
) -> BoxTrajectory:
    """Valid boxes of 4 m x 2 m x 2 m. What is not told is zero."""
    nothing, size = torch.zeros_like(x), torch.full_like(x, 2.0)
    return BoxTrajectory(
        x=x,
        y=nothing if y is None else y,
        z=nothing if z is None else z,
        heading=nothing if heading is None else heading,
        length=2 * size,
        width=size,
        height=size,
        valid=torch.ones_like(x, dtype=torch.bool),
    )


@pytest.mark.parametrize(
    ("case", "differences"),
    [
        *[(case, differences) for case in ROLLOUT_CASES for differences in BOTH],
        ("g_scenario_gen", Differences.CENTRAL),
    ],
)
def test_rollouts_are_as_fast_as_in_the_challenge(case: str, differences: Differences) -> None:
    features = golden_features(case, differences)
    found = kinematics(golden_boxes(case).take(golden_agents(case)), differences=differences)
    steps = features["valid"].shape[-1]
    for name in MEASURES:
        expected = torch.from_numpy(features[name])
        torch.testing.assert_close(
            getattr(found, name)[..., -steps:], expected, rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize(
    ("case", "differences"),
    [
        ("log", Differences.CENTRAL),
        ("log", Differences.BACKWARD),
        ("g_scenario_gen_log", Differences.CENTRAL),
    ],
)
def test_the_log_is_as_fast_as_in_the_challenge(case: str, differences: Differences) -> None:
    """Where it counts: the file has noise in the heights of absent agents, which we do not keep."""
    features = golden_features(case, differences)
    boxes = golden_boxes(case).take(golden_agents(case))
    found = kinematics(boxes, differences=differences)
    steps = features["valid"].shape[-1]
    speed_valid, acceleration_valid = kinematic_validity(
        boxes.valid[..., -steps:], differences=differences
    )
    assert speed_valid.any(-1).all()
    for name in MEASURES:
        counts = speed_valid if name.endswith("speed") else acceleration_valid
        expected = torch.from_numpy(features[name])[counts]
        value = getattr(found, name)[..., -steps:][counts]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


@pytest.mark.parametrize("differences", BOTH)
def test_a_steady_climb_has_its_speed_in_space(differences: Differences) -> None:
    time = torch.arange(6.0)[None]
    boxes = boxes_of(0.2 * time, y=0.3 * time, z=0.6 * time)
    found = kinematics(boxes, differences=differences)
    assert found.linear_speed[0, 1:-1].tolist() == pytest.approx([7.0] * 4, abs=1e-5)
    assert found.linear_acceleration[0, 2:-2].tolist() == pytest.approx([0.0] * 2, abs=1e-4)
    in_plane = planar_speed(boxes, differences=differences)
    assert in_plane[0, 1:-1].tolist() == pytest.approx([math.sqrt(13)] * 4, abs=1e-5)


@pytest.mark.parametrize("differences", BOTH)
def test_a_braking_car_has_a_negative_acceleration(differences: Differences) -> None:
    time = torch.arange(10.0)[None] / 10
    found = kinematics(boxes_of(10 * time - 2 * time**2), differences=differences)
    assert found.linear_acceleration[0, 2:-2].tolist() == pytest.approx([-4.0] * 6, abs=1e-3)


@pytest.mark.parametrize("differences", BOTH)
def test_a_car_that_turns_past_pi_keeps_its_angular_speed(differences: Differences) -> None:
    heading = 3.0 + 0.1 * torch.arange(8.0)
    wrapped = torch.where(heading > math.pi, heading - 2 * math.pi, heading)[None]
    found = kinematics(boxes_of(torch.zeros(1, 8), heading=wrapped), differences=differences)
    assert found.angular_speed[0, 1:-1].tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert found.angular_acceleration[0, 2:-2].tolist() == pytest.approx([0.0] * 4, abs=1e-3)


@pytest.mark.parametrize("differences", BOTH)
def test_a_car_that_begins_to_turn_has_an_angular_acceleration(differences: Differences) -> None:
    heading = 0.5 * 2 * (torch.arange(8.0)[None] / 10) ** 2
    found = kinematics(boxes_of(torch.zeros(1, 8), heading=heading), differences=differences)
    assert found.angular_acceleration[0, 2:-2].tolist() == pytest.approx([2.0] * 4, abs=1e-4)


def test_a_half_turn_in_two_steps_counts_as_clockwise() -> None:
    """The wrap is to [-pi, pi), of the whole difference of two steps."""
    half_turn = torch.tensor([[0.0, 1.0, math.pi]])
    found = kinematics(boxes_of(torch.zeros(1, 3), heading=half_turn), differences=BOTH[0])
    assert found.angular_speed[0, 1].item() == pytest.approx(-math.pi / 2 / 0.1, abs=1e-5)


def test_the_challenge_of_2023_wraps_changes_of_the_angular_speed() -> None:
    """A car turns by 3 rad in one step: 30 rad/s, which is -1.416 rad/s plus five turns."""
    heading = torch.tensor([[0.0, 0.0, 3.0]])
    boxes = boxes_of(torch.zeros(1, 3), heading=heading)
    found = kinematics(boxes, differences=Differences.BACKWARD)
    assert found.angular_speed[0, 2].item() == pytest.approx(30.0, abs=1e-4)
    expected = (30 - 5 * 2 * math.pi) / 0.1
    assert found.angular_acceleration[0, 2].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 6])
def test_what_is_too_near_to_an_end_is_not_a_number(num_steps: int) -> None:
    boxes = boxes_of(torch.zeros(2, num_steps))
    for differences, ends in [(Differences.CENTRAL, 1), (Differences.BACKWARD, 0)]:
        found = kinematics(boxes, differences=differences)
        step = torch.arange(num_steps)
        for name, order in zip(MEASURES, [1, 2, 1, 2], strict=True):
            told = (step >= order) & (step < num_steps - order * ends)
            assert getattr(found, name).isfinite().tolist() == [told.tolist()] * 2, name
        speed = planar_speed(boxes, differences=differences)
        assert speed.isfinite().equal(found.linear_speed.isfinite())


def test_central_differences_count_where_both_neighbours_are_valid() -> None:
    valid = torch.tensor([[True, True, False, True, True, True, True, False, True]])
    speed, acceleration = kinematic_validity(valid, differences=Differences.CENTRAL)
    #          at the ends no;  at 2 although it is invalid
    assert speed.int().tolist() == [[0, 0, 1, 0, 1, 1, 0, 1, 0]]
    assert acceleration.int().tolist() == [[0, 0, 0, 1, 0, 0, 1, 0, 0]]


def test_backward_differences_count_where_the_step_and_the_one_before_are_valid() -> None:
    valid = torch.tensor([[True, True, False, True, True, True, True, False, True]])
    speed, acceleration = kinematic_validity(valid, differences=Differences.BACKWARD)
    assert speed.int().tolist() == [[0, 1, 0, 0, 1, 1, 1, 0, 0]]
    assert acceleration.int().tolist() == [[0, 0, 0, 0, 0, 1, 1, 0, 0]]


@given(seed=st.integers(0, 2**31), differences=st.sampled_from(BOTH))
def test_every_rollout_and_agent_moves_by_itself(seed: int, differences: Differences) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y, z, heading = (100 * torch.randn(3, 2, 4, NUM_STEPS, generator=generator) for _ in "1234")
    boxes = boxes_of(x, y=y, z=z, heading=heading)
    together = kinematics(boxes, differences=differences)
    alone = kinematics(boxes.map(lambda tensor: tensor[1, 0, 2:3]), differences=differences)
    for name in MEASURES:
        value = getattr(together, name)[1, 0, 2:3]
        torch.testing.assert_close(value, getattr(alone, name), rtol=0, atol=0, equal_nan=True)


@given(seed=st.integers(0, 2**31), differences=st.sampled_from(BOTH))
def test_moving_the_scene_changes_no_speed(seed: int, differences: Differences) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Multiples of 1/64 m stay exact when they are moved by whole metres.
    x, y, z = (torch.randint(-640, 640, (3, 9), generator=generator) / 64 for _ in "xyz")
    there = kinematics(boxes_of(x, y=y, z=z), differences=differences)
    moved = kinematics(boxes_of(x + 700, y=y - 300, z=z + 9), differences=differences)
    for name in MEASURES:
        torch.testing.assert_close(
            getattr(there, name), getattr(moved, name), rtol=0, atol=0, equal_nan=True
        )
