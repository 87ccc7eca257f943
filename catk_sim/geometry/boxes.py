"""Oriented boxes in the plane: their corners, and which of them overlap.

A box is a centre, a heading and a size. Only the length (along the heading) and the width of a size
are read, so sizes may carry a height.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.geometry.se2 import rotate, to_global

MAX_PAIRS = 1 << 20
"""Pairs of boxes that are looked at together, which bounds the memory."""


def box_corners(
    xy: Float[Tensor, "*batch 2"], heading: Float[Tensor, "*batch"], size: Float[Tensor, "*batch _"]
) -> Float[Tensor, "*batch 4 2"]:
    """Finds the corners of boxes: left-front, right-front, right-back, left-back."""
    half = size[..., None, :2] / 2
    signs = xy.new_tensor([[1, 1], [1, -1], [-1, -1], [-1, 1]])
    return to_global(half * signs, xy[..., None, :], heading[..., None])


def boxes_overlap(
    xy: Float[Tensor, "*batch 2"],
    heading: Float[Tensor, "*batch"],
    size: Float[Tensor, "*batch _"],
    other_xy: Float[Tensor, "*batch 2"],
    other_heading: Float[Tensor, "*batch"],
    other_size: Float[Tensor, "*batch _"],
) -> Bool[Tensor, "*batch"]:
    """Tells which pairs of boxes share some area. Boxes that merely touch do not.

    Exact, by the separating axis theorem: two rectangles are apart if and only if they are apart
    along a side of one of them.
    """
    offset = other_xy - xy
    turn = other_heading - heading
    cos, sin = turn.cos().abs()[..., None], turn.sin().abs()[..., None]
    half, other_half = size[..., :2] / 2, other_size[..., :2] / 2
    # How far each box reaches along the sides of the other.
    reach = other_half * cos + other_half.flip(-1) * sin
    other_reach = half * cos + half.flip(-1) * sin
    along = rotate(offset, -heading).abs() < half + reach
    along_other = rotate(offset, -other_heading).abs() < other_half + other_reach
    solid = (size[..., :2] > 0).all(dim=-1) & (other_size[..., :2] > 0).all(dim=-1)
    return along.all(dim=-1) & along_other.all(dim=-1) & solid


def has_overlap(
    xy: Float[Tensor, "*batch boxes 2"],
    heading: Float[Tensor, "*batch boxes"],
    size: Float[Tensor, "*batch boxes _"],
    valid: Bool[Tensor, "*batch boxes"],
) -> Bool[Tensor, "*batch boxes"]:
    """Tells which boxes overlap some other box of the same scene.

    Args:
        xy: Centres (m).
        heading: Directions (rad).
        size: Lengths and widths (m).
        valid: Boxes that exist. The others overlap nothing.
    """
    if not valid.numel():
        return torch.zeros_like(valid)
    *batch, num_boxes = valid.shape
    num_scenes = math.prod(batch)
    scenes = max(1, MAX_PAIRS // max(1, num_boxes**2))
    flat = zip(
        xy.reshape(num_scenes, num_boxes, 2).split(scenes),
        heading.reshape(num_scenes, num_boxes).split(scenes),
        size.reshape(num_scenes, num_boxes, size.shape[-1]).split(scenes),
        valid.reshape(num_scenes, num_boxes).split(scenes),
        strict=True,
    )
    parts = [_has_overlap(*part) for part in flat]
    return torch.cat(parts).reshape(valid.shape)


def _has_overlap(
    xy: Float[Tensor, "scenes boxes 2"],
    heading: Float[Tensor, "scenes boxes"],
    size: Float[Tensor, "scenes boxes _"],
    valid: Bool[Tensor, "scenes boxes"],
) -> Bool[Tensor, "scenes boxes"]:
    one, other = _near_pairs(xy, size, valid)
    xy, heading, size = xy.flatten(0, 1), heading.flatten(), size.flatten(0, 1)
    hit = boxes_overlap(xy[one], heading[one], size[one], xy[other], heading[other], size[other])
    result = torch.zeros_like(valid).flatten()
    result[one[hit]] = True
    result[other[hit]] = True
    return result.reshape(valid.shape)


def _near_pairs(
    xy: Float[Tensor, "scenes boxes 2"],
    size: Float[Tensor, "scenes boxes _"],
    valid: Bool[Tensor, "scenes boxes"],
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Finds the pairs of boxes whose circumscribed circles meet, as indices into all boxes.

    The circles meet where |p - q|^2 - (r + s)^2 <= 0. Multiplied out, that is a product of
    matrices, by far the cheapest way to look at all pairs. Its rounding error is of the order of
    |p|^2 times the precision; the margin covers it.
    """
    xy = xy * valid[..., None]
    xy = xy - xy.mean(dim=-2, keepdim=True)
    radius = size[..., :2].norm(dim=-1, keepdim=True) / 2
    square = xy.square().sum(dim=-1, keepdim=True) - radius.square()
    margin = 16 * torch.finfo(xy.dtype).eps * xy.square().sum(dim=-1).amax(dim=-1) + 1e-3
    one = torch.ones_like(square)
    gap = torch.cat([square, one, -2 * xy, -2 * radius], dim=-1) @ torch.cat(
        [one, square, xy, radius], dim=-1
    ).transpose(-1, -2)
    near = (gap <= margin[:, None, None]) & valid[:, None, :] & valid[:, :, None]
    scene, first, second = near.nonzero().unbind(-1)
    once = first < second
    start = scene[once] * valid.shape[-1]
    return start + first[once], start + second[once]
