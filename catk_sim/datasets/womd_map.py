"""The map of a `Scenario` proto."""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from catk_sim.datasets.errors import DataError
from catk_sim.datasets.message_table import MessageTable
from catk_sim.datasets.recording import LINK_COLUMNS, RecordedMap
from catk_sim.datasets.womd_schema import message_class
from catk_sim.datatypes import LaneLinkType, MapFeatureType

FEATURE_CODES = {
    "lane": range(MapFeatureType.LANE_UNDEFINED, MapFeatureType.LANE_BIKE_LANE + 1),
    "road_line": range(
        MapFeatureType.ROAD_LINE_UNKNOWN, MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW + 1
    ),
    "road_edge": range(MapFeatureType.ROAD_EDGE_UNKNOWN, MapFeatureType.ROAD_EDGE_MEDIAN + 1),
    "stop_sign": range(MapFeatureType.STOP_SIGN, MapFeatureType.STOP_SIGN + 1),
    "crosswalk": range(MapFeatureType.CROSSWALK, MapFeatureType.CROSSWALK + 1),
    "speed_bump": range(MapFeatureType.SPEED_BUMP, MapFeatureType.SPEED_BUMP + 1),
    "driveway": range(MapFeatureType.DRIVEWAY, MapFeatureType.DRIVEWAY + 1),
}
"""The `MapFeatureType`s of each kind of feature, indexed by the proto's type if it has one."""

TYPED = ("lane", "road_line", "road_edge")
"""The kinds that have types, and a polyline. The others are points or polygons."""

_NEIGHBOR = attrgetter(
    "feature_id",
    "self_start_index",
    "self_end_index",
    "neighbor_start_index",
    "neighbor_end_index",
)

Link = tuple[int, ...]


def recorded_map(features: Sequence[Any], source: str) -> RecordedMap:
    """Reads `Scenario.map_features`.

    Args:
        features: The proto's map features.
        source: Where they come from, for errors.

    Raises:
        DataError: If a feature is of no known kind or type.
    """
    kinds = [feature.WhichOneof("feature_data") for feature in features]
    if None in kinds:
        unknown = features[kinds.index(None)].id
        names = ", ".join(FEATURE_CODES)
        raise DataError(f"wanted map feature {unknown} to be one of {names}, got none", source)
    content = [getattr(feature, kind) for feature, kind in zip(features, kinds, strict=True)]
    points = [_points(kind, item) for kind, item in zip(kinds, content, strict=True)]
    lanes = [item if kind == "lane" else None for kind, item in zip(kinds, content, strict=True)]
    return RecordedMap(
        feature_id=np.array([feature.id for feature in features], np.int64),
        feature_type=np.array(
            [
                _feature_type(feature, kind, source)
                for feature, kind in zip(features, kinds, strict=True)
            ],
            np.int64,
        ),
        speed_limit=np.array([lane.speed_limit_mph if lane else 0.0 for lane in lanes], np.float64),
        interpolating=np.array([lane.interpolating if lane else False for lane in lanes], bool),
        num_points=np.array([len(each) for each in points], np.int64),
        xyz=decode_points(list(chain.from_iterable(points))),
        links=_links(kinds, content),
    )


def decode_points(points: Sequence[bytes]) -> Float[ndarray, "points 3"]:
    """Decodes `MapPoint` messages."""
    return MessageTable(message_class("MapPoint")).decode(points)


def _feature_type(feature: Any, kind: str, source: str) -> int:
    codes = FEATURE_CODES[kind]
    number = getattr(feature, kind).type if kind in TYPED else 0
    if not 0 <= number < len(codes):
        raise DataError(
            f"wanted the type of map feature {feature.id} ({kind}) in [0, {len(codes)}), "
            f"got {number}",
            source,
        )
    return codes[number]


# Repeated fields are sliced below: a list is gone through several times as fast.
def _points(kind: str, item: Any) -> Sequence[bytes]:
    if kind in TYPED:
        return item.polyline[:]
    if kind == "stop_sign":
        return [item.position] if item.HasField("position") else []
    return item.polygon[:]


def _links(kinds: list[str], content: list[Any]) -> Int[ndarray, "links 9"]:
    links: list[Link] = []
    for feature, (kind, item) in enumerate(zip(kinds, content, strict=True)):
        if kind == "lane":
            _add_lane(links, feature, item)
        elif kind == "stop_sign":
            _add_plain(links, feature, LaneLinkType.STOP_SIGN_LANE, item.lane)
    numbers = np.fromiter(chain.from_iterable(links), np.int64, LINK_COLUMNS * len(links))
    return numbers.reshape(len(links), LINK_COLUMNS)


def _add_lane(links: list[Link], feature: int, lane: Any) -> None:
    _add_plain(links, feature, LaneLinkType.ENTRY_LANE, lane.entry_lanes)
    _add_plain(links, feature, LaneLinkType.EXIT_LANE, lane.exit_lanes)
    for side, neighbors in [
        (LaneLinkType.LEFT_NEIGHBOR, lane.left_neighbors),
        (LaneLinkType.RIGHT_NEIGHBOR, lane.right_neighbors),
    ]:
        for each in neighbors[:]:
            index = len(links)
            links.append((feature, side, *_NEIGHBOR(each), 0, 0))
            _add_boundaries(links, feature, LaneLinkType.NEIGHBOR_BOUNDARY, each.boundaries, index)
    _add_boundaries(links, feature, LaneLinkType.LEFT_BOUNDARY, lane.left_boundaries)
    _add_boundaries(links, feature, LaneLinkType.RIGHT_BOUNDARY, lane.right_boundaries)


def _add_plain(links: list[Link], feature: int, kind: LaneLinkType, others: Sequence[int]) -> None:
    for other in others[:]:
        links.append((feature, kind, other, 0, 0, 0, 0, 0, 0))


def _add_boundaries(
    links: list[Link],
    feature: int,
    kind: LaneLinkType,
    boundaries: Sequence[Any],
    neighbor: int = 0,
) -> None:
    for each in boundaries[:]:
        lane = each.lane_start_index, each.lane_end_index
        links.append(
            (feature, kind, each.boundary_feature_id, *lane, 0, 0, each.boundary_type, neighbor)
        )
