import contextlib
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from catk_sim.constants import CURRENT_STEP
from catk_sim.datasets.batching import collate
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.tfrecord import write_records
from catk_sim.datasets.womd import (
    parse_scenario,
    read_scenarios,
    scenario_to_proto,
    write_scenarios,
)
from catk_sim.datasets.womd_schema import message_class
from catk_sim.datatypes import AgentType, LaneLinkType, MapFeatureType, Scenario, TrafficLightState
from tests.catk_sim.datasets.protos import junction

Edit = Callable[[Any], object]


def parse(proto: Any) -> Scenario:
    return parse_scenario(proto.SerializeToString(), source="some.tfrecord, record 3")


@pytest.fixture
def scenario() -> Scenario:
    return parse(junction())


def links_of(scenario: Scenario, kind: LaneLinkType) -> list[tuple[int, ...]]:
    """Feature, other end, span and boundary type of the links of a kind."""
    links = scenario.roadgraph.links
    return [
        (feature, other, *span, boundary)
        for feature, type_, other, span, boundary in zip(
            links.feature.tolist(),
            links.type.tolist(),
            links.other_id.tolist(),
            links.span.tolist(),
            links.boundary_type.tolist(),
            strict=True,
        )
        if type_ == kind
    ]


def test_the_frame_stands_on_the_sdc_at_the_current_step(scenario: Scenario) -> None:
    assert scenario.origin.tolist() == [-7792.0, 5010.0, 13.0]
    assert scenario.log.xy[1, CURRENT_STEP].tolist() == [-0.25, 0.5]
    assert scenario.log.z[1, CURRENT_STEP].item() == -0.25


def test_all_that_a_track_says_is_read(scenario: Scenario) -> None:
    agents, log = scenario.agents, scenario.log
    assert scenario.scenario_id == ("junction",)
    assert scenario.lacks == ("",)
    assert scenario.timestamps.dtype == torch.float64
    assert agents.agent_id.tolist() == [9, 7]
    assert agents.type.tolist() == [2, 1]
    assert agents.is_sdc.tolist() == [False, True]
    assert agents.to_predict.tolist() == [True, False]
    assert agents.difficulty.tolist() == [2, 0]
    assert agents.of_interest.tolist() == [True, False]
    assert agents.valid.all()
    assert log.valid[0].tolist() == [True] * 8 + [False] * 3
    assert log.heading[:, 0].tolist() == [4.0, 0.125]
    assert log.velocity[1, 4].tolist() == [10.0, 0.5]
    assert scenario.log_size[0, 3].tolist() == [3.5, 0.75, 1.75]


def test_an_agent_that_is_absent_at_the_current_step_has_its_nearest_size(
    scenario: Scenario,
) -> None:
    assert scenario.agents.size.tolist() == [[7.5, 0.75, 1.75], [5.0, 2.25, 1.5]]


def test_what_a_file_says_of_the_absent_is_kept() -> None:
    proto = junction()
    state = proto.tracks[0].states[CURRENT_STEP]
    state.Clear()
    state.valid, state.center_x, state.length = False, 123.25, 4.5
    scenario = parse(proto)
    x, y = (scenario.log.xy[0, CURRENT_STEP] + scenario.origin[:2]).tolist()
    assert (x, y) == (123.25, 0)
    assert scenario.log_size[0, CURRENT_STEP].tolist() == [4.5, 0, 0]
    written = scenario_to_proto(scenario).tracks[0].states[CURRENT_STEP]
    assert (written.valid, written.center_x, written.length) == (False, 123.25, 4.5)


def test_numbers_of_the_absent_that_are_not_finite_become_zeros() -> None:
    proto = junction()
    state = proto.tracks[0].states[CURRENT_STEP]
    state.Clear()
    state.valid, state.center_x, state.center_y = False, math.nan, math.inf
    scenario = parse(proto)
    position = scenario.log.xy[0, CURRENT_STEP] + scenario.origin[:2]
    assert position.tolist() == [0, 0]


def test_all_map_features_are_read(scenario: Scenario) -> None:
    roadgraph = scenario.roadgraph
    assert roadgraph.feature_id.tolist() == [100, 101, 103, 104, 2**40, 105, 106, 107]
    assert roadgraph.feature_type.tolist() == [
        MapFeatureType.LANE_SURFACE_STREET,
        MapFeatureType.LANE_BIKE_LANE,
        MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW,
        MapFeatureType.ROAD_EDGE_MEDIAN,
        MapFeatureType.STOP_SIGN,
        MapFeatureType.CROSSWALK,
        MapFeatureType.SPEED_BUMP,
        MapFeatureType.DRIVEWAY,
    ]
    assert roadgraph.feature.bincount().tolist() == [3, 1, 3, 3, 1, 3, 2, 1]
    assert roadgraph.speed_limit.tolist() == [35.5, 0, 0, 0, 0, 0, 0, 0]
    assert roadgraph.interpolating.tolist() == [True, *[False] * 7]
    assert (roadgraph.xyz[2] + scenario.origin).tolist() == pytest.approx([-7780.1, 5010.3, 13.7])


