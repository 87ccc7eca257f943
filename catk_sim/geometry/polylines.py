"""Distance of points to the segments of polylines, and the side that they lie on.

Points and vectors are (x, y, z), with the coordinates along the first dimension: each coordinate is
then contiguous in memory, which makes these functions several times faster.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Z_WEIGHT = 3
"""How much more a metre of height counts when the nearest of several segments is chosen.

A road that passes over another one must not take its edges for its own. WOSAC's value.
"""


def fraction_along(
    offset: Sequence[Float[Tensor, "*#batch"]], step: Sequence[Float[Tensor, "*#batch"]]
) -> Float[Tensor, "*batch"]:
    """Tells where points are beside segments: 0 at the start, 1 at the end, beyond them outside.

    Height plays no part. 0 for a segment without length in the plane.

    Args:
        offset: From the start of each segment to the point (m), in x, y and maybe more.
        step: From there to its end (m).
    """
    x, y, dx, dy = *offset[:2], *step[:2]
    length = (dx * dx).add_(dy * dy).clamp_(min=torch.finfo(dx.dtype).tiny)
    # Where the length is zero, so is this.
    return (x * dx).add_(y * dy).div_(length)


def offset_from_segment(
    point: Float[Tensor, "coordinates *#batch"],
    start: Float[Tensor, "coordinates *#batch"],
    step: Float[Tensor, "coordinates *#batch"],
) -> tuple[Float[Tensor, "*batch"], ...]:
    """Measures where points lie relative to the nearest point, in the plane, of segments.

    Args:
        point: Points (m).
        start: Where each segment starts (m).
        step: From there to its end (m).

    Returns:
        Each coordinate (m), which is faster by itself than all of them in one tensor.
    """
    steps = step.unbind(0)
    offset = [p - s for p, s in zip(point, start, strict=True)]
    along = fraction_along(offset, steps).clamp_(0, 1)
    return tuple(o - along * d for o, d in zip(offset, steps, strict=True))


def weighted_square(offset: tuple[Float[Tensor, "*batch"], ...]) -> Float[Tensor, "*batch"]:
    """Squares the length of offsets in x, y and z, height weighted by `Z_WEIGHT` (m²)."""
    x, y, z = offset
    z = Z_WEIGHT * z
    return x * x + y * y + z * z


def side(
    point: Float[Tensor, "_ *#batch"],
    start: Float[Tensor, "_ *#batch"],
    step: Float[Tensor, "_ *#batch"],
) -> Float[Tensor, "*batch"]:
    """Tells on which side of a directed line points lie: 1 right of it, -1 left, 0 on it."""
    wx, wy = point[0] - start[0], point[1] - start[1]
    return (wx * step[1] - wy * step[0]).sign()


def side_of_polyline(
    point: Float[Tensor, "3 *#batch"],
    segment: Float[Tensor, "6 *#batch"],
    previous: Float[Tensor, "6 *#batch"],
    following: Float[Tensor, "6 *#batch"],
    *,
    end_is_beyond: bool = False,
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
        end_is_beyond: Whether a point beside the very end of its segment is beyond it.
    """
    start, step = segment[:3], segment[3:]
    own = side(point, start, step)
    before = _side_at_vertex(own, side(point, previous[:3], previous[3:]), previous[3:], step)
    after = _side_at_vertex(own, side(point, following[:3], following[3:]), step, following[3:])
    along = fraction_along((point[:2] - start[:2]).unbind(0), step.unbind(0))
    is_beyond = along >= 1 if end_is_beyond else along > 1
    return torch.where(along < 0, before, torch.where(is_beyond, after, own))


def _side_at_vertex(
    own: Float[Tensor, "*batch"],
    neighbor: Float[Tensor, "*batch"],
    arriving: Float[Tensor, "3 *#batch"],
    leaving: Float[Tensor, "3 *#batch"],
) -> Float[Tensor, "*batch"]:
    turns_left = arriving[0] * leaving[1] - arriving[1] * leaving[0] > 0
    return torch.where(turns_left, torch.maximum(own, neighbor), torch.minimum(own, neighbor))
