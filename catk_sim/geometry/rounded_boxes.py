"""Boxes with rounded corners in the plane, and the signed distance between them.

A rounded box is a smaller box, its core, with everything that lies within a radius of it. Boxes
are (x, y, heading, length, width), these along the first dimension: each is then contiguous in
memory, which makes these functions several times faster.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from catk_sim.geometry.roots import rounded_sqrt


def rounded_box_distance(
    one: Float[Tensor, "fields=5 *batch"],
    other: Float[Tensor, "fields=5 *batch"],
    *,
    rounding: float,
) -> Float[Tensor, "*batch"]:
    """Measures how far boxes are apart (m): the gap, or minus the depth to which they overlap.

    The depth is the least way that separates the cores, plus both radii. Far from the origin the
    rounding of the corners shows, half a millimetre each at 8 km. The order of operations is that
    of WOSAC, whose float32 figures come out bit for bit. Edges of no length are never the nearest,
    and a core with such edges never overlaps another.

    Args:
        one: Boxes (m, rad).
        other: The boxes to measure from them, one each.
        rounding: The radius of the corners, as a fraction of half the shorter side.
    """
    # The cores overlap where the Minkowski sum of one and the negated other holds the origin.
    (x, y), radius = _core(one, rounding)
    (other_x, other_y), other_radius = _core(other, rounding)
    vertices = _minkowski_sum(_from_lowest(x, y), _from_lowest(-other_x, -other_y))
    return _distance_to_origin(*vertices) - radius - other_radius


def distance_radii(
    boxes: Float[Tensor, "fields=5 *batch"], *, rounding: float
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Finds radii that bound what `rounded_box_distance` says of any two of these boxes.

    It lies between the distance of the centres less both outer radii, and the same less both inner
    radii. In exact arithmetic these are the radii of the circles around and within the boxes: the
    sum of the cores lies between such circles, overlapping or not. The rest is for rounding. Let
    noise be by how much the corners of a core may be off, and tilt be noise over the shorter side:
    the angle by which its sides may be off. Then

    - vertices are off by the noise of both boxes, and distances by little more;
    - sides may be walked in the wrong order if they are parallel to within both tilts, which moves
      a vertex by up to the tilts times the shorter of two sides;
    - the origin may count as outside although it lies inside, to a depth of up to the tilts times
      the width of the sum. The distance is then positive, but no greater.

    The last two only ever raise the distance, by at most twelve half diagonals of the largest core
    times the tilts. Where the tilt is no longer small, they raise it by at most four of these.

    Returns:
        The inner and the outer radius of each box (m). Inner radii may be negative.
    """
    x, y, _, length, width = boxes
    short, long = torch.minimum(length, width), torch.maximum(length, width)
    radius = short * (rounding / 2)
    half_diagonal = torch.hypot(short / 2 - radius, long / 2 - radius)
    noise = torch.finfo(x.dtype).eps * (x.abs() + y.abs() + long + 1)
    tilt = (noise / (short - 2 * radius)).clamp(max=1)
    margin = 4 * noise + 1e-4
    inner = short / 2 - margin - 16 * half_diagonal.amax() * tilt
    return inner, half_diagonal + radius + margin


def _core(
    boxes: Float[Tensor, "fields=5 *batch"], rounding: float
) -> tuple[Float[Tensor, "2 4 *batch"], Float[Tensor, "*batch"]]:
    """Finds the corners of cores, counter-clockwise from left-front, and the radius around them."""
    x, y, heading, length, width = boxes
    radius = torch.minimum(length, width) * rounding / 2
    ahead, left = (length - 2 * radius) / 2, (width - 2 * radius) / 2
    # In float64, because float32 sines differ between libraries and devices.
    wide = heading.double()
    cos, sin = wide.cos().to(x), wide.sin().to(x)
    ahead_x, ahead_y, left_x, left_y = ahead * cos, ahead * sin, left * sin, left * cos
    front_x, front_y = ahead_x - left_x, ahead_y + left_y
    back_x, back_y = -ahead_x - left_x, -ahead_y + left_y
    corners_x = torch.stack([front_x, back_x, -front_x, -back_x]) + x
    corners_y = torch.stack([front_y, back_y, -front_y, -back_y]) + y
    return torch.stack([corners_x, corners_y]), radius


def _from_lowest(
    x: Float[Tensor, "corners=4 *batch"], y: Float[Tensor, "corners=4 *batch"]
) -> Float[Tensor, "2 4 *batch"]:
    """Rotates the order of vertices so that the lowest comes first; of equally low ones, the first.

    `argmin` would do, but is ten times slower than all the rest.
    """
    later = y[1::2] < y[::2]
    low = torch.minimum(y[::2], y[1::2])
    second = low[1] < low[0]
    odd = torch.where(second, later[1], later[0])
    vertices = torch.stack([x, y])
    vertices = torch.where(second, vertices.roll(2, dims=1), vertices)
    return torch.where(odd, vertices.roll(-1, dims=1), vertices)


def _minkowski_sum(
    one: Float[Tensor, "2 4 *batch"], other: Float[Tensor, "2 4 *batch"]
) -> Float[Tensor, "2 8 *batch"]:
    """Finds the vertices of the sum of two boxes whose vertices start with the lowest.

    The sides of both are walked in the order of their angles, which alternate between the boxes.
    """
    edge_x, edge_y = _first_edge(one)
    other_edge_x, other_edge_y = _first_edge(other)
    one_turns_first = edge_x * other_edge_y - edge_y * other_edge_x >= 0
    both = one + other
    between = torch.where(
        one_turns_first, one.roll(-1, dims=1) + other, one + other.roll(-1, dims=1)
    )
    return torch.stack([both, between], dim=2).flatten(1, 2)


def _first_edge(
    vertices: Float[Tensor, "2 4 *batch"],
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    x, y = vertices[:, 1] - vertices[:, 0]
    length = rounded_sqrt(x * x + y * y)
    return x / length, y / length


def _distance_to_origin(
    x: Float[Tensor, "vertices=8 *batch"], y: Float[Tensor, "vertices=8 *batch"]
) -> Float[Tensor, "*batch"]:
    """Measures the distance of polygons to the origin (m), negative where they hold it."""
    step_x, step_y = x.roll(-1, dims=0) - x, y.roll(-1, dims=0) - y
    length = rounded_sqrt(step_x * step_x + step_y * step_y)
    # NaN for edges of no length, on purpose: whatever is asked about them, the answer is no.
    step_x /= length
    step_y /= length
    across = y * step_x - x * step_y
    along = x * step_x + y * step_y
    beside = (along <= 0) & (along >= -length)
    nearest_edge = torch.where(beside, across.abs(), torch.inf).amin(dim=0)
    nearest_vertex = rounded_sqrt((x * x + y * y).amin(dim=0))
    distance = torch.minimum(nearest_edge, nearest_vertex)
    return torch.where(across.amax(dim=0) <= 0, -distance, distance)
