"""The edges of the road, arranged for fast exact distances."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from catk_sim.datatypes import MapFeatureType, RoadGraph, TensorTree
from catk_sim.geometry.polylines import Z_WEIGHT

GROUP_SIZE = 8
"""Segments per group: measured to be faster than 4, and steadier over batch sizes than 16."""

CLOSED_POLYLINE = 0.01
"""Distance between the ends of a polyline (m) below which it is closed.

WOSAC takes 1 m. But with a real gap, the sides of the two segments that do not quite meet say
little about a point near it: the tip of a narrow median was then off the road on all sides.
"""

FAR = 1e9
"""Where padding lies (m): never nearest, so that no pass over the distances needs to mask it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RoadEdges(TensorTree):
    """The segments of a map's road edges, in groups that follow each other in a polyline.

    A ball around each group lets a search discard most groups unseen. Segments keep the order of
    the map. A segment's slot is its group times `GROUP_SIZE` plus its place in the group.

    Attributes:
        segment: x, y, z of the start, and from there to the end (m). Padding lies `FAR` away.
        previous: Slot of the segment before it in its polyline, or its own where there is none. A
            closed polyline has no first segment.
        following: Slot of the segment after it, likewise.
        center: Centre of the ball around each group (m), z times `Z_WEIGHT`.
        radius: Its radius (m). Minus infinity for a group of padding.
    """

    segment: Float[Tensor, "*batch groups 6 places"]
    previous: Int[Tensor, "*batch groups places"]
    following: Int[Tensor, "*batch groups places"]
    center: Float[Tensor, "*batch groups 3"]
    radius: Float[Tensor, "*batch groups"]

    @classmethod
    def from_roadgraph(cls, roadgraph: RoadGraph) -> "RoadEdges":
        """Picks the road edges out of a map. Segments without length in the plane are left out."""
        batch = roadgraph.point_valid.shape[:-1]
        roadgraph = roadgraph.with_room_for_a_segment()
        on_edge = MapFeatureType.is_road_edge(roadgraph.point_type[..., :-1]) & roadgraph.is_segment
        xyz = roadgraph.xyz.reshape(-1, *roadgraph.xyz.shape[-2:])
        step = xyz.diff(dim=1)
        valid = on_edge.reshape(step.shape[:2]) & (step[..., :2] != 0).any(dim=-1)
        polyline = roadgraph.feature.reshape(xyz.shape[:2])[:, :-1]

        slot, previous, following = _slots(xyz, polyline, valid)
        num_groups = max(1, int(slot.max()) // GROUP_SIZE + 1)
        segment = torch.cat([xyz[:, :-1], step], dim=-1)
        segment = _pack(segment, slot, num_groups, torch.tensor([FAR, FAR, FAR, 1, 0, 0]))
        center, radius = _balls(segment)
        edges = cls(
            segment=segment.transpose(-1, -2),
            previous=_pack(previous, slot, num_groups, torch.tensor(0)),
            following=_pack(following, slot, num_groups, torch.tensor(0)),
            center=center,
            radius=radius,
        )
        return edges.map(lambda tensor: tensor.reshape(*batch, *tensor.shape[1:]).contiguous())


def _slots(
    xyz: Float[Tensor, "maps points 3"],
    polyline: Int[Tensor, "maps segments"],
    valid: Bool[Tensor, "maps segments"],
) -> tuple[Int[Tensor, "maps segments"], ...]:
    """Assigns slots to the valid segments, -1 to the others, and finds the slots of neighbours."""
    index = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    # First and last valid segment of each segment's polyline.
    low = torch.where(valid, index, valid.shape[1] - 1)
    high = torch.where(valid, index, 0)
    first = low.scatter_reduce(1, polyline, low, "amin", include_self=False).gather(1, polyline)
    last = high.scatter_reduce(1, polyline, high, "amax", include_self=False).gather(1, polyline)
    gap = xyz.gather(1, last[..., None].expand(-1, -1, 3) + 1) - xyz.gather(
        1, first[..., None].expand(-1, -1, 3)
    )
    is_closed = gap.norm(dim=-1) < CLOSED_POLYLINE

    count = valid.cumsum(dim=1)
    rank = count - count.gather(1, first)
    group = (valid & (rank % GROUP_SIZE == 0)).cumsum(dim=1) - 1
    # All groups of a polyline but its last are full, so its slots follow each other.
    slot = group * GROUP_SIZE + rank % GROUP_SIZE
    before_first = torch.where(is_closed, slot.gather(1, last), slot)
    after_last = torch.where(is_closed, slot.gather(1, first), slot)
    previous = torch.where(index == first, before_first, slot - 1)
    following = torch.where(index == last, after_last, slot + 1)
    return torch.where(valid, slot, -1), previous, following


def _pack(
    values: Shaped[Tensor, "maps segments *features"],
    slot: Int[Tensor, "maps segments"],
    num_groups: int,
    padding: Shaped[Tensor, "*features"],
) -> Shaped[Tensor, "maps groups places *features"]:
    """Puts the values of segments into their slots."""
    features = values.shape[2:]
    # The last row takes what has no slot, and is cut off.
    rows = num_groups * GROUP_SIZE + 1
    packed = padding.to(values).expand(values.shape[0], rows, *features).clone()
    row = torch.where(slot < 0, rows - 1, slot)
    row = row.reshape(*row.shape, *[1] * len(features)).expand_as(values)
    packed = packed.scatter(1, row, values)[:, :-1]
    return packed.reshape(-1, num_groups, GROUP_SIZE, *features)


def _balls(
    segment: Float[Tensor, "maps groups places 6"],
) -> tuple[Float[Tensor, "maps groups 3"], Float[Tensor, "maps groups"]]:
    """Encloses each group in a ball of the height-weighted space."""
    start = segment[..., :3]
    ends = torch.cat([start, start + segment[..., 3:]], dim=-2)
    ends = ends * ends.new_tensor([1, 1, Z_WEIGHT])
    absent = (torch.cat([start, start], dim=-2)[..., :1] == FAR).expand_as(ends)
    low = ends.masked_fill(absent, math.inf).amin(dim=-2)
    high = ends.masked_fill(absent, -math.inf).amax(dim=-2)
    holds = ~absent[..., 0, 0]
    center = torch.where(holds[..., None], (low + high) / 2, FAR)
    reach = (ends - center[..., None, :]).norm(dim=-1).masked_fill(absent[..., 0], 0)
    return center, torch.where(holds, reach.amax(dim=-1), -math.inf)
