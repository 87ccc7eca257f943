import pytest
import torch

from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.metrics.planning.realism import ego_joint_scenes, only_ego_evaluated
from catk_sim.metrics.sim_agents import (
    JointScenes,
    PreparedScene,
    SimAgentsMetric,
    SimAgentsMetrics,
)
from tests.catk_sim.metrics.planning.drives import at_speed, road_with

METRIC = SimAgentsMetric("2024")


def scene() -> Scenario:
    """The ego behind a car that leaves after 2 s, and one beside both."""
    road = road_with(at_speed(-20, -2, 8), at_speed(0, -2, 1), at_speed(0, 2, 0))
    valid = road.log.valid.clone()
    valid[1, 31:] = False
    everyone = torch.ones(3, dtype=torch.bool)
    agents = road.agents.replace(to_predict=everyone)
    road = road.replace(log=road.log.replace(valid=valid), agents=agents)
    return road.to(torch.float64)


def prepared(scenario: Scenario) -> PreparedScene:
    return METRIC.prepare(only_ego_evaluated(scenario))


def scored(scenario: Scenario, simulated: Trajectory) -> SimAgentsMetrics:
    ready = prepared(scenario)
    return METRIC(ready, ego_joint_scenes(simulated, ready.scene))


def rollouts_of(scenario: Scenario) -> Trajectory:
    return scenario.log.to(torch.float32).repeat(4).map(torch.clone)


def test_only_the_ego_is_scored() -> None:
    ready = prepared(scene())
    assert ready.scene.object_id[ready.scene.evaluated].tolist() == [100]
    assert ready.scene.num_agents == 3


def test_the_log_is_as_realistic_as_can_be() -> None:
    found = scored(scene(), rollouts_of(scene()))
    assert found.average_displacement_error == 0
    assert found.simulated_collision_rate == 0
    assert found.metametric > 0.8


def test_the_egos_features_are_those_among_all_agents() -> None:
    whole = scene()
    whole = whole.replace(log=whole.log.replace(valid=torch.ones_like(whole.log.valid)))
    simulated = rollouts_of(whole)
    simulated.xy[:, 0, 11:, 1] += torch.linspace(0, 3, 80)
    everyone, alone = METRIC.prepare(whole), prepared(whole)
    expected = METRIC.features(everyone, JointScenes.from_rollout(simulated, everyone.scene))
    found = METRIC.features(alone, ego_joint_scenes(simulated, alone.scene))
    for name, value in vars(found).items():
        if value is not None:
            torch.testing.assert_close(
                value, getattr(expected, name)[:, :1], rtol=0, atol=0, equal_nan=True
            )


def test_an_ego_that_drives_worse_is_less_realistic() -> None:
    rollouts = rollouts_of(scene())
    rollouts.xy[:, 0, 11:, 1] += torch.linspace(0, 20, 80)
    found = scored(scene(), rollouts)
    assert found.metametric < scored(scene(), rollouts_of(scene())).metametric - 0.2
    assert found.simulated_offroad_rate == 1
    assert found.average_displacement_error > 1


def test_the_ego_collides_with_whom_it_meets() -> None:
    rollouts = rollouts_of(scene())
    rollouts.xy[:, 1, 11:31] = rollouts.xy[:, 0, 11:31]
    assert scored(scene(), rollouts).simulated_collision_rate == 1


def test_who_has_left_is_not_in_the_way() -> None:
    """The ego passes where the other one was last, at x = 2: the third one is the nearest."""
    ready = prepared(scene())
    found = METRIC.features(ready, ego_joint_scenes(rollouts_of(scene()), ready.scene))
    assert not found.collision_per_step.any()
    gap = (rollouts_of(scene()).xy[0, 0, 31:, 0] - 0).abs() - 4.8
    apart = found.distance_to_nearest_object[0, 0, 20:]
    # Side by side the gap is that between the lanes, 4 m less a width.
    torch.testing.assert_close(apart.amin(), torch.tensor(2.0), rtol=0, atol=1e-5)
    assert (apart >= gap - 1e-5).all()


def test_an_ego_that_leaves_is_refused() -> None:
    rollouts = rollouts_of(scene())
    rollouts.valid[:, 0, 50] = False
    with pytest.raises(ValueError, match="4 futures of sim agents have steps without the agent"):
        scored(scene(), rollouts)


def test_more_agents_than_the_ego_are_refused() -> None:
    ready = METRIC.prepare(scene())
    with pytest.raises(ValueError, match=r"one agent to evaluate.*got one with 3"):
        ego_joint_scenes(rollouts_of(scene()), ready.scene)
