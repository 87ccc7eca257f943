import functools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from catk_sim.datasets import womd
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Scenario
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.offroad import (
    ABSENT,
    box_distance_to_road_edge,
    distance_to_road_edge,
    offroad_indication,
)
from catk_sim.metrics.road_edges import EdgeRule, RoadEdges
from tests import scenes
from tests.catk_sim.metrics.maps import map_of, random_polylines
from tests.catk_sim.metrics.road_edge_reference import plain_distance
from tests.shared import shared_path

GOLDEN = "637f20cafde22ff8"


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


def random_boxes(seed: int, *batch: int) -> BoxTrajectory:
    generator = torch.Generator().manual_seed(seed)

    def around(middle: float, spread: float) -> Tensor:
        return middle + spread * torch.randn(batch, generator=generator)

    return BoxTrajectory(
        x=around(0, 40),
        y=around(0, 40),
        z=around(0, 2),
        heading=around(0, 3),
        length=around(4, 0.5),
        width=around(2, 0.2),
        height=around(1.5, 0.1),
        valid=around(0.8, 1) > 0,
    )


@pytest.mark.parametrize("rule", EdgeRule)
def test_the_outermost_bottom_corner_of_a_box_decides(rule: EdgeRule) -> None:
    lines = [line.float() for line in random_polylines(0)]
    boxes = random_boxes(1, 2, 5, 7)
    found = box_distance_to_road_edge(boxes, RoadEdges.from_roadgraph(map_of(lines), rule))
    expected = torch.full_like(found, ABSENT)
    for index in boxes.valid.nonzero().tolist():
        x, y, z, heading, length, width, height = (
            getattr(boxes, name)[tuple(index)]
            for name in ("x", "y", "z", "heading", "length", "width", "height")
        )
        front, left = length / 2, width / 2
        forward, sideways = heading.cos(), heading.sin()
        corners = [
            torch.stack(
                [
                    forward * along - sideways * across + x,
                    sideways * along + forward * across + y,
                    z - height / 2,
                ]
            )
            for along in (front, -front)
            for across in (left, -left)
        ]
        expected[tuple(index)] = plain_distance(torch.stack(corners), lines, rule).amax()
    assert torch.equal(found, expected)
    assert (found == ABSENT).sum() == (~boxes.valid).sum() > 0


@pytest.mark.parametrize("rule", EdgeRule)
def test_rollouts_of_boxes_share_the_map_of_their_scenario(rule: EdgeRule) -> None:
    maps = [map_of([line.float() for line in random_polylines(seed, 3 + seed)]) for seed in (0, 9)]
    scenario = scenes.straight_road()
    batch = collate(
        [
            scenario.replace(roadgraph=roadgraph, scenario_id=(str(index),))
            for index, roadgraph in enumerate(maps)
        ]
    )
    boxes = random_boxes(2, 3, 2, 4, 6)
    found = box_distance_to_road_edge(boxes, RoadEdges.from_roadgraph(batch.roadgraph, rule))
    for index, roadgraph in enumerate(maps):
        alone = boxes.map(lambda tensor, index=index: tensor[:, index])
        expected = box_distance_to_road_edge(alone, RoadEdges.from_roadgraph(roadgraph, rule))
        assert torch.equal(found[:, index], expected)


def test_boxes_on_a_map_without_road_edges_are_refused() -> None:
    scenario = scenes.straight_road()
    roadgraph = scenario.roadgraph
    bare = roadgraph.replace(feature_type=torch.full_like(roadgraph.feature_type, 2))
    with pytest.raises(ValueError, match="wanted a map with road edges, but the map has none"):
        box_distance_to_road_edge(random_boxes(0, 2, 3), RoadEdges.from_roadgraph(bare))
    both = scenario.replace(roadgraph=bare, scenario_id=("bare",))
    edges = RoadEdges.from_roadgraph(Scenario.stack([scenario, both]).roadgraph)
    with pytest.raises(ValueError, match=r"but map \[1\] of the batch has none"):
        box_distance_to_road_edge(random_boxes(0, 2, 2, 3), edges)


@functools.cache
def golden_scene() -> Scenario:
    folder = shared_path("data/womd_scenario_proto")
    return next(iter(womd.read_scenarios(folder / "motion_data_one_scenario.tfrecord")))


def golden_edges(rule: EdgeRule) -> RoadEdges:
    scenario = golden_scene()
    xyz = (scenario.roadgraph.xyz + scenario.origin).float()
    return RoadEdges.from_roadgraph(scenario.roadgraph.replace(xyz=xyz).to(torch.float32), rule)


