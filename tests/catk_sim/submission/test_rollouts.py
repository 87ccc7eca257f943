from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS, HISTORY_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datasets.errors import DataError
from catk_sim.rollout import rollout
from catk_sim.submission import (
    NUM_ROLLOUTS,
    ScenarioRollouts,
    check_rollouts,
    simulated_rollouts,
)
from catk_sim.submission.rollouts import decode, encode
from catk_sim.submission.schema import message_class
from policies.registry import make_policy
from tests import scenes
from tests.catk_sim.submission.made import (
    FIELDS,
    assert_same,
    changed,
    named_road,
    noise,
    origin_at,
)


def test_what_is_encoded_is_decoded() -> None:
    assert_same(decode(encode(noise()), ""), noise())


def test_rollouts_are_told_in_the_files_coordinates() -> None:
    road = origin_at(named_road(), -7792.0, 5010.0, 13.0)
    driven = rollout(make_policy("constant_velocity"), collate([road]), num_rollouts=2)
    [(scenario, rollouts)] = simulated_rollouts(driven.simulated, collate([road]))
    assert scenario.scenario_id == ("road",)
    assert rollouts.object_id.tolist() == [100, 102]
    # Agent 100 is at (-30, -2) at the current step and drives east at a metre a step.
    expected = -7792 - 30 + np.arange(1, FUTURE_STEPS + 1)
    np.testing.assert_allclose(rollouts.x[:, 0], [expected, expected], atol=2e-3)
    np.testing.assert_array_equal(rollouts.y[:, 0], np.full((2, FUTURE_STEPS), 5008, np.float32))
    np.testing.assert_array_equal(rollouts.z[:, 1], np.full((2, FUTURE_STEPS), 13, np.float32))


def test_coordinates_are_rounded_once() -> None:
    road = origin_at(named_road(), 8000.0, 0.0, 0.0)
    batch = collate([road])
    driven = rollout(make_policy("constant_velocity"), batch, num_rollouts=1)
    xy = driven.simulated.xy.clone()
    xy[..., 0] = 0.0001
    xy[:, :, :, HISTORY_STEPS:, 0] += torch.arange(FUTURE_STEPS) / 3
    moved = driven.simulated.replace(xy=xy)
    [(_, rollouts)] = simulated_rollouts(moved, batch)
    exact = xy[0, 0, 0, HISTORY_STEPS:, 0].double().numpy() + 8000
    np.testing.assert_array_equal(rollouts.x[0, 0], exact.astype(np.float32))


def test_every_scenario_of_a_batch_has_its_own_agents() -> None:
    batch = collate([named_road("a"), scenes.straight_road()])
    driven = rollout(make_policy("constant_velocity"), batch, num_rollouts=NUM_ROLLOUTS)
    found = dict(zip("ab", simulated_rollouts(driven.simulated, batch), strict=True))
    assert [rollouts.scenario_id for _, rollouts in found.values()] == ["a", "straight_road"]
    assert found["a"][1].object_id.tolist() == [100, 102]
    assert found["b"][1].object_id.tolist() == [100, 101, 102]
    for scenario, rollouts in found.values():
        check_rollouts(rollouts, scenario)
        for agent, number in enumerate(rollouts.object_id):
            index = scenario.agents.agent_id.tolist().index(number)
            row = 0 if rollouts.scenario_id == "a" else 1
            heading = driven.simulated.heading[:, row, index, HISTORY_STEPS:]
            np.testing.assert_array_equal(rollouts.heading[:, agent], heading.numpy())


def test_a_scenario_without_a_future_can_be_submitted_for() -> None:
    road = named_road()
    lights = road.traffic_lights
    seen = CURRENT_STEP + 1
    history = road.replace(
        timestamps=road.timestamps[:seen],
        log=road.log.slice(0, seen),
        log_size=road.log_size[:, :seen],
        traffic_lights=lights.map(lambda tensor: tensor[:, :seen] if tensor.dim() > 1 else tensor),
    )
    driven = rollout(make_policy("idm"), collate([history]), num_rollouts=NUM_ROLLOUTS)
    [(scenario, rollouts)] = simulated_rollouts(driven.simulated, collate([history]))
    check_rollouts(rollouts, scenario)


def with_value(field: str, value: float) -> Callable[[ScenarioRollouts], ScenarioRollouts]:
    def change(rollouts: ScenarioRollouts) -> ScenarioRollouts:
        values = getattr(rollouts, field).copy()
        values[31, 1, 79] = value
        return changed(rollouts, **{field: values})

    return change


