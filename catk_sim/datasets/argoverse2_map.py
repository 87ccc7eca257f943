"""The vector map of Argoverse 2's motion forecasting scenarios."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from catk_sim.datasets.json_value import JsonValue
from catk_sim.datasets.recording import LINK_COLUMNS, RecordedMap
from catk_sim.datatypes import LaneLinkType, MapFeatureType

_LANE_TYPES = {
    "VEHICLE": MapFeatureType.LANE_SURFACE_STREET,
    "BUS": MapFeatureType.LANE_SURFACE_STREET,
    "BIKE": MapFeatureType.LANE_BIKE_LANE,
}
_MARKS = {
    "DASHED_WHITE": MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE,
    "DOUBLE_DASH_WHITE": MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE,
    "SOLID_WHITE": MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE,
    "DASH_SOLID_WHITE": MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE,
    "SOLID_DASH_WHITE": MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE,
    "DOUBLE_SOLID_WHITE": MapFeatureType.ROAD_LINE_SOLID_DOUBLE_WHITE,
    "DASHED_YELLOW": MapFeatureType.ROAD_LINE_BROKEN_SINGLE_YELLOW,
    "DOUBLE_DASH_YELLOW": MapFeatureType.ROAD_LINE_BROKEN_DOUBLE_YELLOW,
    "SOLID_YELLOW": MapFeatureType.ROAD_LINE_SOLID_SINGLE_YELLOW,
    "DOUBLE_SOLID_YELLOW": MapFeatureType.ROAD_LINE_SOLID_DOUBLE_YELLOW,
    "DASH_SOLID_YELLOW": MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW,
    "SOLID_DASH_YELLOW": MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW,
    "SOLID_BLUE": MapFeatureType.ROAD_LINE_UNKNOWN,
    "UNKNOWN": MapFeatureType.ROAD_LINE_UNKNOWN,
}
_UNMARKED = "NONE"

Link = tuple[int, ...]
Polyline = Float[ndarray, "_ 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Lane:
    """A lane segment, and its place among the features."""

    index: int
    id: int
    type: MapFeatureType
    points: Polyline
    value: JsonValue


class _Features:
    """Map features as they are found."""

    def __init__(self, following: int) -> None:
        self.ids: list[int] = []
        self.types: list[MapFeatureType] = []
        self.points: list[ndarray] = []
        self._following = following

    def add(self, kind: MapFeatureType, points: Polyline, feature_id: int | None = None) -> int:
        """Adds a feature. Those that have no number in the file get one. Returns it."""
        if feature_id is None:
            feature_id = self._following
            self._following += 1
        self.ids.append(feature_id)
        self.types.append(kind)
        self.points.append(points)
        return feature_id


def recorded_map(file: JsonValue) -> RecordedMap:
    """Reads a map. Everything lies at height 0.

    Each marked boundary of lanes is one road line, though two lanes name it. Where two drivable
    areas touch there is no road edge. Marks that WOMD has no type for have that of their more
    forbidding half.

    Raises:
        DataError: If a key is missing, or a value is not what it should be.
    """
    lanes = [_lane(index, value) for index, value in enumerate(_values(file["lane_segments"]))]
    crossings = _values(file["pedestrian_crossings"])
    named = [lane.id for lane in lanes] + [_feature_id(each) for each in crossings]
    features = _Features(following=max([0, *named]) + 1)
    for lane in lanes:
        features.add(lane.type, lane.points, lane.id)
    for crossing in crossings:
        edges = [_polyline(crossing[edge]) for edge in ("edge1", "edge2")]
        outline = np.concatenate([edges[0], edges[1][::-1]])
        features.add(MapFeatureType.CROSSWALK, outline, _feature_id(crossing))
    links = _links(lanes, features)
    areas = [_polyline(area["area_boundary"]) for area in _values(file["drivable_areas"])]
    for edge in road_edges(areas):
        features.add(MapFeatureType.ROAD_EDGE_BOUNDARY, edge)
    count = len(features.ids)
    xy = np.concatenate([np.zeros((0, 2)), *features.points])
    return RecordedMap(
        feature_id=np.array(features.ids, np.int64),
        feature_type=np.array(features.types, np.int64),
        speed_limit=np.zeros(count),
        interpolating=np.zeros(count, bool),
        num_points=np.array([len(points) for points in features.points], np.int64),
        xyz=np.concatenate([xy, np.zeros((len(xy), 1))], axis=1),
        links=links,
    )


def road_edges(areas: list[Float[ndarray, "_ 2"]]) -> list[Float[ndarray, "_ 2"]]:
    """Makes road edges of the outlines of drivable areas.

    Args:
        areas: Polygons, in either direction and not closed.

    Returns:
        Polylines that have the drivable area on their left, as WOMD's road edges have, without the
        sides that two areas share.
    """
    outlines = [np.concatenate([area, area[:1]]) for area in areas if len(area) > 2]
    outlines = [each if _signed_area(each) > 0 else each[::-1] for each in outlines]
    times: dict[tuple[bytes, bytes], int] = {}
    sides = [[_side(*ends) for ends in pairwise(each)] for each in outlines]
    for side in (side for outline in sides for side in outline):
        times[side] = times.get(side, 0) + 1
    edges: list[ndarray] = []
    for outline, outline_sides in zip(outlines, sides, strict=True):
        edges += _runs(outline, np.array([times[side] == 1 for side in outline_sides], bool))
    return edges


def _signed_area(outline: Float[ndarray, "_ 2"]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        x, y = (outline - outline[0]).T
        return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())


def _side(start: Float[ndarray, "2"], end: Float[ndarray, "2"]) -> tuple[bytes, bytes]:
    """Names a side of a polygon alike in both directions."""
    first, second = _name(start), _name(end)
    return min(first, second), max(first, second)


def _name(points: ndarray) -> bytes:
    """Names a place. Maps are written to the centimetre."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (np.round(points, 2) + 0.0).tobytes()


