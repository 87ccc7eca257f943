"""The map as short tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import (
    LaneLinkType,
    MapFeatureType,
    RoadGraph,
    TensorTree,
    TrafficLights,
    TrafficLightState,
)
from catk_sim.geometry.se2 import to_local
from policies.smart.map_vocabulary import match_curves
from policies.smart.polylines import Polylines, slide_windows

LONGEST_GAP = 3.0
"""Polylines are cut where successive points are farther apart (m)."""

SAMPLE_SPACING = 0.5
"""Spacing of the samples of a polyline (m)."""

SAMPLES_PER_TOKEN = 10
"""Samples from the begin of a token to that of the next."""


class PointType(IntEnum):
    """Kinds of map tokens."""

    FREEWAY = 0
    SURFACE_STREET = 1
    STOP_SIGN_LANE = 2
    BIKE_LANE = 3
    ROAD_BOUNDARY = 4
    MEDIAN = 5
    BROKEN_LINE = 6
    SOLID_LINE = 7
    OTHER_LINE = 8
    CROSSING = 9


class PolygonType(IntEnum):
    """Families of map tokens."""

    LANE = 0
    ROAD_EDGE = 1
    ROAD_LINE = 2
    CROSSING = 3


class LaneLight(IntEnum):
    """What a lane's light shows. Arrows and flashing lights count as plain ones."""

    NONE = 0
    UNKNOWN = 1
    STOP = 2
    GO = 3
    CAUTION = 4


