"""The real Scenario proto: every field is what Waymo's own classes say."""

from typing import Any

import pytest
import torch
from torch import Tensor

from catk_sim.datasets.tfrecord import read_records
from catk_sim.datasets.womd import parse_scenario, scenario_to_proto
from catk_sim.datatypes import LaneLinkType, Scenario
from tests.catk_sim.datasets.protos import scenario_pb2
from tests.shared import shared_path

POLYLINES = ("lane", "road_line", "road_edge")
FIRST_CODE = {
    "lane": 0,
    "road_line": 5,
    "road_edge": 14,
    "stop_sign": 17,
    "crosswalk": 18,
    "speed_bump": 19,
    "driveway": 20,
}


@pytest.fixture(scope="module")
def record() -> bytes:
    scenario_pb2()
    file = shared_path("data/womd_scenario_proto/motion_data_one_scenario.tfrecord")
    [record] = read_records(file)
    return record


@pytest.fixture(scope="module")
def proto(record: bytes) -> Any:
    return scenario_pb2().Scenario.FromString(record)


@pytest.fixture(scope="module")
def scenario(record: bytes) -> Scenario:
    return parse_scenario(record)


def test_the_scenario_has_its_id_and_times(scenario: Scenario, proto: Any) -> None:
    assert scenario.scenario_id == (proto.scenario_id,) == ("637f20cafde22ff8",)
    assert scenario.timestamps.tolist() == list(proto.timestamps_seconds)


def test_agents_are_the_tracks(scenario: Scenario, proto: Any) -> None:
    agents = scenario.agents
    assert agents.agent_id.tolist() == [track.id for track in proto.tracks]
    assert agents.type.tolist() == [track.object_type for track in proto.tracks]
    assert agents.is_sdc.nonzero().tolist() == [[proto.sdc_track_index]]
    required = {each.track_index: each.difficulty for each in proto.tracks_to_predict}
    count = len(proto.tracks)
    assert agents.to_predict.tolist() == [index in required for index in range(count)]
    assert agents.difficulty.tolist() == [required.get(index, 0) for index in range(count)]
    interesting = [track.id in proto.objects_of_interest for track in proto.tracks]
    assert agents.of_interest.tolist() == interesting


def test_motion_is_that_of_the_states(scenario: Scenario, proto: Any) -> None:
    states = [[state for state in track.states] for track in proto.tracks]
    log, valid = scenario.log, scenario.log.valid

    def logged(*names: str) -> Tensor:
        return torch.tensor(
            [[[getattr(state, name) for name in names] for state in row] for row in states],
            dtype=torch.float64,
        )

    assert torch.equal(valid, logged("valid")[..., 0] > 0)
    xy = log.xy + scenario.origin[:2]
    assert torch.equal(xy[valid], logged("center_x", "center_y")[valid])
    assert torch.equal((log.z + scenario.origin[2])[valid], logged("center_z")[valid][:, 0])
    assert torch.equal(log.heading[valid], logged("heading")[valid][:, 0])
    assert torch.equal(log.velocity[valid], logged("velocity_x", "velocity_y")[valid])
    assert torch.equal(scenario.log_size[valid], logged("length", "width", "height")[valid])


def test_agents_have_their_size_at_the_current_step(scenario: Scenario, proto: Any) -> None:
    for track, size in zip(proto.tracks, scenario.agents.size.tolist(), strict=True):
        now = track.states[proto.current_time_index]
        if now.valid:
            assert size == [now.length, now.width, now.height]


def test_the_scenario_fits_float32(scenario: Scenario) -> None:
    # A quarter of a millimetre within a kilometre: a hundredth of what WOMD resolves.
    narrow = scenario.to(torch.float32)
    assert (narrow.log.xy.double() - scenario.log.xy).abs().max() < 1e-4
    assert torch.equal(narrow.origin.double(), scenario.origin)


def test_map_features_are_those_of_the_proto(scenario: Scenario, proto: Any) -> None:
    roadgraph = scenario.roadgraph
    kinds = [feature.WhichOneof("feature_data") for feature in proto.map_features]
    content = [
        getattr(feature, kind) for feature, kind in zip(proto.map_features, kinds, strict=True)
    ]
    codes = [
        FIRST_CODE[kind] + (item.type if kind in POLYLINES else 0)
        for kind, item in zip(kinds, content, strict=True)
    ]
    assert roadgraph.feature_id.tolist() == [feature.id for feature in proto.map_features]
    assert roadgraph.feature_type.tolist() == codes
    assert roadgraph.speed_limit.tolist() == [
        feature.lane.speed_limit_mph for feature in proto.map_features
    ]
    assert roadgraph.interpolating.tolist() == [
        feature.lane.interpolating for feature in proto.map_features
    ]
    points = [
        (index, point.x, point.y, point.z)
        for index, (kind, item) in enumerate(zip(kinds, content, strict=True))
        for point in _points(kind, item)
    ]
    expected = torch.tensor(points, dtype=torch.float64)
    assert torch.equal(roadgraph.feature, expected[:, 0].long())
    assert torch.equal(roadgraph.xyz + scenario.origin, expected[:, 1:])