def logged_boxes(agent_id: list[int]) -> BoxTrajectory:
    """What was logged of some agents, in the frame of the file; zeros where there is nothing."""
    scenario = golden_scene()
    rows = [scenario.agents.agent_id.tolist().index(key) for key in agent_id]
    log, valid, origin = scenario.log, scenario.log.valid[rows], scenario.origin

    def kept(values: Tensor) -> Tensor:
        return torch.where(valid, values[rows], 0).float()

    names = ("length", "width", "height")
    return BoxTrajectory(
        x=kept(log.xy[..., 0] + origin[0]),
        y=kept(log.xy[..., 1] + origin[1]),
        z=kept(log.z + origin[2]),
        heading=kept(log.heading),
        valid=valid,
        **{name: kept(scenario.log_size[..., i]) for i, name in enumerate(names)},
    )


def with_current_size(boxes: BoxTrajectory) -> BoxTrajectory:
    sizes = {name: getattr(boxes, name) for name in ("length", "width", "height")}
    return boxes.replace(
        **{name: size[..., 10:11].expand(size.shape) for name, size in sizes.items()}
    )


def simulated_boxes(
    simulated: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], like: BoxTrajectory
) -> BoxTrajectory:
    """The rollouts whose features are known, with the sizes of other boxes."""
    agent_ids = simulated["object_id"].tolist()
    rows = [agent_ids.index(agent_id) for agent_id in features["object_id"]]
    rollouts = features["rollout_index"]
    position = {
        name: torch.as_tensor(simulated[name][rollouts][:, rows])
        for name in ("x", "y", "z", "heading")
    }
    shape = position["x"].shape
    return like.map(lambda tensor: tensor.expand(shape)).replace(
        **position, valid=torch.ones(shape, dtype=torch.bool)
    )


def assert_golden(boxes: BoxTrajectory, rule: EdgeRule, features: Mapping[str, np.ndarray]) -> None:
    found = box_distance_to_road_edge(boxes, golden_edges(rule)).numpy()
    wanted = features["distance_to_road_edge"]
    assert found.shape == wanted.shape
    difference = np.abs(found - wanted)
    # Eight kilometres out a corner is rounded to half a millimetre, by some to the next number;
    # and a box that is not there stands ten kilometres away, where distances are that coarse.
    assert (difference > 1e-5 + 2e-7 * np.abs(wanted)).mean() < 1e-3
    assert difference.max() < 1e-3
    assert np.array_equal(found > 0, features["offroad_per_step"])


@pytest.mark.parametrize(("rule", "suffix"), [(EdgeRule.WOSAC, ""), (EdgeRule.WOSAC_2023, "_2023")])
@pytest.mark.parametrize(
    "case",
    ["a_log_replay", "b_constant_velocity", "c_log_noise", "e_accelerate", "t_test_submission"],
)
def test_the_road_edges_of_rollouts_are_those_of_the_official_evaluation(
    case: str, rule: EdgeRule, suffix: str
) -> None:
    folder = shared_path("golden/wosac")
    simulated = np.load(folder / f"{GOLDEN}_{case}_sim.npz")
    features = np.load(folder / f"{GOLDEN}_{case}_features{suffix}.npz")
    logged = with_current_size(logged_boxes(features["object_id"].tolist()))
    boxes = simulated_boxes(simulated, features, logged.slice(11))
    assert_golden(boxes, rule, features)


@pytest.mark.parametrize(("rule", "suffix"), [(EdgeRule.WOSAC, ""), (EdgeRule.WOSAC_2023, "_2023")])
def test_the_road_edges_of_the_log_are_those_of_the_official_evaluation(
    rule: EdgeRule, suffix: str
) -> None:
    features = np.load(shared_path("golden/wosac") / f"{GOLDEN}_log_features{suffix}.npz")
    logged = with_current_size(logged_boxes(features["object_id"].tolist())).slice(11)
    assert_golden(logged.repeat(1), rule, features)


def test_the_road_edges_of_whole_scenes_are_those_of_the_official_evaluation() -> None:
    """Where every box counts as valid: a logged one that is not stands at the origin, sizeless."""
    folder = shared_path("golden/wosac")
    simulated = np.load(folder / f"{GOLDEN}_g_scenario_gen_sim.npz")
    features = np.load(folder / f"{GOLDEN}_g_scenario_gen_features.npz")
    log_features = np.load(folder / f"{GOLDEN}_g_scenario_gen_log_features.npz")
    logged = logged_boxes(features["object_id"].tolist())
    sizes = {name: torch.as_tensor(simulated[name]) for name in ("length", "width", "height")}
    boxes = simulated_boxes(simulated, features, logged.replace(**sizes))
    assert_golden(boxes, EdgeRule.WOSAC, features)
    everywhere = logged.repeat(1).replace(valid=torch.ones_like(logged.valid)[None])
    assert_golden(everywhere, EdgeRule.WOSAC, log_features)