_NOT_DRAWN = -1
_POINT_TYPES: dict[int, PointType] = {
    MapFeatureType.LANE_UNDEFINED: PointType.SURFACE_STREET,
    MapFeatureType.LANE_FREEWAY: PointType.FREEWAY,
    MapFeatureType.LANE_SURFACE_STREET: PointType.SURFACE_STREET,
    MapFeatureType.LANE_BIKE_LANE: PointType.BIKE_LANE,
    MapFeatureType.ROAD_LINE_UNKNOWN: PointType.OTHER_LINE,
    MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE: PointType.BROKEN_LINE,
    MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE: PointType.SOLID_LINE,
    MapFeatureType.ROAD_LINE_SOLID_DOUBLE_WHITE: PointType.OTHER_LINE,
    MapFeatureType.ROAD_LINE_BROKEN_SINGLE_YELLOW: PointType.BROKEN_LINE,
    MapFeatureType.ROAD_LINE_BROKEN_DOUBLE_YELLOW: PointType.BROKEN_LINE,
    MapFeatureType.ROAD_LINE_SOLID_SINGLE_YELLOW: PointType.SOLID_LINE,
    MapFeatureType.ROAD_LINE_SOLID_DOUBLE_YELLOW: PointType.OTHER_LINE,
    MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW: PointType.OTHER_LINE,
    # catk gives an unknown edge the number of bike lanes.
    MapFeatureType.ROAD_EDGE_UNKNOWN: PointType.ROAD_BOUNDARY,
    MapFeatureType.ROAD_EDGE_BOUNDARY: PointType.ROAD_BOUNDARY,
    MapFeatureType.ROAD_EDGE_MEDIAN: PointType.MEDIAN,
    MapFeatureType.CROSSWALK: PointType.CROSSING,
    MapFeatureType.SPEED_BUMP: PointType.CROSSING,
    MapFeatureType.DRIVEWAY: PointType.CROSSING,
}
_DRAWN = [_POINT_TYPES.get(code, _NOT_DRAWN) for code in range(max(_POINT_TYPES) + 1)]
_POLYGON_TYPES = (
    *[PolygonType.LANE] * 4,
    *[PolygonType.ROAD_EDGE] * 2,
    *[PolygonType.ROAD_LINE] * 3,
    PolygonType.CROSSING,
)
# From the least to the most restrictive, should a lane have two lights.
_LIGHTS = (LaneLight.NONE, LaneLight.UNKNOWN, LaneLight.GO, LaneLight.CAUTION, LaneLight.STOP)
_RESTRICTION = {
    TrafficLightState.UNKNOWN: 1,
    TrafficLightState.ARROW_STOP: 4,
    TrafficLightState.ARROW_CAUTION: 3,
    TrafficLightState.ARROW_GO: 2,
    TrafficLightState.STOP: 4,
    TrafficLightState.CAUTION: 3,
    TrafficLightState.GO: 2,
    TrafficLightState.FLASHING_STOP: 4,
    TrafficLightState.FLASHING_CAUTION: 3,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class MapTokens(TensorTree):
    """Pieces of map features, about 5 m long.

    Attributes:
        xy: Where each piece begins (m).
        heading: Its direction there (rad).
        curve_local: Its begin, middle and end (m) in the frame of its begin.
        token: The curve of the map vocabulary that is most like it.
        point_type: `PointType` of the map feature.
        polygon_type: `PolygonType` of the map feature.
        light: `LaneLight` of the lane.
        valid: False for padding.
    """

    xy: Float[Tensor, "*batch map_tokens 2"]
    heading: Float[Tensor, "*batch map_tokens"]
    curve_local: Float[Tensor, "*batch map_tokens 3 2"]
    token: Int[Tensor, "*batch map_tokens"]
    point_type: Int[Tensor, "*batch map_tokens"]
    polygon_type: Int[Tensor, "*batch map_tokens"]
    light: Int[Tensor, "*batch map_tokens"]
    valid: Bool[Tensor, "*batch map_tokens"]


def tokenize_map(
    roadgraph: RoadGraph,
    lights: TrafficLights,
    vocabulary: Float[Tensor, "curves points 2"],
    *,
    step: int = CURRENT_STEP,
) -> MapTokens:
    """Cuts the features of maps into tokens of 5 m.

    catk (arXiv:2412.05334) makes one polyline of a crosswalk that doubles back on itself. Here
    each direction of each long side is a polyline.

    Args:
        roadgraph: A map, or a batch of maps.
        lights: Their lights.
        vocabulary: The map vocabulary.
        step: The step that the lights are read at.
    """
    batch = roadgraph.feature_id.shape[:-1]
    flat = roadgraph.map(lambda t: t.reshape(prod(batch), *t.shape[len(batch) :]))
    lights = lights.map(lambda t: t.reshape(prod(batch), *t.shape[len(batch) :]))
    point_type = _point_types(flat)
    # What is not drawn has the index -1, the last.
    polygon_type = _lookup((*_POLYGON_TYPES, _NOT_DRAWN), point_type)
    pieces, feature = _pieces(flat, polygon_type)
    windows = slide_windows(pieces, spacing=SAMPLE_SPACING, width=SAMPLES_PER_TOKEN)
    begin = windows.points[:, 0]
    curve = to_local(windows.points, begin[:, None], windows.heading[:, None])
    feature = feature[windows.line]
    num_features = flat.feature_id.shape[1]
    scene = feature // num_features
    counts = torch.bincount(scene, minlength=prod(batch))
    rank = torch.arange(scene.shape[0], device=scene.device) - (counts.cumsum(0) - counts)[scene]
    longest = int(counts.max()) if counts.shape[0] else 0

    def pad(values: Tensor) -> Tensor:
        padded = values.new_zeros(prod(batch), longest, *values.shape[1:])
        return padded.index_put((scene, rank), values).view(*batch, longest, *values.shape[1:])

    return MapTokens(
        xy=pad(begin.to(roadgraph.xyz.dtype)),
        heading=pad(windows.heading.to(roadgraph.xyz.dtype)),
        curve_local=pad(curve.to(roadgraph.xyz.dtype)),
        token=pad(match_curves(curve, vocabulary)),
        point_type=pad(point_type.flatten()[feature]),
        polygon_type=pad(polygon_type.flatten()[feature]),
        light=pad(_lane_lights(flat, lights, step).flatten()[feature]),
        valid=pad(torch.ones_like(feature, dtype=torch.bool)),
    )


def _lookup(table: Sequence[int], index: Tensor) -> Tensor:
    return torch.tensor([int(entry) for entry in table], device=index.device)[index]


def _point_types(roadgraph: RoadGraph) -> Int[Tensor, "scenes features"]:
    """Finds the `PointType` of each feature; -1 for those that make no tokens."""
    drawn = _lookup(_DRAWN, roadgraph.feature_type)
    is_stop = roadgraph.links.valid & (roadgraph.links.type == LaneLinkType.STOP_SIGN_LANE)
    scene, link = is_stop.nonzero(as_tuple=True)
    named = roadgraph.feature_id[scene] == roadgraph.links.other_id[scene, link][:, None]
    has_stop = torch.zeros_like(drawn).index_add(0, scene, named.to(drawn.dtype)) > 0
    slows = has_stop & (drawn <= PointType.SURFACE_STREET) & (drawn >= 0)
    drawn = drawn.masked_fill(slows, PointType.STOP_SIGN_LANE)
    return drawn.masked_fill(~roadgraph.feature_valid, _NOT_DRAWN)


def _lane_lights(
    roadgraph: RoadGraph, lights: TrafficLights, step: int
) -> Int[Tensor, "scenes features"]:
    """Finds the `LaneLight` of each feature; the most restrictive where there are several."""
    scene, light = lights.valid[..., step].nonzero(as_tuple=True)
    table = [_RESTRICTION[state] for state in TrafficLightState]
    restriction = _lookup(table, lights.state[scene, light, step])
    is_lane = MapFeatureType.is_lane(roadgraph.feature_type)
    named = roadgraph.feature_id[scene] == lights.lane_id[scene, light][:, None]
    found = (named & is_lane[scene]) * restriction[:, None]
    strictest = torch.zeros_like(roadgraph.feature_type).scatter_reduce(
        0, scene[:, None].expand_as(found), found, "amax"
    )
    return _lookup(_LIGHTS, strictest)


def _pieces(
    roadgraph: RoadGraph, polygon_type: Int[Tensor, "scenes features"]
) -> tuple[Polylines, Int[Tensor, " pieces"]]:
    """Makes polylines of the features, and tells the feature (of all scenes) of each."""
    family = polygon_type.gather(1, roadgraph.feature)
    is_crossing = family == PolygonType.CROSSING
    lines, line_feature = _lines(_features(roadgraph, (family >= 0) & ~is_crossing))
    sides, side_feature = _crossing_sides(_features(roadgraph, is_crossing))
    pieces = Polylines.cat([lines, sides])
    feature = torch.cat([line_feature, side_feature])
    # Scene by scene, and family by family as catk lists them.
    key = feature // polygon_type.shape[1] * len(PolygonType) + polygon_type.flatten()[feature]
    order = key.argsort(stable=True)
    return pieces.reorder(order), feature[order]


def _features(roadgraph: RoadGraph, drawn: Bool[Tensor, "scenes points"]) -> Polylines:
    """Lists features by their points, each under its number among those of all scenes."""
    scene, point = (roadgraph.point_valid & drawn).nonzero(as_tuple=True)
    feature = scene * roadgraph.feature_id.shape[1] + roadgraph.feature[scene, point]
    return Polylines(xy=roadgraph.xyz[scene, point, :2].double(), line=feature)


def _lines(features: Polylines) -> tuple[Polylines, Int[Tensor, " pieces"]]:
    """Cuts lines at gaps. Their last points are left out, as catk does, and then short lines."""
    _, line, count = features.line.unique_consecutive(return_inverse=True, return_counts=True)
    return features.keep(~features.ends_line & (count[line] > 3)).cut(LONGEST_GAP)


def _crossing_sides(polygons: Polylines) -> tuple[Polylines, Int[Tensor, " sides"]]:
    """Draws the two long sides of each polygon, in both directions."""
    feature, count = polygons.line.unique_consecutive(return_counts=True)
    first = count.cumsum(0) - count
    quarter = torch.arange(4, device=count.device) * count[:, None] // 4
    corners = polygons.xy[first[:, None] + quarter]
    lengths = corners.diff(dim=1).norm(dim=-1)
    is_first_long = (lengths[:, 0] > lengths[:, 1])[:, None]
    # Corners of both sides there and back.
    along_first = quarter.new_tensor([0, 1, 1, 0, 3, 2, 2, 3])
    along_second = quarter.new_tensor([0, 3, 3, 0, 1, 2, 2, 1])
    index = torch.where(is_first_long, along_first, along_second)
    xy = corners.gather(1, index[..., None].expand(-1, -1, 2)).reshape(-1, 2)
    side = torch.arange(xy.shape[0], device=count.device) // 2
    return Polylines(xy=xy, line=side), feature.repeat_interleave(4)
