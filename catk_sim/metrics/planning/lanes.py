"""Which lane the ego is in."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import LaneLinkType, MapFeatureType, RoadGraph, TensorTree
from catk_sim.geometry.polylines import offset_from_segment

HALF_WIDTH = 1.85
"""How far a lane extends to either side of its centre (m): half of 12 feet, the usual width in the
United States, rounded up. WOMD has lanes' centres only; nuPlan asks its lanes' polygons."""

TURN_COST = 5.0
"""What the angle counts in the choice among lanes: metres of offset per (1 - cosine)."""

METRES_PER_SECOND = 0.44704
"""In a mile per hour, the unit of WOMD's speed limits."""

MAX_PAIRS = 1 << 20
"""Pairs of a point and a segment that are looked at together, which bounds the memory."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LaneAt(TensorTree):
    """The lane at points.

    Attributes:
        direction: Of the lane there, a unit vector.
        speed_limit: Of the lane (m/s); 0 where it is unknown.
        valid: Whether there is a lane: one whose centre is within `HALF_WIDTH`, in the plane.
    """

    direction: Float[Tensor, "*batch points 2"]
    speed_limit: Float[Tensor, "*batch points"]
    valid: Bool[Tensor, "*batch points"]


@dataclass(frozen=True, kw_only=True)
class _Segments:
    """The segments of a map's lanes near some points."""

    start: Float[Tensor, "2 segments"]
    step: Float[Tensor, "2 segments"]
    feature: Int[Tensor, " segments"]

    def distance(self, xy: Float[Tensor, "points 2"]) -> Float[Tensor, "points segments"]:
        """Measures how far points are from the segments (m)."""
        x, y = offset_from_segment(xy.T[..., None], self.start[:, None], self.step[:, None])
        return x.square().add_(y.square()).sqrt_()


def lane_at(
    xy: Float[Tensor, "scenes points 2"],
    heading: Float[Tensor, "scenes points"],
    roadgraph: RoadGraph,
) -> LaneAt:
    """Finds the lane that vehicles are in.

    Of several, as in an intersection, the one that their heading fits best counts.

    Args:
        xy: Where they are (m).
        heading: Where they head (rad).
        roadgraph: The maps.
    """
    found = [
        _lane_at(points, direction, road)
        for points, direction, road in zip(xy, heading, _maps(roadgraph), strict=True)
    ]
    return LaneAt.stack(found)


def is_in_one_lane(
    corners: Float[Tensor, "scenes points 4 2"], roadgraph: RoadGraph
) -> Bool[Tensor, "scenes points"]:
    """Tells which boxes are within one lane: all corners are in it, or in those that continue it.

    A corner is in a lane whose centre is within `HALF_WIDTH`.

    Args:
        corners: Of the boxes (m).
        roadgraph: The maps.
    """
    found = [
        _is_in_one_lane(boxes, road) for boxes, road in zip(corners, _maps(roadgraph), strict=True)
    ]
    return torch.stack(found)


def _lane_at(
    xy: Float[Tensor, "points 2"], heading: Float[Tensor, " points"], roadgraph: RoadGraph
) -> LaneAt:
    segments = _segments_near(xy, roadgraph)
    if not len(segments.feature):
        nothing = torch.zeros_like(heading)
        return LaneAt(direction=torch.zeros_like(xy), speed_limit=nothing, valid=nothing.bool())
    direction = segments.step / segments.step.norm(dim=0)
    facing = torch.stack([heading.cos(), heading.sin()], dim=-1)
    index, distance = [], []
    for some in _chunks(len(xy), len(segments.feature), xy.device):
        gap = segments.distance(xy[some])
        cost = gap + TURN_COST * (1 - facing[some] @ direction)
        cost = torch.where(gap <= HALF_WIDTH, cost, torch.inf)
        least = cost.min(dim=-1)
        index.append(least.indices)
        distance.append(least.values)
    nearest = torch.cat(index)
    return LaneAt(
        direction=direction.T[nearest],
        speed_limit=roadgraph.speed_limit[segments.feature[nearest]] * METRES_PER_SECOND,
        valid=torch.cat(distance).isfinite(),
    )


def _is_in_one_lane(
    corners: Float[Tensor, "points 4 2"], roadgraph: RoadGraph
) -> Bool[Tensor, " points"]:
    xy = corners.flatten(0, 1)
    segments = _segments_near(xy, roadgraph)
    lane, feature = segments.feature.unique(return_inverse=True)
    chains = _chains(lane, roadgraph)
    result = []
    for some in _chunks(len(corners), 4 * (len(feature) + chains.numel()), xy.device):
        near = segments.distance(corners[some].flatten(0, 1)) <= HALF_WIDTH
        # (points * 4, lanes)
        inside = torch.zeros(len(near), len(lane), dtype=torch.int32, device=xy.device)
        inside = inside.index_add(1, feature, near.int()) > 0
        # (points, 4, chains)
        in_chain = inside[:, chains].any(dim=-1).unflatten(0, (-1, 4))
        result.append(in_chain.all(dim=1).any(dim=-1))
    return torch.cat(result)


def _maps(roadgraph: RoadGraph) -> Iterator[RoadGraph]:
    roadgraph = roadgraph.with_room_for_a_segment()
    return (roadgraph.select(index) for index in range(roadgraph.batch_size))


def _segments_near(xy: Float[Tensor, "points 2"], roadgraph: RoadGraph) -> _Segments:
    """Picks out the segments of drivable lanes that may be within `HALF_WIDTH` of some point."""
    kind = roadgraph.feature_type
    is_lane = MapFeatureType.is_lane(kind) & (kind != MapFeatureType.LANE_BIKE_LANE)
    is_lane = is_lane & roadgraph.feature_valid
    start, end = roadgraph.xyz[:-1, :2], roadgraph.xyz[1:, :2]
    low, high = torch.minimum(start, end) - HALF_WIDTH, torch.maximum(start, end) + HALF_WIDTH
    near = (low <= xy.amax(dim=0)).all(dim=-1) & (high >= xy.amin(dim=0)).all(dim=-1)
    near &= roadgraph.is_segment & is_lane[roadgraph.feature[:-1]] & (start != end).any(dim=-1)
    return _Segments(
        start=start[near].T, step=(end - start)[near].T, feature=roadgraph.feature[:-1][near]
    )


def _chains(lane: Int[Tensor, " lanes"], roadgraph: RoadGraph) -> Int[Tensor, "chains 3"]:
    """Lists up to three lanes that lead from one to the next, as positions in a list of features.

    Shorter chains repeat a lane. Three, because the lane in the middle may be shorter than a car.
    """
    links = roadgraph.links
    leads_on = links.valid & (links.type == LaneLinkType.EXIT_LANE)
    # (links, lanes)
    is_one = links.feature[leads_on][:, None] == lane
    is_next = links.other_id[leads_on][:, None] == roadgraph.feature_id[lane]
    both = is_one.any(dim=-1) & is_next.any(dim=-1)
    one, following = is_one[both].nonzero()[:, 1], is_next[both].nonzero()[:, 1]
    every = torch.arange(len(lane), device=lane.device)
    begin = torch.cat([every, one])
    end = torch.cat([every, following])
    first, second = (end[:, None] == begin).nonzero().unbind(-1)
    return torch.stack([begin[first], end[first], end[second]], dim=-1)


def _chunks(num_points: int, num_segments: int, device: torch.device) -> Iterator[Tensor]:
    points = torch.arange(num_points, device=device)
    return iter(points.split(max(1, MAX_PAIRS // max(1, num_segments))))
