import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catk_sim.constants import NUM_STEPS
from catk_sim.datasets import open_scenarios
from catk_sim.datatypes import MapFeatureType, RoadGraph, Scenario
from catk_sim.lane_following import ROUTE_LENGTH
from catk_sim.planning import serve
from catk_sim.planning.process import encode
from catk_sim.planning.route import Route
from tests import scenes
from tests.catk_sim.lane_scenes import fork, lane_map
from tests.shared import shared_path


def logged(scenario: Scenario, way: Tensor, heading: Tensor | float | None = None) -> Scenario:
    """The sdc goes along a way of one point a step, from the current step on."""
    xy = scenario.log.xy.clone()
    xy[0, 10:] = way
    angles = scenario.log.heading.clone()
    if heading is None:
        step = way.diff(dim=0)
        angles[0, 11:] = torch.atan2(step[:, 1], step[:, 0])
    else:
        angles[0] = heading
    return scenario.replace(log=scenario.log.replace(xy=xy, heading=angles))


def stepped(*corners: tuple[float, float]) -> Tensor:
    """81 points, evenly along a polyline."""
    xy = torch.tensor(corners)
    arc = torch.cat([torch.zeros(1), xy.diff(dim=0).norm(dim=-1).cumsum(0)])
    wanted = torch.linspace(0, float(arc[-1]), NUM_STEPS - 10)
    index = (torch.searchsorted(arc, wanted, right=True) - 1).clamp(max=len(xy) - 2)
    part = (wanted - arc[index]) / (arc[index + 1] - arc[index])
    return xy[index].lerp(xy[index + 1], part[:, None])


def on_map(roadgraph: RoadGraph) -> Scenario:
    return scenes.straight_road().replace(roadgraph=roadgraph)


def two_lanes_east() -> RoadGraph:
    """Lanes 1 (y = 0) and 2 (y = 4), both eastbound from x = -100 to x = 300."""
    x = [-100.0 + 4 * i for i in range(101)]
    return lane_map({1: [(a, 0.0) for a in x], 2: [(a, 4.0) for a in x]}, [])


