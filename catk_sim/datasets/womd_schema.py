"""The schema of WOMD's `Scenario` protocol buffers.

It says what Waymo's `scenario.proto` and `map.proto` say of the fields that our `Scenario` holds,
save that enumerations are left as numbers, so that one which Waymo's enumeration does not know is
seen and not dropped. For reading, points and states are left as bytes, for `MessageTable` to decode
by the thousand. Reading and writing therefore need none of Waymo's code.
"""

from typing import Any

from catk_sim.datasets.proto_schema import ProtoSchema

_TEXT = """
message Scenario {
  repeated double timestamps_seconds = 1;
  repeated Track tracks = 2;
  repeated int32 objects_of_interest = 4;
  string scenario_id = 5;
  int32 sdc_track_index = 6;
  repeated DynamicMapState dynamic_map_states = 7;
  repeated MapFeature map_features = 8;
  int32 current_time_index = 10;
  repeated RequiredPrediction tracks_to_predict = 11;
}
message Track {
  int32 id = 1;
  int32 object_type = 2;
  repeated bytes states = 3;
}
message ObjectState {
  double center_x = 2;
  double center_y = 3;
  double center_z = 4;
  float length = 5;
  float width = 6;
  float height = 7;
  float heading = 8;
  float velocity_x = 9;
  float velocity_y = 10;
  bool valid = 11;
}
message RequiredPrediction {
  int32 track_index = 1;
  int32 difficulty = 2;
}
message DynamicMapState {
  repeated TrafficSignalLaneState lane_states = 1;
}
message TrafficSignalLaneState {
  int64 lane = 1;
  int32 state = 2;
  bytes stop_point = 3;
}
message MapPoint {
  double x = 1;
  double y = 2;
  double z = 3;
}
message MapFeature {
  int64 id = 1;
  oneof feature_data {
    LaneCenter lane = 3;
    RoadLine road_line = 4;
    RoadLine road_edge = 5;
    StopSign stop_sign = 7;
    Polygon crosswalk = 8;
    Polygon speed_bump = 9;
    Polygon driveway = 10;
  }
}
message LaneCenter {
  double speed_limit_mph = 1;
  int32 type = 2;
  bool interpolating = 3;
  repeated bytes polyline = 8;
  repeated int64 entry_lanes = 9;
  repeated int64 exit_lanes = 10;
  repeated LaneNeighbor left_neighbors = 11;
  repeated LaneNeighbor right_neighbors = 12;
  repeated BoundarySegment left_boundaries = 13;
  repeated BoundarySegment right_boundaries = 14;
}
message LaneNeighbor {
  int64 feature_id = 1;
  int32 self_start_index = 2;
  int32 self_end_index = 3;
  int32 neighbor_start_index = 4;
  int32 neighbor_end_index = 5;
  repeated BoundarySegment boundaries = 6;
}
message BoundarySegment {
  int32 lane_start_index = 1;
  int32 lane_end_index = 2;
  int64 boundary_feature_id = 3;
  int32 boundary_type = 4;
}
message RoadLine {
  int32 type = 1;
  repeated bytes polyline = 2;
}
message StopSign {
  repeated int64 lane = 1;
  bytes position = 2;
}
message Polygon {
  repeated bytes polygon = 1;
}
"""

_SCHEMA = ProtoSchema("catk_sim.womd", _TEXT)
_WRITING_SCHEMA = ProtoSchema(
    "catk_sim.womd.writing",
    _TEXT.replace("bytes states", "ObjectState states").replace("bytes", "MapPoint"),
)


def message_class(name: str) -> Any:
    """Returns the class of a message of the schema, for reading."""
    return _SCHEMA.message_class(name)


def writing_class(name: str) -> Any:
    """Returns the class of a message of the schema, in which points and states are messages too."""
    return _WRITING_SCHEMA.message_class(name)
