"""The edges of the road, arranged for fast exact distances."""

import functools
import math
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import MapFeatureType, RoadGraph, TensorTree
from catk_sim.geometry.capsules import around_pieces, around_segments

GROUP_SIZE = 8
"""Segments per group, and groups per block."""

BLOCK_SIZE = GROUP_SIZE * GROUP_SIZE
"""Segments per block. Each polyline begins a new one."""

FAR = 1e9
"""Where padding lies (m): never nearest, so that no pass over the distances needs to mask it."""


class EdgeRule(Enum):
    """How polylines are read as road edges.

    `OURS` is the simulator's own, `WOSAC` the Sim Agents Challenge's since 2024, and `WOSAC_2023`
    that of its first year.

    Attributes:
        closing_distance: Distance between the ends of a polyline (m) below which it is closed: its
            last segment is then followed by its first. With a real gap, the sides of the two
            segments that do not quite meet say little about a point near it: the tip of a narrow
            median may then be off the road on all sides.
        closes_only_longest: Whether only those are closed that have as many points as the longest
            road edge of the map.
        keeps_repeated_points: Whether segments without length in the plane count. They have no
            sides: what is nearest to one is on the edge, however far it is.
        is_flat: Whether height plays no part, each polyline is measured by itself, the one with the
            smallest distance decides, and the end of a segment counts as beyond it.
    """

    OURS = (0.01, False, False, False)
    WOSAC = (1.0, True, True, False)
    WOSAC_2023 = (1.0, False, True, True)

    def __init__(
        self,
        closing_distance: float,
        closes_only_longest: bool,
        keeps_repeated_points: bool,
        is_flat: bool,
    ) -> None:
        self.closing_distance = closing_distance
        self.closes_only_longest = closes_only_longest
        self.keeps_repeated_points = keeps_repeated_points
        self.is_flat = is_flat


