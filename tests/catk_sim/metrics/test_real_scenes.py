"""Collisions and road edges of real scenes, against shapely and the Sim Agents challenge."""

import functools
from collections.abc import Mapping

import numpy as np
import pytest
import shapely
import torch

from catk_sim.datasets import gpudrive, womd
from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.geometry.boxes import box_corners, has_overlap
from catk_sim.metrics.offroad import distance_to_road_edge
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges
from tests.shared import shared_path

STEPS = (10, 50, 90)
CASES = ("a_log_replay", "b_constant_velocity", "c_log_noise", "e_accelerate", "t_test_submission")


@functools.cache
def proto_scene() -> Scenario:
    folder = shared_path("data/womd_scenario_proto")
    return next(iter(womd.read_scenarios(folder / "motion_data_one_scenario.tfrecord")))


@functools.cache
def real_scenes() -> list[Scenario]:
    """The Scenario proto and every fourth of the JSON scenes, to save time: all of them pass."""
    paths = sorted(shared_path("data/womd_gpudrive_json").glob("*.json*"))[::4]
    return [proto_scene(), *map(gpudrive.read_scenario, paths)]


@pytest.mark.slow
def test_real_scenes_collide_exactly_where_shapely_says() -> None:
    hits = 0
    for scenario in real_scenes():
        log, size = scenario.log, scenario.agents.size
        for step in STEPS:
            found = has_overlap(log.xy[:, step], log.heading[:, step], size, log.valid[:, step])
            present = log.valid[:, step].nonzero()[:, 0]
            corners = box_corners(log.xy[present, step], log.heading[present, step], size[present])
            boxes = shapely.polygons(corners.numpy())
            one, other = shapely.STRtree(np.asarray(boxes)).query(boxes, predicate="intersects")
            expected = torch.zeros_like(found)
            expected[present[one[one != other]]] = True
            assert found.tolist() == expected.tolist(), (scenario.scenario_id, step)
            hits += int(expected.sum())
    assert hits > 50


@pytest.mark.slow
def test_real_road_edges_are_as_far_as_shapely_says() -> None:
    """On flattened maps, because shapely knows no height."""
    for scenario in real_scenes():
        flat = scenario.roadgraph.xyz * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
        edges = RoadEdges.from_roadgraph(scenario.roadgraph.replace(xyz=flat))
        segment = edges.segment.transpose(-1, -2).reshape(-1, 6)
        segment = segment[segment[:, 0] < 1e9]
        if not len(segment):
            continue
        ends = torch.stack([segment[:, :2], segment[:, :2] + segment[:, 3:5]], dim=1)
        xy = scenario.log.xy[:, ::30][scenario.log.valid[:, ::30]]
        _, expected = shapely.STRtree(np.asarray(shapely.linestrings(ends.numpy()))).query_nearest(
            shapely.points(xy.numpy()), return_distance=True, all_matches=False
        )
        points = torch.cat([xy, torch.zeros(len(xy), 1)], dim=-1)[:, None]
        valid = torch.ones(len(xy), dtype=torch.bool)
        found = signed_distance_to_road_edge(points, valid, edges)[:, 0].abs()
        torch.testing.assert_close(found, torch.as_tensor(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_road_edge_distances_are_those_of_the_challenge(case: str) -> None:
    folder = shared_path("golden/wosac")
    simulated = np.load(folder / f"637f20cafde22ff8_{case}_sim.npz")
    features = np.load(folder / f"637f20cafde22ff8_{case}_features.npz")
    scenario = proto_scene()
    motion = as_trajectory(simulated, features, scenario)
    rows = [scenario.agents.agent_id.tolist().index(key) for key in features["object_id"]]
    agents = scenario.agents.map(lambda tensor: tensor[rows]).to(torch.float32)
    edges = RoadEdges.from_roadgraph(scenario.roadgraph.to(torch.float32))
    found = distance_to_road_edge(motion, agents, edges).value.numpy()
    assert np.array_equal(found > 0, features["offroad_per_step"])
    difference = np.abs(found - features["distance_to_road_edge"])
    # The challenge rounds to float32 six kilometres out, which is half a millimetre.
    assert difference.max() < 4e-3
    assert np.quantile(difference, 0.99) < 1e-3


def as_trajectory(
    simulated: Mapping[str, np.ndarray], features: Mapping[str, np.ndarray], scenario: Scenario
) -> Trajectory:
    """The rollouts and agents of which a golden case tells the features, in our frame."""
    agent_ids = simulated["object_id"].tolist()
    rows = [agent_ids.index(agent_id) for agent_id in features["object_id"]]

    def field(name: str, offset: float = 0.0) -> torch.Tensor:
        chosen = simulated[name][features["rollout_index"]][:, rows].astype(np.float64)
        return torch.as_tensor(chosen - offset).float()

    x, y, z = (
        field(name, offset) for name, offset in zip("xyz", scenario.origin.tolist(), strict=True)
    )
    return Trajectory(
        xy=torch.stack([x, y], dim=-1),
        z=z,
        heading=field("heading"),
        velocity=torch.zeros(*x.shape, 2),
        valid=torch.ones_like(x, dtype=torch.bool),
    )