def test_on_a_straight_lane_it_begins_beside_the_sdc_and_ends_with_the_lane() -> None:
    scenario = scenes.straight_road()
    beside = scenario.log.xy + torch.tensor([0.0, 0.7])
    route = Route.from_scenario(scenario.replace(log=scenario.log.replace(xy=beside)))
    expected = torch.stack(
        [torch.arange(ROUTE_LENGTH + 1.0) - 30, torch.full((ROUTE_LENGTH + 1,), -2.0)], dim=-1
    )
    torch.testing.assert_close(route.xy, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(route.heading, torch.zeros(ROUTE_LENGTH + 1))
    assert route.length == 130
    assert torch.equal(route.valid, torch.arange(ROUTE_LENGTH + 1) <= 130)
    assert (route.lane_id == 1).all()
    torch.testing.assert_close(route.speed_limit, torch.full((ROUTE_LENGTH + 1,), 25 * 0.44704))


LINKS = [(10, 20), (10, 30)]


@pytest.mark.parametrize(
    ("corners", "lane"),
    [
        # Before the branch: the least turn.
        ([(-30.0, -2.0), (-10.0, -2.0)], 20),
        ([(-30.0, -2.0), (0.0, -2.0), (8.0, 2.0), (10.0, 8.0), (10.0, 20.0)], 30),
        ([(-30.0, -2.0), (0.0, -2.0), (30.0, -5.0)], 20),
    ],
)
def test_where_lanes_branch_it_takes_that_of_the_log(
    corners: list[tuple[float, float]], lane: int
) -> None:
    route = Route.from_scenario(logged(fork(links=LINKS), stepped(*corners)))
    assert route.lane_id[15] == 10
    assert route.lane_id[40] == lane
    assert route.speed_limit[40].item() == pytest.approx({20: 35, 30: 15}[lane] * 0.44704)


def test_it_turns_along_the_lane_without_cutting_the_corner() -> None:
    corners = [(-30.0, -2.0), (0.0, -2.0), (8.0, 2.0), (10.0, 8.0), (10.0, 20.0)]
    route = Route.from_scenario(logged(fork(links=LINKS), stepped(*corners)))
    assert route.length.item() == pytest.approx(30 + 5 * math.pi + 20, abs=1)
    arc, lateral = route.project(torch.tensor([[7.07, 0.93], [10.0, 18.0]]))
    torch.testing.assert_close(lateral, torch.zeros(2), rtol=0, atol=0.1)
    torch.testing.assert_close(
        arc, torch.tensor([30 + 2.5 * math.pi, 40 + 5 * math.pi]), rtol=0, atol=0.2
    )
    assert route.heading[56].item() == pytest.approx(math.pi / 2, abs=0.01)
    assert route.heading.diff().abs().max() < 0.2


def test_it_changes_lanes_where_the_log_does() -> None:
    way = stepped((0.0, 0.0), (40.0, 0.0), (60.0, 4.0), (100.0, 4.0))
    route = Route.from_scenario(logged(on_map(two_lanes_east()), way))
    assert torch.equal(route.lane_id[[0, 45, 55, 200]], torch.tensor([1, 1, 2, 2]))
    y = route.xy[:, 1]
    torch.testing.assert_close(y[:28], torch.zeros(28), rtol=0, atol=1e-3)
    torch.testing.assert_close(y[72:290], torch.full((218,), 4.0), rtol=0, atol=1e-3)
    assert y.diff().min() >= 0
    assert route.heading.max() < 0.2
    torch.testing.assert_close(
        route.xy.diff(dim=0).norm(dim=-1), torch.ones(ROUTE_LENGTH), rtol=0, atol=1e-2
    )


def test_a_log_that_sways_within_its_lane_changes_none() -> None:
    time = torch.linspace(0, 1, 81)
    way = torch.stack([100 * time, 2.3 * (2 * math.pi * time).sin().square()], dim=-1)
    route = Route.from_scenario(logged(on_map(two_lanes_east()), way))
    assert (route.lane_id == 1).all()


def test_off_the_lanes_it_is_the_log_and_straight_on() -> None:
    way = stepped((0.0, 20.0), (30.0, 20.0), (30.0, 50.0))
    route = Route.from_scenario(logged(scenes.straight_road(), way))
    assert (route.lane_id == -1).all()
    assert (route.speed_limit == 0).all()
    assert route.valid.all()
    torch.testing.assert_close(route.project(way)[1], torch.zeros(81), rtol=0, atol=0.5)
    torch.testing.assert_close(route.xy[-1], torch.tensor([30.0, 390.0]), rtol=0, atol=2.0)
    assert route.heading[-1].item() == pytest.approx(math.pi / 2, abs=1e-3)


def test_it_leaves_the_lane_and_comes_back_where_the_log_does() -> None:
    way = stepped((0.0, 0.0), (30.0, 0.0), (45.0, -8.0), (75.0, -8.0), (90.0, 0.0), (120.0, 0.0))
    route = Route.from_scenario(logged(on_map(two_lanes_east()), way))
    arc, lateral = route.project(way)
    assert torch.equal(route.lane_id[arc[[5, 40, 75]].long()], torch.tensor([1, -1, 1]))
    assert lateral.abs().max() < 1.0
    assert arc.diff().min() > 0


def test_without_a_logged_future_it_follows_the_lane_it_is_on() -> None:
    scenario = fork(links=LINKS)
    valid = scenario.log.valid.clone()
    valid[:, 11:] = False
    scenario = scenario.replace(log=scenario.log.replace(valid=valid))
    route = Route.from_scenario(scenario)
    assert torch.equal(route.lane_id[[0, 29, 31]], torch.tensor([10, 10, 20]))
    shorter = scenario.replace(log=scenario.log.slice(0, 11))
    assert torch.equal(Route.from_scenario(shorter).xy, route.xy)


def test_a_standing_sdc_has_a_route_ahead() -> None:
    scenario = logged(on_map(two_lanes_east()), torch.tensor([[0.0, 0.5]]).expand(81, 2), 0.0)
    route = Route.from_scenario(scenario)
    assert route.length == 300
    assert (route.lane_id == 1).all()


def test_lanes_the_other_way_are_not_its_own() -> None:
    """Nearer to lane 2, which runs west along y = 2."""
    scenario = scenes.straight_road()
    way = stepped((-30.0, 0.2), (40.0, 0.2))
    assert (Route.from_scenario(logged(scenario, way)).lane_id == 1).all()


def test_a_sdc_that_reverses_is_sent_forward() -> None:
    way = stepped((0.0, 0.0), (-10.0, 0.0))
    route = Route.from_scenario(logged(on_map(two_lanes_east()), way, 0.0))
    assert route.xy[0].tolist() == pytest.approx([0, 0], abs=1e-4)
    assert route.xy[100].tolist() == pytest.approx([100, 0], abs=1e-3)


def test_it_does_not_come_round_to_where_it_was() -> None:
    """A ring road of radius 20, in one lane that leads on to itself."""
    angle = torch.linspace(0, 2 * math.pi, 65)
    ring = [(20 * math.sin(a), 20 - 20 * math.cos(a)) for a in angle.tolist()]
    scenario = logged(on_map(lane_map({5: ring}, [(5, 5)])), torch.zeros(81, 2), 0.0)
    route = Route.from_scenario(scenario)
    assert 100 < route.length < 2 * math.pi * 20
    assert route.project(torch.tensor([[0.0, 0.3]]))[0].item() == pytest.approx(0, abs=0.5)


def test_a_map_without_lanes_leaves_the_log() -> None:
    scenario = scenes.straight_road()
    kind = torch.full_like(scenario.roadgraph.feature_type, int(MapFeatureType.CROSSWALK))
    route = Route.from_scenario(
        scenario.replace(roadgraph=scenario.roadgraph.replace(feature_type=kind))
    )
    assert (route.lane_id == -1).all()
    torch.testing.assert_close(route.xy[5], torch.tensor([-25.0, -2.0]), rtol=0, atol=1e-4)


def test_points_are_told_along_it_and_to_its_left() -> None:
    route = Route.from_scenario(scenes.straight_road())
    xy = torch.tensor([[-19.75, -1.0], [-19.75, -3.5], [-35.0, -1.0], [105.0, -4.0]])
    arc, lateral = route.project(xy)
    torch.testing.assert_close(arc, torch.tensor([10.25, 10.25, -5.0, 135.0]), rtol=0, atol=1e-3)
    torch.testing.assert_close(lateral, torch.tensor([1.0, -1.5, 1.0, -2.0]), rtol=0, atol=1e-3)


def test_projecting_undoes_a_pose() -> None:
    corners = [(-30.0, -2.0), (0.0, -2.0), (8.0, 2.0), (10.0, 8.0), (10.0, 20.0)]
    route = Route.from_scenario(logged(fork(links=LINKS), stepped(*corners)))
    arc = torch.linspace(-10, 80, 200)
    xy, heading = route.pose_at(arc)
    left = torch.stack([-heading.sin(), heading.cos()], dim=-1)
    found, lateral = route.project(xy + 0.5 * left)
    torch.testing.assert_close(found, arc, rtol=0, atol=0.1)
    torch.testing.assert_close(lateral, torch.full((200,), 0.5), rtol=0, atol=0.02)


def bends() -> Route:
    corners = [(-30.0, -2.0), (0.0, -2.0), (8.0, 2.0), (10.0, 8.0), (10.0, 20.0)]
    return Route.from_scenario(logged(fork(links=LINKS), stepped(*corners)))


def cut(route: Route, *, length: int) -> Route:
    return route.replace(valid=torch.arange(len(route.valid)) <= length)


def short() -> Route:
    """It ends at its first point."""
    return cut(bends(), length=0)


def points() -> Tensor:
    """Beside the route, before it and beyond, in float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(500, 2, generator=generator, dtype=torch.float64) * 40


def test_a_route_that_ends_at_its_first_point_goes_straight_on() -> None:
    xy = points().float()
    arc, lateral = short().project(xy)
    expected = xy + torch.tensor([30.0, 2.0])
    torch.testing.assert_close(torch.stack([arc, lateral], dim=-1), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(short().pose_at(arc)[0][:, 0], xy[:, 0], rtol=0, atol=1e-4)


def test_past_an_end_in_a_bend_the_heading_stays() -> None:
    route = bends()
    end = int(((route.heading > 0.5) & (route.heading < 1.0)).nonzero()[0])
    _, heading = cut(route, length=end).pose_at(torch.tensor([end, end + 50.0]))
    assert heading.tolist() == pytest.approx([float(route.heading[end])] * 2, abs=1e-6)


@pytest.mark.parametrize("make", [bends, short])
def test_arrays_are_told_what_tensors_are(make: Callable[[], Route]) -> None:
    route = make().to(torch.float64)
    arc, lateral = route.project(points())
    xy, heading = route.pose_at(arc)
    told_arc, told_lateral = route.project(points().numpy())
    told_xy, told_heading = route.pose_at(told_arc)
    for told, expected in (
        *((told_arc, arc), (told_lateral, lateral)),
        *((told_xy, xy), (told_heading, heading)),
    ):
        np.testing.assert_allclose(told, expected.numpy(), rtol=0, atol=1e-9)
    assert route.project(np.zeros((0, 2)))[0].shape == (0,)


def test_a_planner_elsewhere_has_the_route_that_one_here_has() -> None:
    route = bends()
    served = serve.Route(**vars(serve.decode(json.loads(json.dumps(encode(route))))))
    assert served.length == route.length
    xy = points().numpy()
    for told, expected in zip(served.project(xy), route.project(xy), strict=True):
        np.testing.assert_array_equal(told, expected)
    arc = served.project(xy)[0]
    for told, expected in zip(served.pose_at(arc), route.pose_at(arc), strict=True):
        np.testing.assert_array_equal(told, expected)


@pytest.mark.parametrize("kind", [list, torch.tensor])
def test_a_planner_elsewhere_may_give_lists_and_tensors(kind: Callable[[Any], Any]) -> None:
    route = bends()
    served = serve.Route(**vars(serve.decode(encode(route))))
    for told, expected in (
        (served.project(kind([[-19.5, -1.0]])), ([10.5], [1.0])),
        (served.pose_at(kind([2.5, -4.0])), ([[-27.5, -2.0], [-34.0, -2.0]], [0.0, 0.0])),
    ):
        for part, wanted in zip(told, expected, strict=True):
            assert isinstance(part, np.ndarray)
            np.testing.assert_allclose(part, wanted, rtol=0, atol=1e-4)


def test_a_batch_has_the_routes_of_its_members() -> None:
    one = scenes.straight_road()
    other = logged(one, stepped((0.0, 20.0), (30.0, 20.0)))
    batch = Route.from_scenario(Scenario.stack([one, other]))
    xy = torch.rand(2, 7, 2) * 50
    arc, lateral = batch.project(xy)
    poses, heading = batch.pose_at(arc)
    for index, scenario in enumerate((one, other)):
        alone = Route.from_scenario(scenario)
        assert torch.equal(batch.xy[index], alone.xy)
        assert torch.equal(arc[index], alone.project(xy[index])[0])
        assert torch.equal(lateral[index], alone.project(xy[index])[1])
        assert torch.equal(poses[index], alone.pose_at(arc[index])[0])
        assert torch.equal(heading[index], alone.pose_at(arc[index])[1])


def test_turning_the_scene_turns_the_route() -> None:
    scenario = fork(links=LINKS)
    roadgraph, log = scenario.roadgraph, scenario.log
    turned = scenario.replace(
        roadgraph=roadgraph.replace(xyz=roadgraph.xyz * torch.tensor([-1.0, -1.0, 1.0])),
        log=log.replace(xy=-log.xy, heading=log.heading + math.pi),
    )
    torch.testing.assert_close(
        Route.from_scenario(turned).xy, -Route.from_scenario(scenario).xy, rtol=0, atol=1e-3
    )


def test_a_scenario_without_an_sdc_is_refused() -> None:
    scenario = scenes.straight_road()
    agents = scenario.agents.replace(is_sdc=torch.zeros_like(scenario.agents.is_sdc))
    with pytest.raises(ValueError, match="one sdc that is present"):
        Route.from_scenario(scenario.replace(agents=agents))
    valid = scenario.log.valid.clone()
    valid[0, 10] = False
    with pytest.raises(ValueError, match="one sdc that is present"):
        Route.from_scenario(scenario.replace(log=scenario.log.replace(valid=valid)))


def along_the_log(scenario: Scenario) -> tuple[Tensor, Tensor]:
    """Arc and lateral offset of the logged sdc from the current step on."""
    sdc = int(scenario.agents.is_sdc.nonzero()[0, 0])
    way = scenario.log.xy[sdc, 10:][scenario.log.valid[sdc, 10:]]
    return Route.from_scenario(scenario).project(way)


def test_generated_cars_go_along_their_routes() -> None:
    for scenario in open_scenarios("synthetic:3:777"):
        arc, lateral = along_the_log(scenario.to(torch.float32))
        assert arc.diff().min() > -0.02
        assert lateral.abs().max() < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data/womd_scenario_proto/", "data/womd_gpudrive_json"])
def test_real_sdcs_go_along_their_routes(name: str) -> None:
    offsets = []
    for scenario in open_scenarios(str(shared_path(name))):
        arc, lateral = along_the_log(scenario.to(torch.float32))
        # The sdc creeps backwards by a centimetre where it stands.
        assert arc.diff().min() > -0.05
        assert abs(arc[0].item()) < 0.5
        offsets.append(lateral.abs().max())
    # Humans cut corners: the centre of the lane may be a lane's width away there.
    assert torch.stack(offsets).max() < 4.0
    assert torch.stack(offsets).median() < 1.0