@dataclass(frozen=True, eq=False, kw_only=True)
class RoadEdges(TensorTree):
    """The segments of a map's road edges, in groups that follow each other in a polyline.

    A capsule around each group, which is a line that has a thickness, lets a search discard most
    groups unseen. Segments keep the order of the map. A segment's slot is its group times
    `GROUP_SIZE` plus its place in the group.

    Attributes:
        segment: x, y, z of the start, and from there to the end (m). Padding lies `FAR` away.
        previous: Slot of the segment before it in its polyline, or its own where there is none. A
            closed polyline has no first segment.
        following: Slot of the segment after it, likewise.
        center: Centre line of each group's capsule: x, y of the group's start, from there to its
            end, and the middle and half of its extent in z (m).
        radius: How far the group lies from that line, at most (m). Minus infinity for padding.
        rule: How the polylines were read.
    """

    segment: Float[Tensor, "*batch groups 6 places"]
    previous: Int[Tensor, "*batch groups places"]
    following: Int[Tensor, "*batch groups places"]
    center: Float[Tensor, "*batch groups 6"]
    radius: Float[Tensor, "*batch groups"]
    rule: EdgeRule = EdgeRule.OURS

    @classmethod
    def from_roadgraph(cls, roadgraph: RoadGraph, rule: EdgeRule = EdgeRule.OURS) -> "RoadEdges":
        """Picks the road edges out of a map."""
        batch = roadgraph.point_valid.shape[:-1]
        roadgraph = roadgraph.with_room_for_a_segment()
        xyz = roadgraph.xyz.reshape(-1, *roadgraph.xyz.shape[-2:])
        on_edge = MapFeatureType.is_road_edge(roadgraph.point_type[..., :-1]) & roadgraph.is_segment
        on_edge = on_edge.reshape(len(xyz), -1)
        if not rule.keeps_repeated_points:
            on_edge &= (xyz.diff(dim=1)[..., :2] != 0).any(dim=-1)
        scene, index = on_edge.nonzero().unbind(-1)
        polyline = roadgraph.feature.reshape(len(xyz), -1)[scene, index]
        polyline = polyline + scene * roadgraph.feature_valid.shape[-1]

        slot, previous, following = _slots(xyz, scene, index, polyline, rule)
        num_blocks = max(1, int(slot.amax()) // BLOCK_SIZE + 1) if len(slot) else 1
        shape = (len(xyz), num_blocks * GROUP_SIZE, GROUP_SIZE)
        row = scene * (num_blocks * BLOCK_SIZE) + slot
        start = xyz[scene, index]
        segment = xyz.new_tensor([FAR, FAR, FAR, 1, 0, 0]).repeat(math.prod(shape), 1)
        segment[row] = torch.cat([start, xyz[scene, index + 1] - start], dim=-1)
        segment = segment.reshape(*shape, 6).transpose(-1, -2).contiguous()
        # (7, maps, groups, places)
        capsules = around_segments(segment.movedim(-2, 0))
        capsules[6].masked_fill_(segment[..., 0, :] == FAR, -math.inf)
        capsules = around_pieces(capsules)
        edges = cls(
            segment=segment,
            previous=_unfold(previous, row, shape),
            following=_unfold(following, row, shape),
            center=capsules[:6].movedim(0, -1),
            radius=capsules[6],
            rule=rule,
        )
        return edges.map(lambda tensor: tensor.reshape(*batch, *tensor.shape[1:]))

    @property
    def is_empty(self) -> Bool[Tensor, "*batch"]:
        """Whether a map has no road edge."""
        return (self.radius == -math.inf).all(dim=-1)

    @functools.cached_property
    def capsules(self) -> tuple[Float[Tensor, "7 maps groups"], Float[Tensor, "7 maps blocks"]]:
        """The capsules around groups, and around the blocks of `GROUP_SIZE` groups each."""
        center, radius = self.center.reshape(-1, *self.center.shape[-2:]), self.radius
        groups = torch.cat([center.movedim(-1, 0), radius.reshape(1, *center.shape[:2])])
        return groups, around_pieces(groups.unflatten(-1, (-1, GROUP_SIZE)))


def _slots(
    xyz: Float[Tensor, "maps points 3"],
    scene: Int[Tensor, " segments"],
    index: Int[Tensor, " segments"],
    polyline: Int[Tensor, " segments"],
    rule: EdgeRule,
) -> tuple[Int[Tensor, " segments"], Int[Tensor, " segments"], Int[Tensor, " segments"]]:
    """Assigns slots to segments and finds the slots of their neighbours."""
    order = torch.arange(len(scene), device=scene.device)
    _, of, count = polyline.unique_consecutive(return_inverse=True, return_counts=True)
    last = count.cumsum(0) - 1
    first = last - count + 1
    rank = order - first[of]
    # All blocks of a polyline but its last are full, so its slots follow each other.
    begins_block = rank % BLOCK_SIZE == 0
    num_blocks = torch.bincount(scene[begins_block], minlength=len(xyz))
    block = begins_block.cumsum(0) - 1 - (num_blocks.cumsum(0) - num_blocks)[scene]
    slot = block * BLOCK_SIZE + rank % BLOCK_SIZE

    x, y, z = (xyz[scene[last], index[last] + 1] - xyz[scene[first], index[first]]).unbind(-1)
    square = x * x + y * y + (0 if rule.is_flat else z * z)
    is_closed = square < rule.closing_distance**2
    if rule.closes_only_longest:
        longest = count.new_zeros(len(xyz)).scatter_reduce(0, scene[first], count, "amax")
        is_closed &= count == longest[scene[first]]
    before_first = slot[torch.where(is_closed, last, first)]
    after_last = slot[torch.where(is_closed, first, last)]
    previous = torch.where(order == first[of], before_first[of], slot - 1)
    following = torch.where(order == last[of], after_last[of], slot + 1)
    return slot, previous, following


def _unfold(
    values: Int[Tensor, " segments"], row: Int[Tensor, " segments"], shape: tuple[int, int, int]
) -> Int[Tensor, "maps groups places"]:
    """Puts the values of segments where they belong, and zeros elsewhere."""
    unfolded = values.new_zeros(math.prod(shape))
    unfolded[row] = values
    return unfolded.reshape(shape)
