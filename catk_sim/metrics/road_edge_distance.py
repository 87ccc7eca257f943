"""The signed distance to the nearest road edge."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.geometry.polylines import (
    Z_WEIGHT,
    offset_from_segment,
    side_of_polyline,
    weighted_square,
)
from catk_sim.metrics.road_edges import RoadEdges

MAX_PAIRS = 1 << 17
"""Pairs of a cluster of points and a group of segments that are bounded together."""


def signed_distance_to_road_edge(
    xyz: Float[Tensor, "*batch clusters points 3"],
    valid: Bool[Tensor, "*batch clusters"],
    edges: RoadEdges,
) -> Float[Tensor, "*batch clusters points"]:
    """Measures how far points lie outside the road (m): negative on it, positive off it.

    The segment that is nearest with height weighted by `Z_WEIGHT` decides; the distance is the one
    in the plane, and positive to the right of the segment. That is WOSAC's measure, except at the
    ends of closed polylines: see `CLOSED_POLYLINE`. WOSAC joins the ends of those polylines that
    have as many points as the longest of the map, and of no others.

    Args:
        xyz: Points (m), in clusters of near ones, such as the corners of a box. A cluster shares
            a search.
        valid: Clusters that matter. The others get minus infinity, as does everything on a map
            without road edges.
        edges: The road edges of each map of the batch.
    """
    batch, (clusters, points) = valid.shape[:-1], xyz.shape[-3:-1]
    num_maps = math.prod(batch)
    xyz = xyz.reshape(num_maps, clusters, points, 3)
    flat_valid = valid.reshape(num_maps, clusters)
    flat_edges = edges.map(lambda tensor: tensor.reshape(num_maps, *tensor.shape[len(batch) :]))
    chunk = max(1, MAX_PAIRS // max(1, num_maps * edges.radius.shape[-1]))
    parts = [
        _signed_distance(some_xyz, some_valid, flat_edges)
        for some_xyz, some_valid in zip(
            xyz.split(chunk, dim=1), flat_valid.split(chunk, dim=1), strict=True
        )
    ]
    return torch.cat(parts, dim=1).reshape(*valid.shape, points)


def _signed_distance(
    xyz: Float[Tensor, "maps clusters points 3"],
    valid: Bool[Tensor, "maps clusters"],
    edges: RoadEdges,
) -> Float[Tensor, "maps clusters points"]:
    cluster, group = _near_groups(xyz, valid, edges)
    # (3, points, maps * clusters)
    point = xyz.flatten(0, 1).permute(2, 1, 0).contiguous()
    slot = _nearest_slot(point, cluster, group, edges)
    found = slot >= 0
    slot = slot.clamp(min=0)
    groups, _, places = edges.segment.shape[-3:]
    first = slot.div(groups * places, rounding_mode="floor") * (groups * places)
    segments = edges.segment.flatten(0, 1)

    def taken(slot: Int[Tensor, "points all"]) -> Float[Tensor, "6 points all"]:
        group = slot.div(places, rounding_mode="floor")
        return segments[group, :, slot % places].movedim(-1, 0)

    nearest = taken(slot)
    previous = taken(first + edges.previous.flatten()[slot])
    following = taken(first + edges.following.flatten()[slot])
    x, y, _ = offset_from_segment(point, nearest[:3], nearest[3:])
    signed = side_of_polyline(point, nearest, previous, following) * (x * x + y * y).sqrt()
    return torch.where(found, signed, -math.inf).T.reshape(xyz.shape[:-1])


def _near_groups(
    xyz: Float[Tensor, "maps clusters points 3"],
    valid: Bool[Tensor, "maps clusters"],
    edges: RoadEdges,
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Finds the groups that may hold the segment nearest to some point of a cluster.

    Every segment of a group is at least as far from the centre of the cluster as the ball's near
    side and at most as far as its far side; for the points of the cluster, the cluster's own radius
    is added either way.

    Returns:
        Cluster and group of each pair, as indices into all clusters and groups of all maps.
    """
    point = xyz * xyz.new_tensor([1, 1, Z_WEIGHT])
    middle = point.mean(dim=-2)
    own_radius = (point - middle[..., None, :]).norm(dim=-1).amax(dim=-1)
    x, y, z = (middle[..., None, i] - edges.center[..., None, :, i] for i in range(3))
    distance = x.square_().addcmul_(y, y).addcmul_(z, z).sqrt_()
    radius = edges.radius[:, None]
    bound = (distance + radius.abs()).amin(dim=-1) + 2 * own_radius
    # The margin covers rounding.
    bound = torch.where(valid, bound * (1 + 1e-5) + 1e-2, -math.inf)
    # Strictly, so that groups of padding, which are infinitely far, never are.
    near = distance.sub_(radius) < bound[..., None]
    scene, cluster, group = near.nonzero().unbind(-1)
    return scene * xyz.shape[1] + cluster, scene * edges.radius.shape[1] + group


def _nearest_slot(
    point: Float[Tensor, "3 points clusters"],
    cluster: Int[Tensor, " pairs"],
    group: Int[Tensor, " pairs"],
    edges: RoadEdges,
) -> Int[Tensor, "points clusters"]:
    """Finds each point's nearest segment among the groups paired with its cluster; -1 if none."""
    places = edges.segment.shape[-1]
    # (6, 1, pairs, places)
    segment = edges.segment.flatten(0, 1)[group].transpose(0, 1).contiguous()[:, None]
    # (3, points, pairs, 1)
    paired = point[..., cluster][..., None]
    square = weighted_square(offset_from_segment(paired, segment[:3], segment[3:]))
    best, place = square.min(dim=-1)
    slot = group * places + place

    owner = cluster.expand_as(best)
    least = torch.full_like(point[0], math.inf).scatter_reduce(1, owner, best, "amin")
    # Of equally near segments, the first in the map: that is the one with the least slot.
    never = edges.segment.numel()
    slot = torch.where(best == least.gather(1, owner), slot, never)
    first = torch.full_like(least, never, dtype=torch.int64).scatter_reduce(1, owner, slot, "amin")
    return torch.where(first == never, -1, first)