def test_the_lane_graph_is_read(scenario: Scenario) -> None:
    none = (0, 0, 0, 0, 0)
    ends = {kind: links_of(scenario, kind) for kind in LaneLinkType}
    assert ends == {
        LaneLinkType.ENTRY_LANE: [(0, 101, *none), (0, 999, *none)],
        LaneLinkType.EXIT_LANE: [(0, 102, *none), (1, 100, *none)],
        LaneLinkType.LEFT_NEIGHBOR: [(0, 101, 1, 2, 3, 4, 0)],
        LaneLinkType.RIGHT_NEIGHBOR: [(0, 102, 7, 8, 9, 10, 0)],
        LaneLinkType.LEFT_BOUNDARY: [(0, 103, 11, 12, 0, 0, 4)],
        LaneLinkType.RIGHT_BOUNDARY: [(0, 104, 13, 14, 0, 0, 5)],
        LaneLinkType.NEIGHBOR_BOUNDARY: [
            (0, 103, 5, 6, 0, 0, 1),
            (0, 104, 5, 6, 0, 0, 2),
            (0, 104, 5, 6, 0, 0, 3),
        ],
        LaneLinkType.STOP_SIGN_LANE: [(4, 100, *none), (4, 101, *none)],
    }


def test_a_boundary_knows_its_neighbor(scenario: Scenario) -> None:
    links = scenario.roadgraph.links
    boundary = links.type == LaneLinkType.NEIGHBOR_BOUNDARY
    assert links.other_id[links.neighbor[boundary]].tolist() == [101, 101, 102]


def test_a_light_has_a_row_for_each_time_that_a_step_lists_it(scenario: Scenario) -> None:
    lights = scenario.traffic_lights
    assert lights.lane_id.tolist() == [101, 101, 100]
    assert lights.state[:, 5].tolist() == [
        TrafficLightState.STOP,
        TrafficLightState.ARROW_STOP,
        TrafficLightState.GO,
    ]
    assert lights.state[2].tolist() == [0] * 3 + [6] * 5 + [5] * 3
    assert lights.valid.sum(dim=-1).tolist() == [11, 11, 8]
    assert (lights.stop_xyz[1, 0] + scenario.origin).tolist() == [-7790.5, 5102.0, 12.5]


def test_a_light_is_absent_where_it_is_not_listed(scenario: Scenario) -> None:
    assert scenario.traffic_lights.valid[2].tolist() == [False] * 3 + [True] * 8
    assert not scenario.traffic_lights.stop_xyz[2, :3].any()


def test_steps_without_light_states_have_no_lights() -> None:
    proto = junction()
    del proto.dynamic_map_states[4:]
    assert parse(proto).traffic_lights.valid[:, 4:].sum() == 0
    del proto.dynamic_map_states[:]
    assert parse(proto).traffic_lights.valid.shape == (0, 11)


@pytest.mark.parametrize("num_steps", [11, 91, 199])
def test_scenarios_of_any_length_from_the_history_on_are_read(num_steps: int) -> None:
    scenario = parse(junction(num_steps))
    assert scenario.log.num_steps == num_steps
    assert scenario.timestamps.shape == (num_steps,)


def test_a_scenario_without_a_map_is_read() -> None:
    proto = junction()
    del proto.map_features[:]
    roadgraph = parse(proto).roadgraph
    assert roadgraph.xyz.shape == (0, 3)
    assert roadgraph.feature_id.shape == (0,)
    assert roadgraph.point_type.shape == (0,)


def test_features_without_points_are_read() -> None:
    proto = junction()
    lane = proto.map_features.add(id=1).lane
    lane.type, lane.speed_limit_mph = 2, 0.0
    proto.map_features.add(id=2).stop_sign.lane.append(100)
    roadgraph = parse(proto).roadgraph
    assert roadgraph.feature.bincount(minlength=10).tolist()[-2:] == [0, 0]
    assert scenario_to_proto(parse(proto)) == proto


def test_an_absent_sdc_centres_the_scenario_where_it_was_last() -> None:
    proto = junction()
    for state in proto.tracks[1].states[CURRENT_STEP - 1 :]:
        state.valid = False
    assert parse(proto).origin.tolist() == [-7794.0, 5010.0, 13.0]


def test_without_the_sdc_the_scenario_is_centred_on_another_agent() -> None:
    proto = junction()
    for state in proto.tracks[1].states:
        state.valid = False
    assert parse(proto).origin.tolist() == [-7780.0, 5020.0, 13.0]


