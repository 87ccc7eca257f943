"""The map of a scenario."""

from dataclasses import dataclass
from enum import IntEnum

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from catk_sim.datatypes.tensor_tree import TensorTree


class MapFeatureType(IntEnum):
    """Kinds of map features, with the numbers of WOMD's tf.Example release.

    A lane's code is its `LaneCenter` type, a road line's its `RoadLine` type plus 5, a road edge's
    its `RoadEdge` type plus 14.
    """

    LANE_UNDEFINED = 0
    LANE_FREEWAY = 1
    LANE_SURFACE_STREET = 2
    LANE_BIKE_LANE = 3
    ROAD_LINE_UNKNOWN = 5
    ROAD_LINE_BROKEN_SINGLE_WHITE = 6
    ROAD_LINE_SOLID_SINGLE_WHITE = 7
    ROAD_LINE_SOLID_DOUBLE_WHITE = 8
    ROAD_LINE_BROKEN_SINGLE_YELLOW = 9
    ROAD_LINE_BROKEN_DOUBLE_YELLOW = 10
    ROAD_LINE_SOLID_SINGLE_YELLOW = 11
    ROAD_LINE_SOLID_DOUBLE_YELLOW = 12
    ROAD_LINE_PASSING_DOUBLE_YELLOW = 13
    ROAD_EDGE_UNKNOWN = 14
    ROAD_EDGE_BOUNDARY = 15
    ROAD_EDGE_MEDIAN = 16
    STOP_SIGN = 17
    CROSSWALK = 18
    SPEED_BUMP = 19
    DRIVEWAY = 20

    @staticmethod
    def is_lane(feature_type: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Tells which codes are lane centres."""
        return (feature_type >= 0) & (feature_type <= MapFeatureType.LANE_BIKE_LANE)

    @staticmethod
    def is_road_line(feature_type: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Tells which codes are painted lines."""
        return (feature_type >= MapFeatureType.ROAD_LINE_UNKNOWN) & (
            feature_type <= MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW
        )

    @staticmethod
    def is_road_edge(feature_type: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Tells which codes are road edges."""
        return (feature_type >= MapFeatureType.ROAD_EDGE_UNKNOWN) & (
            feature_type <= MapFeatureType.ROAD_EDGE_MEDIAN
        )


class LaneLinkType(IntEnum):
    """What a lane has to do with another map feature."""

    ENTRY_LANE = 0
    EXIT_LANE = 1
    LEFT_NEIGHBOR = 2
    RIGHT_NEIGHBOR = 3
    LEFT_BOUNDARY = 4
    RIGHT_BOUNDARY = 5
    NEIGHBOR_BOUNDARY = 6
    STOP_SIGN_LANE = 7


@dataclass(frozen=True, eq=False, kw_only=True)
class LaneLinks(TensorTree):
    """The lane graph, as a list of links from one map feature to another.

    Attributes:
        feature: Index (not id) of the feature that the link belongs to: a lane, or a stop sign for
            `STOP_SIGN_LANE`.
        type: `LaneLinkType` of each link.
        other_id: WOMD's id of the feature at the other end. It need not be on the map.
        span: For neighbours: first and last point index on this lane, first and last on the
            neighbour. For boundaries: first and last point index on this lane, 0, 0. Else zeros.
        boundary_type: For boundaries, the `RoadLine` type of WOMD; else 0.
        neighbor: For `NEIGHBOR_BOUNDARY`, the index of the neighbour link it belongs to; else 0.
        valid: False for padding.
    """

    feature: Int[Tensor, "*batch links"]
    type: Int[Tensor, "*batch links"]
    other_id: Int[Tensor, "*batch links"]
    span: Int[Tensor, "*batch links 4"]
    boundary_type: Int[Tensor, "*batch links"]
    neighbor: Int[Tensor, "*batch links"]
    valid: Bool[Tensor, "*batch links"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RoadGraph(TensorTree):
    """Map features as one list of points, in the scenario's frame.

    The points of a feature follow each other in the order of the file, so a segment of a polyline
    runs between successive points with equal `feature`. A list of points, because a rectangle of
    features and points would be ten times larger: most features are short.

    Attributes:
        xyz: Points of polylines and polygons, and the positions of stop signs (m).
        feature: Index of the feature that each point belongs to.
        point_valid: False for padding.
        feature_id: WOMD's id of each feature.
        feature_type: `MapFeatureType` of each feature.
        speed_limit: Speed limit of lanes (mph, as WOMD gives it); 0 where there is none.
        interpolating: Whether a lane was interpolated between two others.
        feature_valid: False for padding.
        links: The lane graph.
    """

    xyz: Float[Tensor, "*batch points 3"]
    feature: Int[Tensor, "*batch points"]
    point_valid: Bool[Tensor, "*batch points"]
    feature_id: Int[Tensor, "*batch features"]
    feature_type: Int[Tensor, "*batch features"]
    speed_limit: Float[Tensor, "*batch features"]
    interpolating: Bool[Tensor, "*batch features"]
    feature_valid: Bool[Tensor, "*batch features"]
    links: LaneLinks

    @property
    def point_type(self) -> Int[Tensor, "*batch points"]:
        """`MapFeatureType` of the feature that each point belongs to."""
        return self.feature_type.gather(-1, self.feature)

    def with_room_for_a_segment(self) -> "RoadGraph":
        """Returns a map of at least two points and one feature, by padding one that has fewer.

        Whoever takes segments of a map need not ask then whether there can be any.
        """
        num_points, num_features = self.point_valid.shape[-1], self.feature_valid.shape[-1]
        points, features = max(0, 2 - num_points), max(0, 1 - num_features)
        if not points and not features:
            return self
        return self.replace(
            xyz=pad(self.xyz, (0, 0, 0, points)),
            feature=pad(self.feature, (0, points)),
            point_valid=pad(self.point_valid, (0, points)),
            feature_id=pad(self.feature_id, (0, features)),
            feature_type=pad(self.feature_type, (0, features)),
            speed_limit=pad(self.speed_limit, (0, features)),
            interpolating=pad(self.interpolating, (0, features)),
            feature_valid=pad(self.feature_valid, (0, features)),
        )

    @property
    def is_segment(self) -> Bool[Tensor, "*batch segments"]:
        """Whether point i and point i + 1 belong to the same feature."""
        same = self.feature[..., 1:] == self.feature[..., :-1]
        return same & self.point_valid[..., 1:] & self.point_valid[..., :-1]
