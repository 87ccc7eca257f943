"""Plane curves as arrays of points."""

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "_ 2"]
"""A polyline of any number of points."""

Point = Float[np.ndarray, "2"]


def unit(heading: float) -> Point:
    """Returns the unit vector that points along a heading (rad)."""
    return np.array([np.cos(heading), np.sin(heading)])


def left_of(direction: Float[np.ndarray, "*batch 2"]) -> Float[np.ndarray, "*batch 2"]:
    """Turns vectors by a quarter turn counter-clockwise."""
    return np.stack([-direction[..., 1], direction[..., 0]], axis=-1)


def wrap_angle(angle: float) -> float:
    """Returns the same direction in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def arc_length(xy: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, " points"]:
    """Returns the distance along the curve (m) at which each point lies."""
    step = np.diff(xy, axis=0)
    return np.concatenate([[0.0], np.cumsum(np.hypot(step[:, 0], step[:, 1]))])


def interpolate(xy: Points, distance: Float[np.ndarray, " taken"]) -> Float[np.ndarray, "taken 2"]:
    """Returns the points at given distances (m) along the curve."""
    along = arc_length(xy)
    return np.stack([np.interp(distance, along, xy[:, axis]) for axis in (0, 1)], axis=-1)


def resample(xy: Points, spacing: float) -> Points:
    """Spreads points evenly over the curve, at most `spacing` (m) apart. The ends stay."""
    length = arc_length(xy)[-1]
    count = max(2, int(np.ceil(length / spacing - 1e-6)) + 1)
    return interpolate(xy, np.linspace(0.0, length, count))


def tangents(xy: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 2"]:
    """Returns the unit tangent at each point."""
    slope = np.gradient(xy, axis=0)
    return slope / np.maximum(np.hypot(slope[:, 0], slope[:, 1]), 1e-9)[:, None]


def offset(
    xy: Float[np.ndarray, "points 2"], distance: float | Float[np.ndarray, " points"]
) -> Float[np.ndarray, "points 2"]:
    """Moves each point sideways (m); positive is to the left of the direction of the curve."""
    shift = np.broadcast_to(distance, xy.shape[:1])
    return xy + shift[:, None] * left_of(tangents(xy))


def bezier(start: Point, start_tangent: Point, end: Point, end_tangent: Point) -> Points:
    """Joins two points by a cubic Bezier curve, which for a right angle is close to an arc."""
    # 0.39 chords: the handle with which a cubic follows a quarter of a circle.
    handle = 0.39 * np.hypot(*(end - start))
    a, b = start + handle * start_tangent, end - handle * end_tangent
    t = np.linspace(0.0, 1.0, 25)[:, None]
    return (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 * end


def bend(start: Point, heading: float, length: float, curvature: float) -> Points:
    """Draws a curve that starts straight and then bends with a constant curvature (1/m)."""
    step = 0.5
    count = max(2, round(length / step) + 1)
    along = step * np.arange(count)
    headings = heading + curvature * np.clip(along - 25.0, 0.0, None)
    moves = step * np.stack([np.cos(headings[:-1]), np.sin(headings[:-1])], axis=-1)
    return start + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])


def smooth(xy: Float[np.ndarray, "points 2"], window: int) -> Float[np.ndarray, "points 2"]:
    """Averages each point with its neighbours; the ends stay where they are."""
    half = min(window // 2, (len(xy) - 1) // 2)
    if half == 0:
        return xy
    padded = np.concatenate([2 * xy[:1] - xy[half:0:-1], xy, 2 * xy[-1:] - xy[-2 : -half - 2 : -1]])
    total = np.cumsum(np.concatenate([np.zeros((1, 2)), padded]), axis=0)
    width = 2 * half + 1
    return (total[width:] - total[:-width]) / width


def chain(pieces: list[Points]) -> list[Points]:
    """Joins polylines that end where another one starts."""
    starts = {_key(piece[0]): index for index, piece in enumerate(pieces)}
    following = [starts.get(_key(piece[-1])) for piece in pieces]
    has_previous = {index for index in following if index is not None}
    # Open chains first; whatever is left after them consists of closed rings.
    order = sorted(range(len(pieces)), key=lambda index: index in has_previous)
    joined, used = [], set()
    for first in order:
        parts, index = [], first
        while index is not None and index not in used:
            used.add(index)
            parts.append(pieces[index] if not parts else pieces[index][1:])
            index = following[index]
        if parts:
            joined.append(np.concatenate(parts))
    return joined


def _key(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0]) * 1000), round(float(point[1]) * 1000)