def test_without_anyone_the_scenario_is_not_moved() -> None:
    proto = junction()
    for track in proto.tracks:
        for state in track.states:
            state.valid = False
    scenario = parse(proto)
    assert scenario.origin.tolist() == [0.0, 0.0, 0.0]


def test_a_scenario_becomes_the_same_proto_again() -> None:
    assert scenario_to_proto(parse(junction(91))) == junction(91)


def test_padding_is_not_written() -> None:
    small = junction()
    del small.tracks[0], small.tracks_to_predict[:], small.objects_of_interest[:]
    del small.map_features[2:], small.dynamic_map_states[0].lane_states[:]
    small.sdc_track_index = 0
    batch = collate([parse(small), parse(junction())])
    assert scenario_to_proto(batch.select(0)) == small


def test_what_is_not_valid_is_not_written(scenario: Scenario) -> None:
    pedestrian = scenario.agents.type == AgentType.PEDESTRIAN
    agents = scenario.agents.replace(valid=~pedestrian)
    lane = scenario.roadgraph.feature_id == 100
    roadgraph = scenario.roadgraph.replace(feature_valid=~lane)
    proto = scenario_to_proto(scenario.replace(agents=agents, roadgraph=roadgraph))
    assert [track.id for track in proto.tracks] == [7]
    assert proto.sdc_track_index == 0
    assert not proto.tracks_to_predict
    assert not proto.objects_of_interest
    assert [feature.id for feature in proto.map_features] == [
        feature.id for feature in junction().map_features if feature.id != 100
    ]


def test_a_batch_is_not_written(scenario: Scenario) -> None:
    with pytest.raises(ValueError, match=r"wanted a single scenario, got a batch of shape \(2,\)"):
        scenario_to_proto(Scenario.stack([scenario, scenario]))


def test_a_scenario_without_an_sdc_is_not_written(scenario: Scenario) -> None:
    agents = scenario.agents.replace(is_sdc=torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="wanted a scenario with one sdc, got 0"):
        scenario_to_proto(scenario.replace(agents=agents))


@pytest.mark.parametrize("name", ["some.tfrecord", "some.tfrecord.gz"])
def test_files_are_written_and_read(tmp_path: Path, scenario: Scenario, name: str) -> None:
    write_scenarios(tmp_path / name, [scenario, scenario])
    again = list(read_scenarios(tmp_path / name))
    assert [scenario_to_proto(each) for each in again] == [junction(), junction()]


def clear_tracks(proto: Any) -> None:
    del proto.tracks[:]


def shorten(proto: Any) -> None:
    del proto.timestamps_seconds[10:], proto.dynamic_map_states[10:]
    for track in proto.tracks:
        del track.states[10:]


def set_to(path: str, value: Any) -> Edit:
    """Makes an edit that sets the field at a path such as "tracks.0.id"."""

    def edit(proto: Any) -> None:
        *way, last = path.split(".")
        for name in way:
            proto = proto[int(name)] if name.isdecimal() else getattr(proto, name)
        if last.isdecimal():
            proto[int(last)] = value
        else:
            setattr(proto, last, value)

    return edit


def lane_type(number: int) -> Edit:
    lane = message_class("LaneCenter")(type=number)
    feature = message_class("MapFeature")(id=1, lane=lane)
    return lambda proto: merge(proto, message_class("Scenario")(map_features=[feature]))


def unknown_agent_type(proto: Any) -> None:
    track = message_class("Track")(id=1, object_type=9, states=[b""] * len(proto.tracks[0].states))
    merge(proto, message_class("Scenario")(tracks=[track]))


def unknown_light(proto: Any) -> None:
    del proto.dynamic_map_states[10:]
    light = message_class("TrafficSignalLaneState")(lane=100, state=9)
    now = message_class("DynamicMapState")(lane_states=[light])
    merge(proto, message_class("Scenario")(dynamic_map_states=[now]))


def merge(proto: Any, addition: Any) -> None:
    """Adds what Waymo's classes cannot say. They keep it for the file as an unknown field."""
    proto.MergeFromString(addition.SerializeToString())


