import math

import pytest
import torch

from catk_sim.datatypes import (
    AgentType,
    MapFeatureType,
    Scenario,
    SimState,
)
from catk_sim.dynamics import StateDynamics
from catk_sim.lane_following import ROUTE_LENGTH, LaneRoutes
from catk_sim.rollout import sim_agents
from catk_sim.simulator import Simulator
from tests import scenes
from tests.catk_sim.lane_scenes import fork


def start(scenario: Scenario) -> SimState:
    return Simulator(StateDynamics()).reset(scenario, sim_agents(scenario))


def route_of(scenario: Scenario) -> LaneRoutes:
    """The route of car A."""
    routes = LaneRoutes.from_state(start(scenario))
    assert routes.valid[0]
    return routes.map(lambda tensor: tensor[:1])


def test_a_route_starts_at_the_agent_and_follows_its_lane() -> None:
    route = route_of(scenes.straight_road())
    expected = torch.stack([torch.arange(131) - 30.0, torch.full((131,), -2.0)], dim=-1)
    torch.testing.assert_close(route.xy[0, :131], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(route.heading[0], torch.zeros(ROUTE_LENGTH + 1))
    assert route.length.item() == pytest.approx(130.0, abs=1e-3)


@pytest.mark.parametrize("links", [[(10, 20), (10, 30)], [(10, 30), (10, 20)]])
def test_where_lanes_branch_it_takes_the_least_turn(links: list[tuple[int, int]]) -> None:
    route = route_of(fork(links=links))
    assert route.length.item() == pytest.approx(30 + math.hypot(60, 6), abs=1e-3)
    # 10 m into lane 20.
    south = math.atan2(-6, 60)
    expected = torch.tensor([10 * math.cos(south), -2 + 10 * math.sin(south)])
    torch.testing.assert_close(route.xy[0, 40], expected, rtol=0, atol=1e-3)
    assert route.heading[0, 50].item() == pytest.approx(south, abs=1e-3)


def test_it_turns_where_the_lane_leads() -> None:
    route = route_of(fork(links=[(10, 30)]))
    torch.testing.assert_close(
        route.xy[0, int(route.length.item())], torch.tensor([10.0, 28.0]), rtol=0, atol=1.0
    )
    assert route.heading[0, 65].item() == pytest.approx(math.pi / 2, abs=1e-3)
    assert route.heading.diff().abs().max() < 0.2


def test_without_an_exit_the_route_ends_with_the_lane() -> None:
    assert route_of(fork(links=[])).length.item() == pytest.approx(30.0, abs=1e-3)
    # A link to a lane that is not on the map leads nowhere.
    assert route_of(fork(links=[(10, 99)])).length.item() == pytest.approx(30.0, abs=1e-3)


def test_it_knows_the_speed_limits_along_the_way() -> None:
    route = route_of(fork(links=[(10, 20)]))
    torch.testing.assert_close(
        route.speed_limit[0, [0, 29, 31, 80]], 0.44704 * torch.tensor([25.0, 25.0, 35.0, 35.0])
    )


def test_it_knows_where_lights_stop_it() -> None:
    assert route_of(fork(links=[(10, 20)])).stop.item() == pytest.approx(32.0, abs=1.0)
    assert route_of(fork(links=[(10, 30)])).stop.item() == math.inf


def test_a_ring_is_driven_round_and_round() -> None:
    """Lane 10 leads back to itself."""
    route = route_of(fork(links=[(10, 10)]))
    assert route.length.item() == ROUTE_LENGTH


def test_poses_lie_between_the_points() -> None:
    route = route_of(scenes.straight_road())
    xy, heading = route.pose_at(torch.tensor([12.25]))
    torch.testing.assert_close(xy[0], torch.tensor([-17.75, -2.0]), rtol=0, atol=1e-4)
    assert heading.item() == 0
    end, _ = route.pose_at(torch.tensor([float(ROUTE_LENGTH)]))
    torch.testing.assert_close(end, route.xy[:, -1])


def test_bike_lanes_are_not_for_cars() -> None:
    routes = LaneRoutes.from_state(start(fork(links=[], kind=int(MapFeatureType.LANE_BIKE_LANE))))
    assert not routes.valid.any()


@pytest.mark.parametrize(
    ("y", "heading", "has_route"),
    [
        (-2.0, 0.0, True),
        (-3.9, 0.0, True),
        (-4.1, 0.0, False),
        (-2.0, 1.0, True),
        (-2.0, 1.1, False),
        (0.2, math.pi, True),
        (0.1, 0.0, False),
        (-2.0, 2 * math.pi, True),
    ],
)
def test_only_who_is_on_a_lane_and_along_it_has_a_route(
    y: float, heading: float, has_route: bool
) -> None:
    scenario = scenes.straight_road()
    xy = scenario.log.xy.clone()
    xy[0, :, 1] = y
    log = scenario.log.replace(xy=xy, heading=torch.full_like(scenario.log.heading, heading))
    routes = LaneRoutes.from_state(start(scenario.replace(log=log)))
    assert routes.valid[0] == has_route


def test_only_vehicles_have_routes() -> None:
    scenario = scenes.straight_road()
    kinds = [AgentType.CYCLIST, AgentType.PEDESTRIAN, AgentType.OTHER]
    xy = scenario.log.xy[:1].expand(3, -1, -1)
    scenario = scenario.replace(agents=scenes.agents_of(kinds), log=scenario.log.replace(xy=xy))
    assert not LaneRoutes.from_state(start(scenario)).valid.any()


def test_a_map_without_lanes_has_no_routes() -> None:
    scenario = scenes.straight_road()
    roadgraph = scenario.roadgraph
    bare = scenario.replace(
        roadgraph=roadgraph.replace(feature_type=torch.full_like(roadgraph.feature_type, 15))
    )
    routes = LaneRoutes.from_state(start(bare))
    assert not routes.valid.any()
    assert routes.xy.isfinite().all()


def test_a_batch_has_the_routes_of_its_members() -> None:
    scenario = scenes.straight_road()
    moved = scenario.replace(log=scenario.log.replace(xy=scenario.log.xy + 1.0))
    batch = LaneRoutes.from_state(start(Scenario.stack([scenario, moved])))
    for index, member in enumerate((scenario, moved)):
        alone = LaneRoutes.from_state(start(member))
        assert torch.equal(batch.xy[index], alone.xy)
        assert torch.equal(batch.valid[index], alone.valid)
