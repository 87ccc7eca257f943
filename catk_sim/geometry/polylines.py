"""Distance of points to the segments of polylines, and the side that they lie on.

Points and vectors are (x, y, z), with the coordinates along the first dimension: each coordinate is
then contiguous in memory, which makes these functions several times faster.
"""

import torch
from jaxtyping import Float
from torch import Tensor

Z_WEIGHT = 3
"""How much more a metre of height counts when the nearest of several segments is chosen.

A road that passes over another one must not take its edges for its own. WOSAC's value.
"""


def offset_from_segment(
    point: Float[Tensor, "3 *#batch"],
    start: Float[Tensor, "3 *#batch"],
    step: Float[Tensor, "3 *#batch"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Measures where points lie relative to the nearest point, in the plane, of segments.

    Args:
        point: Points (m).
        start: Where each segment starts (m).
        step: From there to its end (m). Not vertical.
    """
    px, py, pz = point.unbind(0)
    sx, sy, sz = start.unbind(0)
    dx, dy, dz = step.unbind(0)
    wx, wy, wz = px - sx, py - sy, pz - sz
    along = ((wx * dx + wy * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return wx - along * dx, wy - along * dy, wz - along * dz


def weighted_square(
    offset: tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]],
) -> Float[Tensor, "*batch"]:
    """Squares the length of offsets, height weighted by `Z_WEIGHT` (m²)."""
    x, y, z = offset
    return x * x + y * y + (Z_WEIGHT * Z_WEIGHT) * (z * z)


def side(
    point: Float[Tensor, "3 *#batch"],
    start: Float[Tensor, "3 *#batch"],
    step: Float[Tensor, "3 *#batch"],
) -> Float[Tensor, "*batch"]:
    """Tells on which side of a directed line points lie: 1 right of it, -1 left, 0 on it."""
    wx, wy = point[0] - start[0], point[1] - start[1]
    return (wx * step[1] - wy * step[0]).sign()


def side_of_polyline(
    point: Float[Tensor, "3 *#batch"],
    segment: Float[Tensor, "6 *#batch"],
    previous: Float[Tensor, "6 *#batch"],
    following: Float[Tensor, "6 *#batch"],
) -> Float[Tensor, "*batch"]:
    """Tells on which side of a polyline points lie: 1 right of it, -1 left, 0 on it.

    A point beyond an end of its nearest segment is nearest to a vertex. Where the polyline turns
    left there, the point is to the left only if it is left of both segments that meet; where it
    turns right, if it is left of either.

    Args:
        point: Points (m).
        segment: The nearest segment of each: start, and from there to the end (m).
        previous: The segment before it in the polyline. Where there is none, the segment itself.
        following: The segment after it, likewise.
    """
    start, step = segment[:3], segment[3:]
    own = side(point, start, step)
    before = _side_at_vertex(own, side(point, previous[:3], previous[3:]), previous[3:], step)
    after = _side_at_vertex(own, side(point, following[:3], following[3:]), step, following[3:])
    along = (point - start)[:2].mul(step[:2]).sum(dim=0) / step[:2].square().sum(dim=0)
    return torch.where(along < 0, before, torch.where(along > 1, after, own))


def _side_at_vertex(
    own: Float[Tensor, "*batch"],
    neighbor: Float[Tensor, "*batch"],
    arriving: Float[Tensor, "3 *#batch"],
    leaving: Float[Tensor, "3 *#batch"],
) -> Float[Tensor, "*batch"]:
    turns_left = arriving[0] * leaving[1] - arriving[1] * leaving[0] > 0
    return torch.where(turns_left, torch.maximum(own, neighbor), torch.minimum(own, neighbor))