def _runs(outline: Float[ndarray, "points 2"], kept: ndarray) -> list[Float[ndarray, "_ 2"]]:
    """Cuts a closed outline into the runs of sides that are kept."""
    if kept.all():
        return [outline]
    # From behind a side that is dropped, so that no run is cut in two.
    shift = int(np.flatnonzero(~kept)[0]) + 1
    points = np.concatenate([outline[shift:-1], outline[:shift], outline[shift : shift + 1]])
    kept = np.roll(kept, -shift)
    bounds = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(int)))
    return [points[start : stop + 1] for start, stop in bounds.reshape(-1, 2).tolist()]


def _feature_id(value: JsonValue) -> int:
    # Further features are counted on from here.
    if not 0 <= value["id"].integer() < 2**62:
        raise value["id"].error("the number of a map feature")
    return value["id"].integer()


def _values(value: JsonValue) -> list[JsonValue]:
    return [item for _, item in value.entries()]


def _polyline(value: JsonValue) -> Polyline:
    return value.vectors("x", "y")


def _lane(index: int, value: JsonValue) -> _Lane:
    kind = value["lane_type"]
    if kind.text() not in _LANE_TYPES:
        raise kind.error("one of " + ", ".join(_LANE_TYPES))
    return _Lane(
        index=index,
        id=_feature_id(value),
        type=_LANE_TYPES[kind.text()],
        points=_polyline(value["centerline"]),
        value=value,
    )


def _links(lanes: list[_Lane], features: _Features) -> Int[ndarray, "links 9"]:
    """Lists the links of all lanes, in WOMD's order, and adds the lines that they refer to."""
    by_id = {lane.id: lane for lane in lanes}
    lines: dict[bytes, int] = {}
    links: list[Link] = []
    for lane in lanes:
        links += _connections(lane, LaneLinkType.ENTRY_LANE, "predecessors")
        links += _connections(lane, LaneLinkType.EXIT_LANE, "successors")
        links += _neighbor(lane, LaneLinkType.LEFT_NEIGHBOR, "left_neighbor_id", by_id)
        links += _neighbor(lane, LaneLinkType.RIGHT_NEIGHBOR, "right_neighbor_id", by_id)
        links += _boundary(lane, LaneLinkType.LEFT_BOUNDARY, "left", features, lines)
        links += _boundary(lane, LaneLinkType.RIGHT_BOUNDARY, "right", features, lines)
    return np.array(links, np.int64).reshape(len(links), LINK_COLUMNS)


def _connections(lane: _Lane, kind: LaneLinkType, key: str) -> list[Link]:
    others = lane.value[key].elements()
    return [(lane.index, kind, other.integer(), 0, 0, 0, 0, 0, 0) for other in others]


def _neighbor(lane: _Lane, kind: LaneLinkType, key: str, by_id: dict[int, _Lane]) -> list[Link]:
    if lane.value[key].value is None:
        return []
    other = by_id.get(lane.value[key].integer())
    if other is None or not _same_way(lane.points, other.points):
        return []
    # Neighbours run beside each other from end to end.
    span = 0, len(lane.points) - 1, 0, len(other.points) - 1
    return [(lane.index, kind, other.id, *span, 0, 0)]


def _same_way(one: Polyline, other: Polyline) -> bool:
    if not len(one) or not len(other):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((one[-1] - one[0]) @ (other[-1] - other[0]) > 0)


def _boundary(
    lane: _Lane, kind: LaneLinkType, side: str, features: _Features, lines: dict[bytes, int]
) -> list[Link]:
    mark = lane.value[f"{side}_lane_mark_type"]
    if mark.text() == _UNMARKED:
        return []
    if mark.text() not in _MARKS:
        raise mark.error("one of " + ", ".join([_UNMARKED, *_MARKS]))
    line_type = _MARKS[mark.text()]
    points = _polyline(lane.value[f"{side}_lane_boundary"])
    name = min(_name(points), _name(points[::-1]))
    if name not in lines:
        lines[name] = features.add(line_type, points)
    span = 0, max(0, len(lane.points) - 1), 0, 0
    number = line_type - MapFeatureType.ROAD_LINE_UNKNOWN
    return [(lane.index, kind, lines[name], *span, number, 0)]
