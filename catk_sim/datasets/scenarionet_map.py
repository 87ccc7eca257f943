"""The map of a ScenarioNet log."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from catk_sim.datasets.lane_graph import connect_lanes, connection_links
from catk_sim.datasets.numbering import is_number
from catk_sim.datasets.plain_value import PlainValue
from catk_sim.datasets.recording import LINK_COLUMNS, RecordedMap
from catk_sim.datatypes import LaneLinkType, MapFeatureType

_OTHER_NAMES = {
    "UNKNOWN": MapFeatureType.LANE_UNDEFINED,
    "LANE_UNKNOWN": MapFeatureType.LANE_UNDEFINED,
    "LANE_SURFACE_UNSTRUCTURE": MapFeatureType.LANE_SURFACE_STREET,
    "UNKNOWN_LINE": MapFeatureType.ROAD_LINE_UNKNOWN,
    "CROSS_WALK": MapFeatureType.CROSSWALK,
}
_OUTLINE_PREFIX = "boundary_"
"""How ScenarioNet names the outlines of nuScenes' drivable area."""

_LANE_KEYS = {
    "entry_lanes": "entry and exit lanes (rebuilt from lane ends)",
    "interpolating": "interpolating lanes",
    "left_boundaries": "lane boundaries",
    "left_neighbor": "lane neighbors",
    "speed_limit_mph": "lane speed limits",
}
"""What of a lane a log may lack, and how to say so."""

_SPAN = ("self_start_index", "self_end_index", "neighbor_start_index", "neighbor_end_index")
_NEIGHBORS = (
    (LaneLinkType.LEFT_NEIGHBOR, "left_neighbor"),
    (LaneLinkType.RIGHT_NEIGHBOR, "right_neighbor"),
)
_BOUNDARIES = (
    (LaneLinkType.LEFT_BOUNDARY, "left_boundaries"),
    (LaneLinkType.RIGHT_BOUNDARY, "right_boundaries"),
)
_ROAD_LINES = range(
    MapFeatureType.ROAD_LINE_UNKNOWN, MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW + 1
)

Link = tuple[int, ...]


class MapNumbers:
    """The numbers of map features.

    Args:
        numbers: The number of each feature that is on the map, by its name.
    """

    def __init__(self, numbers: dict[str, int]) -> None:
        self._numbers = numbers

    def of(self, value: PlainValue) -> int:
        """Returns the number of a feature that is named here. It need not be on the map."""
        name = value.identity()
        if name in self._numbers:
            return self._numbers[name]
        if not is_number(name):
            raise value.error("the name of a map feature")
        return int(name)


def recorded_map(
    features: PlainValue, numbers: MapNumbers, *, is_nuscenes: bool
) -> tuple[RecordedMap, list[str]]:
    """Reads the map features.

    Args:
        features: By their names.
        numbers: Of the features.
        is_nuscenes: Whether the log is nuScenes'; see `scenarionet.parse_scenarios`.

    Returns:
        The map, and what it lacks.
    """
    entries = features.entries()
    types = {name: _feature_type(name, feature, is_nuscenes) for name, feature in entries}
    unknown = {feature["type"].text() for name, feature in entries if types[name] is None}
    kept = [(name, feature, kind) for name, feature in entries if (kind := types[name]) is not None]
    points = [_points(name, feature, kind, is_nuscenes) for name, feature, kind in kept]
    feature_id = [numbers.of(PlainValue(name, features.path, features.source)) for name, *_ in kept]
    feature_type = np.array([kind for *_, kind in kept], np.int64)
    lanes = [feature for _, feature, kind in kept if kind <= MapFeatureType.LANE_BIKE_LANE]
    lacks = [f"map features of type {kind[:40]} (left out)".replace(",", "") for kind in unknown]
    lacks += [
        phrase for key, phrase in _LANE_KEYS.items() if not all(lane.has(key) for lane in lanes)
    ]
    num_points = np.array([len(each) for each in points], np.int64)
    xyz = np.concatenate([np.zeros((0, 3)), *points])
    links = _links([feature for _, feature, _ in kept], feature_type, numbers)
    if _LANE_KEYS["entry_lanes"] in lacks:
        is_lane = feature_type <= MapFeatureType.LANE_BIKE_LANE
        connections = connect_lanes(xyz, num_points, is_lane, features.source)
        links = connection_links(*connections, np.array(feature_id, np.int64))
    return (
        RecordedMap(
            feature_id=np.array(feature_id, np.int64),
            feature_type=feature_type,
            speed_limit=np.array([_speed_limit(feature) for _, feature, _ in kept], np.float64),
            interpolating=np.array([_interpolating(feature) for _, feature, _ in kept], bool),
            num_points=num_points,
            xyz=xyz,
            links=links,
        ),
        lacks,
    )