BAD: list[tuple[Edit, str]] = [
    (clear_tracks, "wanted at least one track, got none"),
    (set_to("current_time_index", 9), "wanted current_time_index 10, got 9"),
    (set_to("sdc_track_index", 2), r"wanted sdc_track_index in \[0, 2\), got 2"),
    (set_to("sdc_track_index", -1), r"wanted sdc_track_index in \[0, 2\), got -1"),
    (
        set_to("tracks_to_predict.0.track_index", 2),
        r"wanted the track_index of tracks_to_predict in \[0, 2\), got 2",
    ),
    (set_to("objects_of_interest.0", 5), "objects_of_interest names track 5, which is absent"),
    (set_to("tracks.0.id", 7), "two tracks have the id 7"),
    (
        lambda proto: proto.tracks[1].states.add(),
        "wanted a state of track 7 at each of 11 timestamps, got 12",
    ),
    (
        lambda proto: proto.dynamic_map_states.add(),
        "wanted dynamic_map_states at 11 timestamps, got 12",
    ),
    (shorten, "wanted at least 11 steps, got 10"),
    (set_to("timestamps_seconds.4", math.nan), "a finite number for the timestamp of step 4"),
    (
        set_to("tracks.1.states.4.center_y", math.nan),
        "wanted a finite number for y of track 7 at step 4, got nan",
    ),
    (set_to("tracks.1.states.4.heading", math.inf), "for heading of track 7 at step 4, got inf"),
    (set_to("tracks.1.states.4.center_x", 1e39), "for x of track 7 at step 4, got 1e.39"),
    (
        set_to("map_features.2.road_line.polyline.0.z", math.nan),
        "for z of a point of map feature 103, got nan",
    ),
    (
        set_to("map_features.0.lane.speed_limit_mph", math.nan),
        "for the speed limit of map feature 100, got nan",
    ),
    (
        set_to("dynamic_map_states.0.lane_states.1.stop_point.x", -math.inf),
        "for x of the stop point of lane 101, got -inf",
    ),
    (lane_type(4), r"the type of map feature 1 \(lane\) in \[0, 4\), got 4"),
    (lane_type(-1), r"the type of map feature 1 \(lane\) in \[0, 4\), got -1"),
    (unknown_agent_type, r"the type of track 1 in \[0, 4\], got 9"),
    (unknown_light, r"wanted a light's state in \[0, 8\], got 9"),
    (
        lambda proto: proto.map_features.add(id=55),
        "wanted map feature 55 to be one of lane, .*, got none",
    ),
]


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_a_bad_scenario_is_an_error_that_says_where_and_what(edit: Edit, message: str) -> None:
    proto = junction()
    edit(proto)
    with pytest.raises(DataError, match=f"^some.tfrecord, record 3: .*{message}") as caught:
        parse(proto)
    assert "\n" not in str(caught.value)


def test_an_id_that_is_no_text_is_an_error() -> None:
    # Of a field that comes twice the last counts: field 5, two bytes that UTF-8 does not have.
    data = junction().SerializeToString() + b"\x2a\x02\xff\xfe"
    with pytest.raises(DataError, match=r"here: wanted a scenario id in UTF-8, got b'\\xff\\xfe'"):
        parse_scenario(data, source="here")


def test_a_record_of_another_kind_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^here: not a Scenario proto"):
        parse_scenario(b"no proto at all", source="here")


def test_a_tf_example_is_recognised() -> None:
    # A tf.Example holds its features by name.
    example = b"\x0a\x1c\x0a\x1a\x0a\x15roadgraph_samples/xyz\x12\x01\x00"
    with pytest.raises(DataError, match="it looks like the tf_example release"):
        parse_scenario(example)


def test_a_bad_record_is_named_by_its_number(tmp_path: Path) -> None:
    good, bad = junction(), junction()
    clear_tracks(bad)
    records = [each.SerializeToString() for each in (good, bad, good)]
    write_records(tmp_path / "file", records)
    with pytest.raises(DataError, match="file, record 1: wanted at least one track"):
        list(read_scenarios(tmp_path / "file"))


def test_who_handles_errors_gets_the_other_scenarios(tmp_path: Path) -> None:
    good, bad = junction(), junction()
    clear_tracks(bad)
    records = [each.SerializeToString() for each in (good, bad, good)]
    write_records(tmp_path / "file", records)
    errors: list[DataError] = []
    assert len(list(read_scenarios(tmp_path / "file", errors.append))) == 2
    assert [str(error) for error in errors] == [
        f"{tmp_path / 'file'}, record 1: wanted at least one track, got none"
    ]


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("wanted this, got that", "file")))
    assert isinstance(error, DataError)
    assert str(error) == "file: wanted this, got that"


@settings(max_examples=200)
@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_damaged_proto_is_at_worst_a_data_error(position: int, bit: int) -> None:
    data = bytearray(junction().SerializeToString())
    data[position % len(data)] ^= 1 << bit
    with contextlib.suppress(DataError):
        parse_scenario(bytes(data))


@pytest.fixture
def without_waymo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "waymo_open_dataset.protos.scenario_pb2", None)


def test_writing_without_waymos_protos_says_how_to_install_them(
    scenario: Scenario, without_waymo: None
) -> None:
    with pytest.raises(ImportError, match="pip install --no-deps waymo-open-dataset-tf-2-12-0"):
        scenario_to_proto(scenario)


def test_reading_does_not_need_waymos_protos(without_waymo: None) -> None:
    with pytest.raises(DataError, match="not a Scenario proto"):
        parse_scenario(b"no proto at all")