def with_agents(*object_id: int) -> Callable[[ScenarioRollouts], ScenarioRollouts]:
    return lambda rollouts: changed(rollouts, object_id=np.array(object_id))


def cut(field: str, *index: slice) -> Callable[[ScenarioRollouts], ScenarioRollouts]:
    return lambda rollouts: changed(rollouts, **{field: getattr(rollouts, field)[index]})


WHOLE = slice(None)
REJECTED = {
    "a sim agent is missing": (with_agents(100), r"lack the sim agents \[102\]"),
    "an agent is no sim agent": (with_agents(100, 101, 102), r"no sim agents \[101\]"),
    "an agent is unknown": (
        with_agents(100, 7),
        r"lack the sim agents \[102\] and have agents that are no sim agents \[7\]",
    ),
    "an agent comes twice": (with_agents(100, 102, 102), r"more than once the agents \[102\]"),
    "31 rollouts": (
        cut("x", slice(31)),
        r"wanted x .* \(32, 2, 80\) .* got float32 of \(31, 2, 80",
    ),
    "79 steps": (cut("heading", WHOLE, WHOLE, slice(79)), r"wanted heading .*\(32, 2, 79\)"),
    "an agent without z": (cut("z", WHOLE, slice(1)), r"wanted z .*\(32, 1, 80\)"),
    "float64": (
        lambda rollouts: changed(rollouts, y=rollouts.y.astype(np.float64)),
        "wanted y in float32 .* got float64",
    ),
    "NaN": (with_value("heading", np.nan), r"heading is not finite for the agents \[102\]"),
    "infinity": (with_value("x", -np.inf), r"x is not finite for the agents \[102\]"),
    "another scenario": (
        lambda rollouts: changed(rollouts, scenario_id="street"),
        "scenario 'street': the rollouts are for scenario 'road'",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_what_the_server_would_reject_is_refused(name: str) -> None:
    change, complaint = REJECTED[name]
    check_rollouts(noise(), named_road())
    with pytest.raises(ValueError, match=complaint) as refused:
        check_rollouts(change(noise()), named_road())
    assert str(refused.value).startswith("scenario 'road'") or name == "another scenario"


def scenario_message() -> Any:
    return message_class("ScenarioRollouts").FromString(encode(noise()))


def test_a_joint_scene_may_list_its_agents_in_another_order() -> None:
    message = scenario_message()
    trajectories = message.joint_scenes[3].simulated_trajectories
    turned = [trajectories[1], trajectories[0]]
    scene = message_class("JointScene")(simulated_trajectories=turned)
    message.joint_scenes[3].CopyFrom(scene)
    assert_same(decode(message.SerializeToString(), ""), noise())


def lose_an_agent(message: Any) -> None:
    del message.joint_scenes[3].simulated_trajectories[0]


def repeat_an_agent(message: Any) -> None:
    message.joint_scenes[3].simulated_trajectories[0].object_id = 102


def repeat_the_first(message: Any) -> None:
    message.joint_scenes[0].simulated_trajectories[0].object_id = 102


def cut_a_step(message: Any) -> None:
    trajectory = message.joint_scenes[31].simulated_trajectories[1]
    trajectory.center_z = trajectory.center_z[:-4]


def lose_all(message: Any) -> None:
    message.ClearField("joint_scenes")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lose_an_agent, r"here, scenario 'road', joint scene 3: wanted .*\[100, 102\].*\[102\]"),
        (repeat_an_agent, r"joint scene 3: .*got \[102, 102\]"),
        (repeat_the_first, r"joint scene 0: .*got \[102, 102\]"),
        (cut_a_step, r"wanted 80 packed floats as center_z of each agent, got \[316\] bytes"),
        (lose_all, "wanted at least one joint scene, got none"),
    ],
)
def test_what_is_not_rollouts_is_told(damage: Callable, complaint: str) -> None:
    message = scenario_message()
    damage(message)
    with pytest.raises(DataError, match=complaint):
        decode(message.SerializeToString(), "here")


def test_what_is_no_message_is_told() -> None:
    with pytest.raises(DataError, match="here: not a ScenarioRollouts message"):
        decode(b"\xff\xff", "here")


def test_the_fields_are_told_apart() -> None:
    # The message by Waymo's names, so that writer and reader cannot agree on a mistake.
    trajectory = scenario_message().joint_scenes[2].simulated_trajectories[1]
    named = dict(zip(FIELDS, ("center_x", "center_y", "center_z", "heading"), strict=True))
    for name, field in named.items():
        values = np.frombuffer(getattr(trajectory, field), "<f4")
        np.testing.assert_array_equal(values, getattr(noise(), name)[2, 1])
    assert trajectory.object_id == 102
