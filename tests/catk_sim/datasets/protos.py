"""A scenario proto made by hand, in which every field has a value of its own."""

from typing import Any

import pytest

from catk_sim.constants import CURRENT_STEP, STEP_SECONDS


def scenario_pb2() -> Any:
    """Waymo's own classes, or skips the test."""
    return pytest.importorskip("waymo_open_dataset.protos.scenario_pb2")


def junction(num_steps: int = CURRENT_STEP + 1) -> Any:
    """Makes a scenario kilometres from the origin of its coordinates.

    The sdc (track 7) drives east at 10 m/s and is at (-7792.25, 5010.5, 12.75) at the current step.
    Track 9, a pedestrian, stands, and is absent at the current step and the two before it.
    """
    proto = scenario_pb2().Scenario(
        scenario_id="junction",
        timestamps_seconds=[STEP_SECONDS * step for step in range(num_steps)],
        current_time_index=CURRENT_STEP,
        sdc_track_index=1,
        objects_of_interest=[9],
    )
    proto.tracks_to_predict.add(track_index=0, difficulty=2)
    _add_pedestrian(proto, num_steps)
    _add_sdc(proto, num_steps)
    _add_map(proto)
    _add_lights(proto, num_steps)
    return proto


def _add_pedestrian(proto: Any, num_steps: int) -> None:
    track = proto.tracks.add(id=9, object_type=2)
    for step in range(num_steps):
        size = dict(length=0.5 + step, width=0.75, height=1.75)
        here = dict(center_x=-7780.125, center_y=5020.0, center_z=13.0)
        if CURRENT_STEP - 3 < step <= CURRENT_STEP:
            track.states.add(valid=False)
        else:
            track.states.add(valid=True, heading=4.0, velocity_x=0, velocity_y=0, **size, **here)


def _add_sdc(proto: Any, num_steps: int) -> None:
    track = proto.tracks.add(id=7, object_type=1)
    for step in range(num_steps):
        track.states.add(
            center_x=-7792.25 + step - CURRENT_STEP,
            center_y=5010.5,
            center_z=12.75,
            length=5.0,
            width=2.25,
            height=1.5,
            heading=0.125,
            velocity_x=10.0,
            velocity_y=0.5,
            valid=True,
        )


def _add_map(proto: Any) -> None:
    points = [dict(x=-7800.1 + 10 * k, y=5010.3, z=11.7 + k) for k in range(3)]
    lane = proto.map_features.add(id=100).lane
    lane.type, lane.speed_limit_mph, lane.interpolating = 2, 35.5, True
    lane.entry_lanes.extend([101, 999])
    lane.exit_lanes.extend([102])
    for point in points:
        lane.polyline.add(**point)
    _add_neighbors(lane)
    bike_lane = proto.map_features.add(id=101).lane
    bike_lane.type, bike_lane.speed_limit_mph = 3, 0.0
    bike_lane.exit_lanes.extend([100])
    bike_lane.polyline.add(**points[0])
    line = proto.map_features.add(id=103).road_line
    edge = proto.map_features.add(id=104).road_edge
    line.type, edge.type = 8, 2
    for point in points:
        line.polyline.add(**point)
        edge.polyline.add(**point)
    sign = proto.map_features.add(id=2**40).stop_sign
    sign.lane.extend([100, 101])
    sign.position.x, sign.position.y, sign.position.z = -7795.5, 5012.25, 12.0
    for index, kind in enumerate(["crosswalk", "speed_bump", "driveway"]):
        polygon = getattr(proto.map_features.add(id=105 + index), kind).polygon
        for point in points[index:]:
            polygon.add(**point)


def _add_neighbors(lane: Any) -> None:
    left = lane.left_neighbors.add(
        feature_id=101,
        self_start_index=1,
        self_end_index=2,
        neighbor_start_index=3,
        neighbor_end_index=4,
    )
    boundary = dict(lane_start_index=5, lane_end_index=6)
    left.boundaries.add(boundary_feature_id=103, boundary_type=1, **boundary)
    left.boundaries.add(boundary_feature_id=104, boundary_type=2, **boundary)
    right = lane.right_neighbors.add(
        feature_id=102,
        self_start_index=7,
        self_end_index=8,
        neighbor_start_index=9,
        neighbor_end_index=10,
    )
    right.boundaries.add(boundary_feature_id=104, boundary_type=3, **boundary)
    lane.left_boundaries.add(
        lane_start_index=11, lane_end_index=12, boundary_feature_id=103, boundary_type=4
    )
    lane.right_boundaries.add(
        lane_start_index=13, lane_end_index=14, boundary_feature_id=104, boundary_type=5
    )


def _add_lights(proto: Any, num_steps: int) -> None:
    """Lane 101 is listed twice at each step, and lane 100 from step 3 on."""
    for step in range(num_steps):
        now = proto.dynamic_map_states.add()
        for state in (4, 1):
            _add_light(now, 101, state)
        if step >= 3:
            _add_light(now, 100, 6 if step < 8 else 5)


def _add_light(now: Any, lane: int, state: int) -> None:
    light = now.lane_states.add(lane=lane, state=state)
    light.stop_point.x, light.stop_point.y, light.stop_point.z = (
        -7790.5,
        5000.0 + lane + state,
        12.5,
    )
