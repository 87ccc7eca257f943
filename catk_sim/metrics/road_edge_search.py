"""The search for the segment of the road edges that is nearest to a point."""

import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from catk_sim.geometry.capsules import square_bounds
from catk_sim.geometry.polylines import offset_from_segment, weighted_square
from catk_sim.geometry.roots import rounded_sqrt
from catk_sim.metrics.road_edges import GROUP_SIZE, RoadEdges

CELL_SIZE = 4.0
"""Sides of the cells whose clusters share the first part of a search (m).

Measured on rollouts of a real scene: half and twice as much are 10 to 30 % slower.
"""

MAX_BLOCKS = 1 << 18
"""Pairs of a cell and a block that are bounded together."""

MAX_GROUPS = 1 << 14
"""Pairs of a cluster and a group that are bounded together: what fits into a processor's cache."""

ROUNDING = 1 + 1e-5
"""Squares of distances whose ratio is less may be in the wrong order, because of rounding."""


def nearest_slot(
    point: Float[Tensor, "3 points clusters"], scene: Int[Tensor, " clusters"], edges: RoadEdges
) -> Int[Tensor, "points clusters"]:
    """Finds the slot of the segment nearest to each point, height weighted by `Z_WEIGHT`.

    Of equally near segments, that is the first in the map.

    Args:
        point: Points (m), in clusters of near ones, which share a search.
        scene: Each cluster's map.
        edges: The road edges of a map, or of a batch of maps.

    Returns:
        Slots, counted through all maps; -1 on a map without road edges.
    """
    groups, blocks = edges.capsules
    groups, segments = groups.flatten(1), edges.segment.flatten(0, -3)
    chunk = max(1, MAX_BLOCKS // blocks.shape[-1])
    parts = []
    for near, maps in zip(point.split(chunk, dim=-1), scene.split(chunk), strict=True):
        group, start, count = _near_groups(near, maps, blocks, groups)
        for part in _parts(count):
            cluster, index = _expand(start[part], count[part])
            parts.append(_nearest(near[..., part], cluster, group[index], groups, segments))
    return torch.cat(parts, dim=1)


def _near_groups(
    point: Float[Tensor, "3 points clusters"],
    scene: Int[Tensor, " clusters"],
    blocks: Float[Tensor, "7 maps blocks"],
    groups: Float[Tensor, "7 groups"],
) -> tuple[Int[Tensor, " listed"], Int[Tensor, " clusters"], Int[Tensor, " clusters"]]:
    """Lists, cell by cell, the groups that may hold the segment nearest to some point.

    Returns:
        The groups, and where each cluster's list of them starts and how long it is.
    """
    cell, scene, middle, spread = _cells(point, scene)
    lower, upper = square_bounds(
        middle[:2, :, None],
        middle[2, :, None],
        (spread[0, :, None], spread[1, :, None]),
        blocks.index_select(1, scene),
    )
    # Strictly, so that what is infinitely far never is near.
    owner, block = (lower < upper.amin(dim=1, keepdim=True) * ROUNDING).nonzero().unbind(-1)
    block = block + scene[owner] * blocks.shape[-1]
    group = (block[:, None] * GROUP_SIZE + torch.arange(GROUP_SIZE, device=block.device)).flatten()
    owner = owner.repeat_interleave(GROUP_SIZE)
    lower, upper = square_bounds(
        middle[:2].index_select(1, owner),
        middle[2][owner],
        (spread[0][owner], spread[1][owner]),
        groups.index_select(1, group),
    )
    bound = torch.full_like(middle[0], math.inf).scatter_reduce(0, owner, upper, "amin") * ROUNDING
    near = (lower < bound[owner]).nonzero()[:, 0]
    count = torch.bincount(owner[near], minlength=len(scene))
    return group[near], (count.cumsum(0) - count)[cell], count[cell]


def _cells(
    point: Float[Tensor, "3 points clusters"], scene: Int[Tensor, " clusters"]
) -> tuple[
    Int[Tensor, " clusters"],
    Int[Tensor, " cells"],
    Float[Tensor, "3 cells"],
    Float[Tensor, "2 cells"],
]:
    """Puts clusters into cells.

    Returns:
        Each cluster's cell; each cell's map, its middle, and how far from there, in the plane and
        in height, its points lie.
    """
    low, high = point.amin(dim=1), point.amax(dim=1)
    x, y, z = ((low + high) / (2 * CELL_SIZE)).floor().long()
    # Different cells of a map whose keys agree become one large cell: slow but not wrong.
    key = ((x * 1_000_003 + y) * 1_000_003 + z) % (1 << 40) + scene * (1 << 40)
    key, cell = key.unique(return_inverse=True)
    index, shape = cell.expand(3, -1), (3, len(key))
    low = low.new_full(shape, math.inf).scatter_reduce(1, index, low, "amin")
    high = high.new_full(shape, -math.inf).scatter_reduce(1, index, high, "amax")
    middle = (low + high) / 2
    half = (high - low) / 2 + 2 * torch.finfo(point.dtype).eps * middle.abs()
    spread = torch.stack([(half[0] * half[0] + half[1] * half[1]).sqrt(), half[2]])
    return cell, scene.new_zeros(len(key)).scatter(0, cell, scene), middle, spread


def _parts(count: Int[Tensor, " clusters"]) -> list[slice]:
    """Divides clusters into parts with about `MAX_GROUPS` groups in all their lists."""
    total = count.cumsum(0)
    limits = MAX_GROUPS * torch.arange(1, int(total[-1]) // MAX_GROUPS + 1, device=count.device)
    # A list that is longer than that is a part of its own.
    stops = torch.searchsorted(total, limits, right=True).tolist()
    stops = sorted({0, *stops, len(count)})
    return [slice(start, stop) for start, stop in itertools.pairwise(stops)]


def _expand(
    start: Int[Tensor, " lists"], count: Int[Tensor, " lists"]
) -> tuple[Int[Tensor, " entries"], Int[Tensor, " entries"]]:
    """Finds the list and the index of every entry of lists that start somewhere."""
    owner = torch.arange(len(count), device=count.device).repeat_interleave(count)
    offset = start - (count.cumsum(0) - count)
    return owner, torch.arange(len(owner), device=count.device) + offset[owner]


def _nearest(
    point: Float[Tensor, "3 points clusters"],
    cluster: Int[Tensor, " pairs"],
    group: Int[Tensor, " pairs"],
    groups: Float[Tensor, "7 groups"],
    segments: Float[Tensor, "groups 6 places"],
) -> Int[Tensor, "points clusters"]:
    """Finds the nearest segment among the groups that are paired with a point's cluster."""
    _, points, clusters = point.shape
    low, high = point[2].amin(dim=0), point[2].amax(dim=0)
    lower, upper = square_bounds(
        point[:2].flatten(0, 1).index_select(1, cluster).reshape(2, points, -1),
        ((low + high) / 2)[cluster],
        (0.0, ((high - low) / 2)[cluster]),
        groups.index_select(1, group),
    )
    bound = torch.full_like(point[0], math.inf)
    bound = bound.scatter_reduce(1, cluster.expand(points, -1), upper, "amin").mul_(ROUNDING)
    corner, pair = (lower < bound.index_select(1, cluster)).nonzero().unbind(-1)
    owner = corner * clusters + cluster[pair]
    group = group[pair]

    # (6, pairs, places)
    segment = segments.index_select(0, group).movedim(1, 0)
    paired = point.flatten(1).index_select(1, owner)[..., None]
    offset = offset_from_segment(paired, segment[:3], segment[3:])
    distance = rounded_sqrt(weighted_square(offset))
    best = distance.amin(dim=1)
    least = torch.full_like(point[0], math.inf).flatten().scatter_reduce(0, owner, best, "amin")
    is_least = (best == least[owner]).nonzero()[:, 0]
    slot = group[is_least] * GROUP_SIZE + distance[is_least].min(dim=1).indices
    # Of equally near segments the first, which has the least slot.
    never = torch.full_like(least, segments.numel(), dtype=torch.int64)
    first = never.scatter_reduce(0, owner[is_least], slot, "amin")
    return torch.where(first == never, -1, first).reshape(points, clusters)