def _feature_type(name: str, feature: PlainValue, is_nuscenes: bool) -> MapFeatureType | None:
    kind = feature["type"].text()
    if is_nuscenes and name.startswith(_OUTLINE_PREFIX):
        return MapFeatureType.ROAD_EDGE_BOUNDARY
    if kind in _OTHER_NAMES:
        return _OTHER_NAMES[kind]
    return MapFeatureType.__members__.get(kind)


def _points(
    name: str, feature: PlainValue, kind: MapFeatureType, is_nuscenes: bool
) -> Float[ndarray, "points 3"]:
    if kind == MapFeatureType.STOP_SIGN:
        return feature["position"].column(3)[None]
    line = feature["polyline"] if feature.has("polyline") else feature["polygon"]
    points = line.table(2, 3)
    if is_nuscenes or points.shape[1] == 2:
        points = np.concatenate([points[:, :2], np.zeros((len(points), 1))], axis=1)
    # nuScenes has the drivable area on the right of its outlines, WOMD on the left of road edges.
    return points[::-1] if is_nuscenes and name.startswith(_OUTLINE_PREFIX) else points


def _speed_limit(feature: PlainValue) -> float:
    # nuScenes' files have one in km/h, which is 100 everywhere.
    if not feature.has("speed_limit_mph") or feature["speed_limit_mph"].value is None:
        return 0.0
    return feature["speed_limit_mph"].number()


def _interpolating(feature: PlainValue) -> bool:
    return feature.has("interpolating") and bool(feature["interpolating"].flag())


def _links(
    features: list[PlainValue], feature_type: Int[ndarray, " features"], numbers: MapNumbers
) -> Int[ndarray, "links 9"]:
    links: list[Link] = []
    for index, (feature, kind) in enumerate(zip(features, feature_type.tolist(), strict=True)):
        if kind <= MapFeatureType.LANE_BIKE_LANE:
            links.extend(_lane_links(index, feature, numbers, first=len(links)))
        elif kind == MapFeatureType.STOP_SIGN:
            links.extend(_plain(index, LaneLinkType.STOP_SIGN_LANE, feature, "lane", numbers))
    return np.array(links, np.int64).reshape(len(links), LINK_COLUMNS)


def _lane_links(index: int, lane: PlainValue, numbers: MapNumbers, first: int) -> list[Link]:
    """Lists the links of a lane, given the index that its first link will have among all."""
    links = [
        *_plain(index, LaneLinkType.ENTRY_LANE, lane, "entry_lanes", numbers),
        *_plain(index, LaneLinkType.EXIT_LANE, lane, "exit_lanes", numbers),
    ]
    for side, key in _NEIGHBORS:
        for each in _elements(lane, key):
            neighbor = first + len(links)
            span = (each[name].whole() for name in _SPAN)
            links.append((index, side, numbers.of(each["feature_id"]), *span, 0, 0))
            inner = LaneLinkType.NEIGHBOR_BOUNDARY
            links.extend(_boundaries(index, inner, each, "boundaries", numbers, neighbor))
    for side, key in _BOUNDARIES:
        links.extend(_boundaries(index, side, lane, key, numbers))
    return links


def _elements(feature: PlainValue, key: str) -> list[PlainValue]:
    return feature[key].elements() if feature.has(key) else []


def _plain(
    index: int, kind: LaneLinkType, feature: PlainValue, key: str, numbers: MapNumbers
) -> Iterator[Link]:
    for other in _elements(feature, key):
        yield (index, kind, numbers.of(other), 0, 0, 0, 0, 0, 0)


def _boundaries(
    index: int,
    kind: LaneLinkType,
    owner: PlainValue,
    key: str,
    numbers: MapNumbers,
    neighbor: int = 0,
) -> Iterator[Link]:
    for each in _elements(owner, key):
        span = each["lane_start_index"].whole(), each["lane_end_index"].whole(), 0, 0
        other = numbers.of(each["boundary_feature_id"])
        yield (index, kind, other, *span, _line_type(each["boundary_type"]), neighbor)


def _line_type(value: PlainValue) -> int:
    """Returns WOMD's `RoadLine` type."""
    if value.text() == "UNKNOWN":
        return 0
    kind = MapFeatureType.__members__.get(value.text(), MapFeatureType.LANE_UNDEFINED)
    if kind not in _ROAD_LINES:
        raise value.error("the type of a road line")
    return kind - MapFeatureType.ROAD_LINE_UNKNOWN
