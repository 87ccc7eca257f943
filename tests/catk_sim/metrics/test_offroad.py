import torch

from catk_sim.datatypes import Scenario
from catk_sim.metrics.offroad import distance_to_road_edge, offroad_indication
from catk_sim.metrics.road_edges import RoadEdges
from tests import scenes


def test_distances_on_the_straight_road_are_as_drawn() -> None:
    """The road ends at y = -4 and 4. A's flank is at -3, the pedestrian reaches out to 6.5."""
    scenario = scenes.straight_road()
    edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    result = distance_to_road_edge(scenario.log, scenario.agents, edges)
    expected = torch.tensor([-1.0, 2.5, -1.0])[:, None].expand(3, 91)
    torch.testing.assert_close(
        result.value[result.valid], expected[result.valid], rtol=0, atol=1e-5
    )
    assert torch.equal(result.valid, scenario.log.valid)


def test_one_corner_off_the_road_is_enough() -> None:
    """Turned by 45 degrees, a car of 4.8 m x 2 m reaches out 2.4 m; standing still it would 1 m."""
    scenario = scenes.straight_road()
    xy = scenario.log.xy.clone()
    xy[0, :, 1] = -1.7
    straight = scenario.log.replace(xy=xy)
    turned = straight.replace(heading=torch.full_like(straight.heading, torch.pi / 4))
    assert not offroad_indication(straight, scenario).value[0].any()
    assert offroad_indication(turned, scenario).value[0].all()


def test_the_ground_below_the_agent_is_compared_with_the_edges() -> None:
    """A bridge 3 m above the road, half as wide. A truck 4 m high on the road is not on it."""
    scenario = scenes.straight_road()
    roadgraph = scenario.roadgraph
    xyz = roadgraph.xyz.clone()
    # Lane 2's points become the bridge's edge, at y = -2.5.
    xyz[101:202, 1], xyz[101:202, 2] = -2.5, 3.0
    xyz[101:202, 0] = xyz[:101, 0]
    kind = roadgraph.feature_type.clone()
    kind[1] = kind[2]
    scenario = scenario.replace(
        roadgraph=roadgraph.replace(xyz=xyz, feature_type=kind),
        agents=scenario.agents.replace(size=torch.tensor([4.8, 2.0, 4.0]).expand(3, 3)),
    )
    on_road = scenario.log.replace(z=torch.full_like(scenario.log.z, 2.0))
    on_bridge = scenario.log.replace(z=torch.full_like(scenario.log.z, 5.0))
    assert not offroad_indication(on_road, scenario).value[0].any()
    assert offroad_indication(on_bridge, scenario).value[0].all()


def test_nobody_is_off_a_road_without_edges() -> None:
    scenario = scenes.straight_road()
    roadgraph = scenario.roadgraph
    bare = scenario.replace(
        roadgraph=roadgraph.replace(feature_type=torch.full_like(roadgraph.feature_type, 2))
    )
    assert not offroad_indication(bare.log, bare).value.any()


def test_prepared_edges_change_nothing() -> None:
    scenario = scenes.straight_road()
    edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    with_edges = offroad_indication(scenario.log, scenario, edges)
    assert torch.equal(with_edges.value, offroad_indication(scenario.log, scenario).value)


def test_rollouts_share_the_map_of_their_scenario() -> None:
    """Two rollouts of a batch of two scenes, the second of which has a wider road."""
    scenario = scenes.straight_road()
    roadgraph = scenario.roadgraph
    wide = scenario.replace(
        roadgraph=roadgraph.replace(xyz=roadgraph.xyz * torch.tensor([1.0, 10.0, 1.0]))
    )
    batch = Scenario.stack([scenario, wide])
    edges = RoadEdges.from_roadgraph(batch.roadgraph)
    rollouts = batch.log.repeat(2)
    xy = rollouts.xy.clone()
    xy[1, ..., 1] -= 2.0
    result = distance_to_road_edge(rollouts.replace(xy=xy), batch.agents, edges)
    assert result.value.shape == (2, 2, 3, 91)
    expected = torch.tensor([[[-1, 2.5], [-37, -33.5]], [[1, 0.5], [-35, -35.5]]])
    torch.testing.assert_close(result.value[:, :, :2, 20], expected, rtol=0, atol=1e-4)


def test_turning_and_moving_the_scene_changes_nothing() -> None:
    scenario = scenes.straight_road()
    edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    shift = torch.tensor([30.0, -70.0])
    xyz = scenario.roadgraph.xyz.clone()
    xyz[:, :2] = xyz[:, :2] @ turn.T + shift
    moved = scenario.log.replace(
        xy=scenario.log.xy @ turn.T + shift,
        heading=scenario.log.heading + torch.tensor(0.8).asin(),
    )
    moved_edges = RoadEdges.from_roadgraph(scenario.roadgraph.replace(xyz=xyz))
    still = distance_to_road_edge(scenario.log, scenario.agents, edges)
    result = distance_to_road_edge(moved, scenario.agents, moved_edges)
    torch.testing.assert_close(
        result.value[result.valid], still.value[still.valid], rtol=0, atol=1e-4
    )
