"""What `rounded_box_distance` computes, pair by pair and step by step, in float32."""

import math

import numpy as np
import torch
from torch import Tensor

Point = tuple[np.float32, np.float32]

SPECIAL_SIZES = [
    (0.0, 0.0),  # logged where there is nothing
    (0.0, 2.0),
    (5.0, 0.0),
    (0.4, 0.6),  # a child
    (18.0, 2.6),
    (0.05, 9.0),
    (1e-3, 1e-3),
]


def crowd(
    seed: int, num: int, *, extent: float, origin: float = 0.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Boxes (x, y, heading, length, width) that lie over, along, across and within each other.

    Many take some of what describes them from another one, and those are aligned, concentric,
    equal, or stand nose to tail.
    """
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-extent, extent, (num, 2))
    heading = rng.uniform(-10, 10, num)
    size = rng.uniform((3, 1.5), (7, 3), (num, 2))
    special = rng.random(num) < 0.2
    size[special] = rng.choice(SPECIAL_SIZES, special.sum())
    straight = rng.random(num) < 0.2
    heading[straight] = rng.integers(-4, 5, straight.sum()) * math.pi / 2
    for i in range(1, num):
        other = rng.integers(i)
        same_size, aligned, same_center, touching = rng.random(4) < (0.3, 0.5, 0.2, 0.1)
        if same_size:
            size[i] = size[other]
        if aligned:
            heading[i] = heading[other] + rng.integers(4) * math.pi / 2
        if same_center:
            centers[i] = centers[other]
        if touching:
            heading[i], size[i] = heading[other], size[other]
            ahead = np.array([math.cos(heading[i]), math.sin(heading[i])])
            centers[i] = centers[other] + size[i, 0] * ahead
    x, y = centers.T
    boxes = np.stack([x + origin, y - origin, heading, *size.T])
    return torch.tensor(boxes, dtype=dtype)


def reference_distance(one: Tensor, other: Tensor, rounding: float) -> float:
    """Measures two boxes of five numbers each."""
    corners, radius = _core(one, rounding)
    other_corners, other_radius = _core(other, rounding)
    polygon = _minkowski_sum(corners, [(-x, -y) for x, y in other_corners])
    return float(_signed_distance(polygon) - radius - other_radius)


def _core(box: Tensor, rounding: float) -> tuple[list[Point], np.float32]:
    x, y, heading, length, width = box.numpy()
    two = np.float32(2)
    radius = min(length, width) * np.float32(rounding) / two
    ahead, left = (length - two * radius) / two, (width - two * radius) / two
    cos = np.float32(math.cos(float(heading)))
    sin = np.float32(math.sin(float(heading)))
    offsets = [(ahead, left), (-ahead, left), (-ahead, -left), (ahead, -left)]
    return [(u * cos - v * sin + x, u * sin + v * cos + y) for u, v in offsets], radius


def _minkowski_sum(corners: list[Point], other_corners: list[Point]) -> list[Point]:
    lowest, edge = _lowest(corners)
    other_lowest, other_edge = _lowest(other_corners)
    walk, other_walk = (0, 1, 1, 2, 2, 3, 3, 0), (0, 0, 1, 1, 2, 2, 3, 3)
    if not edge[0] * other_edge[1] - edge[1] * other_edge[0] >= 0:
        walk, other_walk = other_walk, walk
    polygon = []
    for i, j in zip(walk, other_walk, strict=True):
        x, y = corners[(lowest + i) % 4]
        other_x, other_y = other_corners[(other_lowest + j) % 4]
        polygon.append((x + other_x, y + other_y))
    return polygon


def _lowest(corners: list[Point]) -> tuple[int, Point]:
    lowest = min(range(4), key=lambda i: corners[i][1])
    return lowest, _tangent(corners[lowest], corners[(lowest + 1) % 4])[0]


def _tangent(start: Point, end: Point) -> tuple[Point, np.float32]:
    x, y = end[0] - start[0], end[1] - start[1]
    length = np.float32(np.sqrt(x * x + y * y))
    if length == 0:
        return (np.float32(np.nan), np.float32(np.nan)), np.float32(0)
    return (x / length, y / length), length


def _signed_distance(polygon: list[Point]) -> np.float32:
    distance, inside = np.float32(np.inf), True
    for i, (x, y) in enumerate(polygon):
        distance = min(distance, np.sqrt(x * x + y * y))
        tangent, length = _tangent((x, y), polygon[(i + 1) % 8])
        if length == 0:
            inside = False
            continue
        to_origin = (-x, -y)
        outside = to_origin[0] * tangent[1] - to_origin[1] * tangent[0]
        inside = inside and outside <= 0
        along = (to_origin[0] * tangent[0] + to_origin[1] * tangent[1]) / length
        if 0 <= along <= 1:
            distance = min(distance, abs(outside))
    return -distance if inside else distance
