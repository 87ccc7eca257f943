"""The distance to road edges as its definition reads: every segment, one polyline after another."""

import math

import torch
from torch import Tensor

from catk_sim.geometry.roots import rounded_sqrt
from catk_sim.metrics.road_edges import EdgeRule


def plain_distance(points: Tensor, lines: list[Tensor], rule: EdgeRule) -> Tensor:
    """Signed distances of (points, 3) to polylines of (vertices, 3)."""
    lines = [line for line in lines if len(line) > 1]
    longest = max((len(line) for line in lines), default=0)
    least, signed = (points.new_full((len(points),), sign * math.inf) for sign in (1, -1))
    for line in lines:
        start, step = line[:-1], line[1:] - line[:-1]
        if not rule.keeps_repeated_points:
            kept = (step[:, :2] != 0).any(dim=1)
            start, step = start[kept], step[kept]
            line = torch.cat([start, line[1:][kept][-1:]])
        if len(start):
            gap = (line[-1] - line[0])[: 2 if rule.is_flat else 3]
            is_closed = bool(gap.square().sum() < rule.closing_distance**2)
            is_closed &= len(line) == longest or not rule.closes_only_longest
            distance, value = _nearest_of_one(points, start, step, is_closed, rule)
            by = value.abs() if rule.is_flat else distance
            signed = torch.where(by < least, value, signed)
            least = torch.minimum(by, least)
    return signed


def _nearest_of_one(
    points: Tensor, start: Tensor, step: Tensor, is_closed: bool, rule: EdgeRule
) -> tuple[Tensor, Tensor]:
    wx, wy, wz = (points[:, None] - start).unbind(-1)
    dx, dy, dz = step.unbind(-1)
    length = dx * dx + dy * dy
    t = torch.where(length == 0, 0.0, (wx * dx + wy * dy) / length)
    along = t.clamp(0, 1)
    x, y, z = wx - along * dx, wy - along * dy, 3 * (wz - along * dz)
    in_plane = rounded_sqrt(x * x + y * y)
    distance = in_plane if rule.is_flat else rounded_sqrt(x * x + y * y + z * z)
    side = torch.sign(wx * dy - wy * dx)

    def at_vertex(own: int, other: int, arriving: int, leaving: int) -> Tensor:
        left = dx[arriving] * dy[leaving] - dy[arriving] * dx[leaving] > 0
        choose = torch.maximum if left else torch.minimum
        return choose(side[:, own], side[:, other])

    sign, num = side.clone(), len(step)
    for i in range(num):
        if i > 0 or is_closed:
            before = (i - 1) % num
            sign[:, i] = torch.where(t[:, i] < 0, at_vertex(i, before, before, i), sign[:, i])
        if i < num - 1 or is_closed:
            after = (i + 1) % num
            beyond = t[:, i] >= 1 if rule.is_flat else t[:, i] > 1
            sign[:, i] = torch.where(beyond, at_vertex(i, after, i, after), sign[:, i])
    nearest = distance.min(dim=1, keepdim=True).indices
    return distance.gather(1, nearest)[:, 0], (sign * in_plane).gather(1, nearest)[:, 0]