def _points(kind: str, item: Any) -> list[Any]:
    if kind == "stop_sign":
        return [item.position]
    return list(item.polyline if kind in POLYLINES else item.polygon)


def test_links_are_those_of_the_lanes_and_stop_signs(scenario: Scenario, proto: Any) -> None:
    expected = [
        link for index, feature in enumerate(proto.map_features) for link in _links(index, feature)
    ]
    links = scenario.roadgraph.links
    rows = zip(
        links.feature.tolist(),
        links.type.tolist(),
        links.other_id.tolist(),
        links.span.tolist(),
        links.boundary_type.tolist(),
        strict=True,
    )
    found = [(feature, kind, other, *span, line) for feature, kind, other, span, line in rows]
    assert sorted(found) == sorted(expected)


def _links(index: int, feature: Any) -> list[tuple[int, ...]]:
    lane, none = feature.lane, (0, 0, 0, 0, 0)
    sides = [
        (LaneLinkType.LEFT_NEIGHBOR, lane.left_neighbors),
        (LaneLinkType.RIGHT_NEIGHBOR, lane.right_neighbors),
    ]
    boundaries = [
        (LaneLinkType.LEFT_BOUNDARY, list(lane.left_boundaries)),
        (LaneLinkType.RIGHT_BOUNDARY, list(lane.right_boundaries)),
        *(
            (LaneLinkType.NEIGHBOR_BOUNDARY, list(each.boundaries))
            for _, neighbors in sides
            for each in neighbors
        ),
    ]
    return [
        *((index, LaneLinkType.ENTRY_LANE, other, *none) for other in lane.entry_lanes),
        *((index, LaneLinkType.EXIT_LANE, other, *none) for other in lane.exit_lanes),
        *((index, LaneLinkType.STOP_SIGN_LANE, other, *none) for other in feature.stop_sign.lane),
        *(
            (
                *(index, kind, each.feature_id, each.self_start_index, each.self_end_index),
                *(each.neighbor_start_index, each.neighbor_end_index, 0),
            )
            for kind, neighbors in sides
            for each in neighbors
        ),
        *(
            (
                *(index, kind, each.boundary_feature_id),
                *(each.lane_start_index, each.lane_end_index, 0, 0, each.boundary_type),
            )
            for kind, found in boundaries
            for each in found
        ),
    ]


def test_lights_are_those_of_every_step(scenario: Scenario, proto: Any) -> None:
    lights = scenario.traffic_lights
    stop_xyz = lights.stop_xyz + scenario.origin
    for step, now in enumerate(proto.dynamic_map_states):
        rows = lights.valid[:, step].nonzero()[:, 0].tolist()
        found = [
            (int(lights.lane_id[row]), int(lights.state[row, step]), *stop_xyz[row, step].tolist())
            for row in rows
        ]
        expected = [
            (each.lane, each.state, each.stop_point.x, each.stop_point.y, each.stop_point.z)
            for each in now.lane_states
        ]
        assert found == expected


def test_the_scenario_becomes_the_same_proto_again(scenario: Scenario, proto: Any) -> None:
    again, expected = scenario_to_proto(scenario), type(proto)()
    # What a scenario does not keep: the order of the tracks to predict, and the last bits of what
    # the file says of absent agents, far from the origin.
    expected.CopyFrom(proto)
    states = [
        (one, other)
        for tracks in zip(again.tracks, expected.tracks, strict=True)
        for one, other in zip(*(track.states for track in tracks), strict=True)
        if not other.valid
    ]
    assert any(other.length for _, other in states)
    for one, other in states:
        for field in other.DESCRIPTOR.fields:
            number = getattr(other, field.name)
            assert getattr(one, field.name) == pytest.approx(number, abs=1e-12)
        one.CopyFrom(other)
    expected.tracks_to_predict.sort(key=lambda each: each.track_index)
    assert again == expected
