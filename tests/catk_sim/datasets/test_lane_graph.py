import math

import numpy as np
import pytest

from catk_sim.datasets.errors import DataError
from catk_sim.datasets.lane_graph import connect_lanes, connection_links
from catk_sim.datasets.womd import read_scenarios
from catk_sim.datatypes import LaneLinkType, MapFeatureType
from tests.catk_sim.datasets.protos import scenario_pb2
from tests.shared import shared_path


def connections(*polylines: list[tuple[float, float, float]]) -> list[tuple[int, int]]:
    """Connects lanes, of which the last is a road line instead."""
    xyz = np.array([point for polyline in polylines for point in polyline]).reshape(-1, 3)
    num_points = np.array([len(polyline) for polyline in polylines])
    is_lane = np.arange(len(polylines)) < len(polylines) - 1
    before, after = connect_lanes(xyz, num_points, is_lane)
    return list(zip(before.tolist(), after.tolist(), strict=True))


#  a ---> b ---> c      and d, which forks from b's start
A = [(0.0, 0.0, 0.0), (10.0, 0.0, 0.0)]
B = [(10.0, 0.05, 0.0), (20.0, 0.0, 0.0)]
C = [(20.0, 0.0, 0.0), (30.0, 0.0, 0.0)]
D = [(10.0, 0.0, 0.0), (20.0, 5.0, 0.0)]
LINE = [(30.0, 0.0, 0.0), (0.0, 0.0, 0.0)]


def test_a_lane_goes_on_as_those_that_start_where_it_ends() -> None:
    assert connections(C, A, B, D, LINE) == [(1, 2), (1, 3), (2, 0)]


def test_a_lane_on_a_bridge_does_not_go_on_as_one_below() -> None:
    above = [(x, y, z + 5.0) for x, y, z in B]
    assert connections(A, above, LINE) == []


def test_lanes_a_step_apart_are_not_connected() -> None:
    apart = [(x, y + 0.2, z) for x, y, z in D]
    assert connections(A, apart, LINE) == []


def test_a_ring_is_not_its_own_successor() -> None:
    assert connections([*A, *reversed(A)], LINE) == []


def test_lanes_without_points_have_no_connections() -> None:
    assert connections([], A, [], B, LINE) == [(1, 3)]


def test_a_map_without_lanes_has_no_connections() -> None:
    assert connections(LINE) == []


def test_the_links_of_connections_are_told_at_both_ends() -> None:
    links = connection_links(np.array([0, 0]), np.array([1, 2]), np.array([10, 11, 12]))
    exit_lane, entry_lane = LaneLinkType.EXIT_LANE, LaneLinkType.ENTRY_LANE
    assert links[:, :3].tolist() == [
        [0, exit_lane, 11],
        [0, exit_lane, 12],
        [1, entry_lane, 10],
        [2, entry_lane, 10],
    ]


def test_many_lanes_in_one_place_are_refused() -> None:
    """Comparing each with each would take memory that grows with the square of the file."""
    lanes = [[(0.0, 0.0, 0.0)]] * 1100
    with pytest.raises(DataError, match="file: 1099 lanes are in one place"):
        connect_lanes(np.zeros((1100, 3)), np.ones(1100, int), np.arange(1100) < 1099, "file")
    assert connections(*lanes[:5]) == [(a, b) for a in range(4) for b in range(4) if a != b]


def test_lanes_that_are_nowhere_have_no_connections() -> None:
    for odd in (math.nan, math.inf, 1e308):
        assert connections(A, [(odd, 0.0, 0.0), (odd, odd, 0.0)], B, LINE) == [(0, 2)]


def test_the_graph_of_a_real_map_is_found_again() -> None:
    scenario_pb2()
    file = shared_path("data/womd_scenario_proto/motion_data_one_scenario.tfrecord")
    [scenario] = read_scenarios(file)
    roadgraph, links = scenario.roadgraph, scenario.roadgraph.links
    before, after = connect_lanes(
        roadgraph.xyz.numpy(),
        roadgraph.feature.bincount(minlength=len(roadgraph.feature_id)).numpy(),
        MapFeatureType.is_lane(roadgraph.feature_type).numpy(),
    )
    exits = links.type == LaneLinkType.EXIT_LANE
    known = zip(links.feature[exits].tolist(), links.other_id[exits].tolist(), strict=True)
    found = zip(before.tolist(), roadgraph.feature_id[after].tolist(), strict=True)
    assert sorted(found) == sorted(known)
