"""What agents see on the straight road. See `tests.scenes.straight_road`."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor
from torch.testing import assert_close

from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Scenario, SimState
from catk_sim.dynamics import StateDynamics
from catk_sim.envs import WaymoVectorEnv
from catk_sim.envs.views import ViewSizes, view, view_all, view_sdc, view_space, visible_points
from catk_sim.geometry.se2 import rotate
from catk_sim.simulator import Simulator
from tests.catk_sim.envs import variations
from tests.scenes import straight_road

SIZES = ViewSizes(max_neighbors=3, max_map_points=8, max_lights=2)
A, B, C = 0, 1, 2


def state_of(*scenarios: Scenario) -> SimState:
    batch = collate(list(scenarios))
    return Simulator(StateDynamics()).reset(batch, batch.agents.valid)


def seen(*scenarios: Scenario) -> dict[str, Tensor]:
    """What all agents of the scenarios see."""
    state = state_of(*scenarios)
    return view_all(
        state, visible_points(state.scenario.roadgraph), SIZES, state.controlled.shape[1]
    )


def turned(scenario: Scenario, angle: float) -> Scenario:
    """The whole scene, turned and moved."""
    shift = torch.tensor([30.0, -20.0])

    def move(xy: Tensor) -> Tensor:
        return rotate(xy, torch.full(xy.shape[:-1], angle)) + shift

    log, graph, lights = scenario.log, scenario.roadgraph, scenario.traffic_lights
    velocity = rotate(log.velocity, torch.full(log.heading.shape, angle))
    return scenario.replace(
        log=log.replace(xy=move(log.xy), heading=log.heading + angle, velocity=velocity),
        roadgraph=graph.replace(xyz=torch.cat([move(graph.xyz[..., :2]), graph.xyz[..., 2:]], -1)),
        traffic_lights=lights.replace(
            stop_xyz=torch.cat([move(lights.stop_xyz[..., :2]), lights.stop_xyz[..., 2:]], -1)
        ),
    )


def test_an_agent_knows_itself_and_its_goal() -> None:
    own = seen(straight_road())["own"][0]
    # A is at x = -30 and drives 10 m/s; the log has it at x = 50 after 8 s.
    expected = [10, 0, 0, 0, 4.8, 2, 1, 0, 0, 0, 80, 0, 8, 1]
    assert_close(own[A], torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-4)
    # B stands, and is to be where it is. C leaves after step 60.
    assert own[B, 6:].tolist() == [0, 1, 0, 0, 0, 0, 8, 1]
    assert_close(own[C, 10:], torch.tensor([0.0, 0.0, 5.0, 1.0]))


def test_acceleration_and_yaw_rate_are_those_of_the_last_step() -> None:
    road = straight_road()
    velocity, heading = road.log.velocity.clone(), road.log.heading.clone()
    velocity[A, 9, 0] = 9.8
    heading[A, 9] = -0.05
    log = road.log.replace(velocity=velocity, heading=heading)
    own = seen(road.replace(log=log))["own"][0, A]
    assert_close(own[2:4], torch.tensor([2.0, 0.5]), rtol=0, atol=1e-4)
    valid = log.valid.clone()
    valid[A, 9] = False
    own = seen(road.replace(log=log.replace(valid=valid)))["own"][0, A]
    assert own[2:4].tolist() == [0, 0]


def test_an_agent_without_a_future_has_no_goal() -> None:
    own = seen(variations.short(straight_road()))["own"][0]
    assert not own[:, 10:].any()


def test_neighbors_are_the_nearest_first_and_in_the_agents_frame() -> None:
    road = straight_road()
    log = road.log.replace(heading=road.log.heading.clone())
    log.heading[A] = math.pi / 2
    views = seen(road.replace(log=log))
    # A faces north, so that what is east is to its right.
    first = [8, -40, 0, -1, 0, 0, 1, 1, 0, 1, 0, 0]
    assert_close(views["neighbors"][0, A, 0], torch.tensor(first).float(), rtol=0, atol=1e-4)
    assert views["neighbors"][0, A, 1, :2].tolist() == pytest.approx([0, -70], abs=1e-4)
    assert views["neighbors_valid"][0, A].tolist() == [True, True, False]
    assert not views["neighbors"][0, A, 2].any()
    # To B, C is the nearer one; and A drives 10 m/s east.
    assert views["neighbors"][0, B, :2, 0].tolist() == pytest.approx([30, -40], abs=1e-4)
    assert views["neighbors"][0, B, 1, 4].item() == pytest.approx(10)


def test_there_is_room_for_the_nearest_neighbors_only() -> None:
    state = state_of(straight_road())
    points = visible_points(state.scenario.roadgraph)
    few = ViewSizes(max_neighbors=1, max_map_points=8, max_lights=2)
    views = view_all(state, points, few, 3)
    assert views["neighbors"].shape == (1, 3, 1, 12)
    assert views["neighbors"][0, :, 0, 0].tolist() == pytest.approx([40, 30, -30])


def test_map_points_lie_around_a_place_ahead() -> None:
    views = seen(straight_road())
    points = views["map"][0, A]
    # Ten metres ahead of A is (-20, -2), on lane 1; the edge and lane 2 are 2 and 4 m away.
    assert points[0].tolist() == pytest.approx([10, 0, 1, 0, 1, 0], abs=1.01)
    assert (points[:, :2] - torch.tensor([10.0, 0.0])).norm(dim=-1).max() < 6
    is_edge = points[:, 5] == 1
    assert is_edge.any()
    assert_close(points[is_edge, 1], torch.full((int(is_edge.sum()),), -2.0))
    opposite = (points[:, 4] == 1) & (points[:, 1] > 3)
    assert (points[opposite, 2] == -1).all()
    assert views["map_valid"][0, A].all()


def test_only_lanes_and_road_edges_are_on_the_map() -> None:
    road = straight_road()
    kinds = road.roadgraph.feature_type.clone()
    kinds[2] = 18  # The southern edge is a crosswalk.
    graph = road.roadgraph.replace(feature_type=kinds)
    points = seen(road.replace(roadgraph=graph))["map"][0, A]
    assert (points[:, 4] == 1).all()


def test_lights_show_their_state() -> None:
    views = seen(straight_road())
    assert_close(views["lights"][0, A, 0], torch.tensor([90.0, 0, 0, 0, 0, 1]), rtol=0, atol=1e-4)
    assert views["lights_valid"][0, A].tolist() == [True, False]


def test_turning_and_moving_the_scene_changes_nothing() -> None:
    one, other = seen(variations.crowd(9, seed=1)), seen(turned(variations.crowd(9, seed=1), 2.0))
    assert_close(one["own"], other["own"], rtol=1e-3, atol=1e-3)
    assert_close(one["neighbors"], other["neighbors"], rtol=1e-3, atol=1e-3)
    assert_close(one["lights"], other["lights"], rtol=1e-3, atol=1e-3)
    # Points that are equally far may change places.
    total = [views["map"].sum(-2) for views in (one, other)]
    assert_close(*total, rtol=1e-2, atol=5)


def test_who_is_not_controlled_or_absent_sees_nothing() -> None:
    state = state_of(straight_road())
    state = state.replace(controlled=torch.tensor([[True, False, False]]))
    points = visible_points(state.scenario.roadgraph)
    views = view_all(state, points, SIZES, 5)
    assert views["present"][0, :, 0].tolist() == [True, False, False, False, False]
    for values in views.values():
        assert values.shape[:2] == (1, 5)
        assert not values[0, 1:].any()


def test_rows_are_those_agents_in_order() -> None:
    state = state_of(straight_road(), variations.crowd(4, seed=4))
    points = visible_points(state.scenario.roadgraph)
    whole = view_all(state, points, SIZES, 4)
    agents = torch.tensor([[False, True, False, False], [True, False, False, False]])
    rows = view(state, points, SIZES, agents)
    for name, values in rows.items():
        assert_close(values, torch.stack([whole[name][0, 1], whole[name][1, 0]]))


def test_the_sdc_sees_what_it_sees_among_all() -> None:
    state = state_of(straight_road(), variations.with_present(straight_road(), []))
    points = visible_points(state.scenario.roadgraph)
    alone, together = view_sdc(state, points, SIZES), view_all(state, points, SIZES, 3)
    for name, values in alone.items():
        assert_close(values[0], together[name][0, A])
        assert not values[1].any()


def test_a_scenario_without_a_map_or_others_is_seen() -> None:
    views = seen(variations.without_map(variations.crowd(1)))
    assert views["present"].all()
    for name in ("neighbors", "map", "lights"):
        assert not views[name].any()
        assert not views[f"{name}_valid"].any()


def test_views_are_in_their_space() -> None:
    views = seen(variations.crowd(9, seed=1))
    space = view_space(SIZES, 9)
    assert space.contains({name: values[0].numpy() for name, values in views.items()})


ARGUMENTS: dict[str, Any] = {
    "data": [straight_road(), variations.crowd(6)],
    "observation": "agents",
    "action": "bicycle",
    "max_map_points": 16,
    "max_lights": 1,
    "max_neighbors": 4,
}


@pytest.mark.parametrize("controlled", ["all", "sdc"])
def test_gymnasium_finds_nothing_to_complain_about(controlled: str) -> None:
    env = gymnasium.make("CatK-Waymo-v0", controlled=controlled, **ARGUMENTS).unwrapped
    check_env(env, skip_render_check=True)


def test_the_environment_shows_views() -> None:
    envs = WaymoVectorEnv(2, controlled="all", **ARGUMENTS)
    observation, _ = envs.reset(seed=0)
    assert observation["own"].shape == (2, 6, 14)
    assert observation["neighbors"].shape == (2, 6, 4, 12)
    assert observation["map"].shape == (2, 6, 16, 6)
    sdc, _ = WaymoVectorEnv(2, controlled="sdc", **ARGUMENTS).reset(seed=0)
    for name in sdc:
        np.testing.assert_allclose(sdc[name], observation[name][:, 0], rtol=1e-6)
