"""Capsules around pieces of polylines: lines in the plane with a thickness, and heights.

A piece is connected, so it is near every point of its capsule's line, and bounds on its distance
from both sides follow. They are close where the piece is nearly straight.

Capsules lie along the first dimension: x, y of where the line starts, from there to its end, the
middle and half of the extent in z, and the thickness on either side (m): minus infinity for none.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from catk_sim.geometry.polylines import Z_WEIGHT, offset_from_segment


def around_segments(
    segment: Float[Tensor, "6 maps groups places"],
) -> Float[Tensor, "7 maps groups places"]:
    """Returns the capsule of each segment: start, and from there to the end.

    Its thickness covers the rounding of whatever is computed with the segment.
    """
    x, y, z, dx, dy, dz = segment.unbind(0)
    margin = 1e-3 + 4 * torch.finfo(segment.dtype).eps * segment.abs().amax(dim=0)
    return torch.stack([x, y, dx, dy, z + dz / 2, dz.abs() / 2 + margin, margin])


def around_pieces(pieces: Float[Tensor, "7 maps groups pieces"]) -> Float[Tensor, "7 maps groups"]:
    """Encloses the capsules of pieces that follow each other in a polyline.

    Args:
        pieces: Those that are none come last.
    """
    absent = pieces[6] == -math.inf
    last = (~absent).sum(dim=-1, keepdim=True).sub_(1).clamp_(min=0)
    starts, ends = pieces[:2], pieces[:2] + pieces[2:4]
    start = starts[..., :1]
    step = ends.gather(-1, last.expand(2, *last.shape)) - start
    reach = torch.maximum(
        _distance_to_line(starts, start, step), _distance_to_line(ends, start, step)
    )
    radius = (reach + pieces[6]).amax(dim=-1)
    low = (pieces[4] - pieces[5]).masked_fill(absent, math.inf).amin(dim=-1)
    high = (pieces[4] + pieces[5]).masked_fill(absent, -math.inf).amax(dim=-1)
    low, high = (z.masked_fill(absent[..., 0], 0) for z in (low, high))
    line = torch.cat([start, step])[..., 0]
    return torch.cat([line, torch.stack([(low + high) / 2, (high - low) / 2, radius])])


def square_bounds(
    xy: Float[Tensor, "_ *#batch"],
    z: Float[Tensor, "*#batch"],
    spread: tuple[Float[Tensor, "*#batch"] | float, Float[Tensor, "*#batch"]],
    capsule: Float[Tensor, "_ *#batch"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Bounds how far points are, at least and at most, from the pieces in capsules.

    Args:
        xy: Points (m).
        z: Their heights (m).
        spread: How far around them, in the plane and in height, the bounds shall hold (m).
        capsule: Capsules. One that is none is infinitely far.

    Returns:
        Squares of the distances, height weighted by `Z_WEIGHT` (m²).
    """
    flat = _distance_to_line(xy, capsule[:2], capsule[2:4])
    slack = capsule[6] + spread[0]
    height = (z - capsule[4]).abs_()
    height_slack = capsule[5] + spread[1]
    low = (height - height_slack).clamp_(min=0).square_().mul_(Z_WEIGHT * Z_WEIGHT)
    high = (height + height_slack).square_().mul_(Z_WEIGHT * Z_WEIGHT)
    lower = (flat - slack).clamp_(min=0).square_()
    return lower + low, flat.add_(slack).square_() + high


def _distance_to_line(
    xy: Float[Tensor, "2 *#batch"],
    start: Float[Tensor, "2 *#batch"],
    step: Float[Tensor, "2 *#batch"],
) -> Float[Tensor, "*batch"]:
    x, y = offset_from_segment(xy, start, step)
    return x.square_().add_(y.square_()).sqrt_()
