"""The signed distance to the nearest road edge."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.geometry.polylines import (
    fraction_along,
    offset_from_segment,
    side,
    side_of_polyline,
)
from catk_sim.geometry.roots import rounded_sqrt
from catk_sim.metrics.road_edge_search import nearest_slot
from catk_sim.metrics.road_edges import FAR, RoadEdges

MAX_PAIRS = 1 << 17
"""Pairs of a point and a segment that are looked at together where nothing is discarded."""


def signed_distance_to_road_edge(
    xyz: Float[Tensor, "*batch clusters points 3"],
    valid: Bool[Tensor, "*batch clusters"],
    edges: RoadEdges,
) -> Float[Tensor, "*batch clusters points"]:
    """Measures how far points lie outside the road (m): negative on it, positive off it.

    The segment that is nearest with height weighted by `Z_WEIGHT` decides; the distance is the one
    in the plane, and positive to the right of the segment. `EdgeRule` says what differs by year.

    Args:
        xyz: Points (m), in clusters of near ones, such as the corners of a box. A cluster shares
            a search.
        valid: Clusters that matter. The others get minus infinity, as does everything on a map
            without road edges.
        edges: The road edges of each map. The points may have further dimensions before the maps'.

    Raises:
        ValueError: If the batch of the points does not end in that of the maps.
    """
    maps, clusters = edges.radius.shape[:-1], valid.shape[-1]
    if valid.shape[:-1][valid.dim() - 1 - len(maps) :] != maps:
        raise ValueError(f"wanted points for maps {tuple(maps)}, got {tuple(valid.shape[:-1])}")
    result = xyz.new_full(xyz.shape[:-1], -math.inf).flatten(0, -2)
    chosen = valid.flatten().nonzero()[:, 0]
    if chosen.numel():
        scene = chosen.div(clusters, rounding_mode="floor") % math.prod(maps)
        # (3, points, clusters)
        point = xyz.flatten(0, -3)[chosen].permute(2, 1, 0).contiguous()
        measure = _least_distance if edges.rule.is_flat else _distance_to_nearest
        result[chosen] = measure(point, scene, edges).T
    return result.reshape(xyz.shape[:-1])


def _distance_to_nearest(
    point: Float[Tensor, "3 points clusters"], scene: Int[Tensor, " clusters"], edges: RoadEdges
) -> Float[Tensor, "points clusters"]:
    slot = nearest_slot(point, scene, edges)
    distance = _distance_to(slot.clamp(min=0).flatten(), point.flatten(1), edges)
    return torch.where(slot < 0, -math.inf, distance.reshape(slot.shape))


def _least_distance(
    point: Float[Tensor, "3 points clusters"], scene: Int[Tensor, " clusters"], edges: RoadEdges
) -> Float[Tensor, "points clusters"]:
    """Measures the distance to each polyline by itself, and takes the smallest.

    Where no segment has a side of a point, that distance is zero, so none may be discarded unseen.
    """
    distance = torch.full_like(point[0], -math.inf)
    for index, first, length in _polylines(edges):
        chosen = (scene == index).nonzero()[:, 0]
        slots = torch.arange(first, first + length, device=chosen.device)
        segment = _segment(slots, edges)[:, None]
        for some in chosen.split(max(1, MAX_PAIRS // (length * point.shape[1]))):
            xyz = point[..., some].flatten(1)
            x, y = offset_from_segment(xyz[:2, :, None], segment[:2], segment[3:5])
            nearest = rounded_sqrt(x * x + y * y).min(dim=1).indices
            found = _distance_to(first + nearest, xyz, edges).reshape(-1, len(some))
            so_far = distance[:, some]
            distance[:, some] = torch.where(found.abs() < so_far.abs(), found, so_far)
    return distance


def _polylines(edges: RoadEdges) -> list[list[int]]:
    """Lists the map of each polyline, its first slot and how many it has."""
    present = (edges.segment[..., 0, :] != FAR).flatten()
    previous = edges.previous.flatten(-2)
    per_map = previous.shape[-1]
    is_first = present & (previous != torch.arange(per_map, device=present.device) - 1).flatten()
    first = is_first.nonzero()[:, 0]
    length = torch.bincount(is_first.cumsum(0)[present] - 1)
    return torch.stack([first.div(per_map, rounding_mode="floor"), first, length], dim=1).tolist()


def _distance_to(
    slot: Int[Tensor, " points"], point: Float[Tensor, "3 points"], edges: RoadEdges
) -> Float[Tensor, " points"]:
    """Measures how far points lie to the right of chosen segments, and of the polyline there."""
    nearest = _segment(slot, edges)
    along = fraction_along((point[:2] - nearest[:2]).unbind(0), nearest[3:].unbind(0))
    sign = side(point, nearest[:3], nearest[3:])
    # Few points are beyond an end of their segment, and only they need its neighbours.
    few = ((along < 0) | (along >= 1)).nonzero()[:, 0]
    sign[few] = _side_at_end(point[:, few], slot[few], edges)
    x, y = offset_from_segment(point[:2], nearest[:2], nearest[3:5])
    return sign * rounded_sqrt(x * x + y * y)


def _side_at_end(
    point: Float[Tensor, "3 points"], slot: Int[Tensor, " points"], edges: RoadEdges
) -> Float[Tensor, " points"]:
    per_map = edges.previous.shape[-2:].numel()
    first = slot.div(per_map, rounding_mode="floor") * per_map
    return side_of_polyline(
        point,
        _segment(slot, edges),
        _segment(first + edges.previous.flatten()[slot], edges),
        _segment(first + edges.following.flatten()[slot], edges),
        end_is_beyond=edges.rule.is_flat,
    )


def _segment(slot: Int[Tensor, " slots"], edges: RoadEdges) -> Float[Tensor, "6 slots"]:
    places = edges.segment.shape[-1]
    group = slot.div(places, rounding_mode="floor")
    return edges.segment.flatten(0, -3)[group, :, slot - group * places].T
