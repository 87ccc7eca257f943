"""The map, as it is drawn under everything else."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from catk_sim.datatypes import MapFeatureType as Type
from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Canvas
from catk_sim.visualization.polylines import Polyline, dashes, offset

MapFeatures = dict[Type, list[Polyline]]

_LANE_WIDTH = 3.9  # Metres. WOMD gives no widths; at this one, neighbouring lanes mostly touch.
_BIKE_LANE_WIDTH = 1.6
_LINE_WIDTH = 0.15
_DASH, _GAP = 3.0, 5.0  # Metres.


@dataclass(frozen=True)
class _Paint:
    """How a road line looks: whether the stripe is dashed, from left to right."""

    color: colors.Color
    dashed: tuple[bool, ...]


_ROAD_LINES = {
    Type.ROAD_LINE_UNKNOWN: _Paint(colors.LANE_CENTER, (False,)),
    Type.ROAD_LINE_BROKEN_SINGLE_WHITE: _Paint(colors.WHITE_LINE, (True,)),
    Type.ROAD_LINE_SOLID_SINGLE_WHITE: _Paint(colors.WHITE_LINE, (False,)),
    Type.ROAD_LINE_SOLID_DOUBLE_WHITE: _Paint(colors.WHITE_LINE, (False, False)),
    Type.ROAD_LINE_BROKEN_SINGLE_YELLOW: _Paint(colors.YELLOW_LINE, (True,)),
    Type.ROAD_LINE_BROKEN_DOUBLE_YELLOW: _Paint(colors.YELLOW_LINE, (True, True)),
    Type.ROAD_LINE_SOLID_SINGLE_YELLOW: _Paint(colors.YELLOW_LINE, (False,)),
    Type.ROAD_LINE_SOLID_DOUBLE_YELLOW: _Paint(colors.YELLOW_LINE, (False, False)),
    Type.ROAD_LINE_PASSING_DOUBLE_YELLOW: _Paint(colors.YELLOW_LINE, (False, True)),
}


def draw_map(canvas: Canvas, features: MapFeatures) -> None:
    """Draws the ground and all that stands still on it, except traffic lights."""
    canvas.pixels[:] = colors.GROUND
    canvas.fill(features[Type.DRIVEWAY], colors.DRIVEWAY)
    _draw_lane_surfaces(canvas, features)
    _draw_lane_centers(canvas, features)
    _draw_crosswalks(canvas, features[Type.CROSSWALK])
    for kind, paint in _ROAD_LINES.items():
        for line in features[kind]:
            _draw_road_line(canvas, line, paint)
    _draw_speed_bumps(canvas, features[Type.SPEED_BUMP])
    _draw_road_edges(canvas, features)
    for sign in features[Type.STOP_SIGN]:
        draw_stop_sign(canvas, sign[0])


def draw_stop_sign(canvas: Canvas, xy: Float[np.ndarray, " 2"]) -> None:
    """Draws a red octagon with a white rim."""
    radius = max(0.9, canvas.to_metres(5.5))
    for share, color in ((1.0, colors.INK), (0.88, colors.WHITE), (0.7, colors.STOP_SIGN)):
        canvas.fill([regular_polygon(xy, radius * share, 8)], color)


def regular_polygon(
    xy: Float[np.ndarray, " 2"], radius: float, corners: int
) -> Float[np.ndarray, "corners 2"]:
    """Corners of a regular polygon that stands on a side."""
    angle = -np.pi / 2 + np.pi / corners + 2 * np.pi * np.arange(corners) / corners
    return xy + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _ground_width(canvas: Canvas, metres: float) -> int:
    return max(1, round(metres * canvas.camera.pixels_per_metre))


def _draw_lane_surfaces(canvas: Canvas, features: MapFeatures) -> None:
    lanes = (
        features[Type.LANE_UNDEFINED]
        + features[Type.LANE_FREEWAY]
        + features[Type.LANE_SURFACE_STREET]
    )
    canvas.stroke(lanes, colors.ASPHALT, _ground_width(canvas, _LANE_WIDTH))
    bike = features[Type.LANE_BIKE_LANE]
    canvas.stroke(bike, colors.BIKE_LANE, _ground_width(canvas, _BIKE_LANE_WIDTH))


def _draw_lane_centers(canvas: Canvas, features: MapFeatures) -> None:
    """Draws thin lines with an arrow in the middle of each lane that is long enough for one."""
    lanes = [line for kind in Type if kind <= Type.LANE_BIKE_LANE for line in features[kind]]
    canvas.stroke(lanes, colors.LANE_CENTER, canvas.width(0.5))
    size = max(0.7, canvas.to_metres(2.5))
    arrows = [_arrow(line, size) for line in lanes if _length(line) > 6 * size]
    canvas.stroke(arrows, colors.LANE_CENTER, canvas.width(1.2))


def _arrow(line: Polyline, size: float) -> Float[np.ndarray, "3 2"]:
    middle = len(line) // 2
    ahead = line[middle] - line[middle - 1]
    ahead = size * ahead / max(np.linalg.norm(ahead), 1e-9)
    left = np.array([-ahead[1], ahead[0]])
    return line[middle] + np.stack([-ahead + left, np.zeros(2), -ahead - left])


def _length(line: Polyline) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _draw_crosswalks(canvas: Canvas, polygons: list[Polyline]) -> None:
    canvas.fill(polygons, colors.tint(colors.CROSSWALK, colors.ASPHALT, 0.5))
    for polygon in polygons:
        canvas.fill(_zebra(polygon), colors.CROSSWALK)
    canvas.stroke(polygons, colors.LANE_CENTER, canvas.width(0.5), closed=True)


def _zebra(polygon: Polyline) -> list[Float[np.ndarray, "4 2"]]:
    """Stripes across the longer sides of a quadrangle. Other polygons get none."""
    if len(polygon) == 5 and np.allclose(polygon[0], polygon[-1]):
        polygon = polygon[:-1]
    if len(polygon) != 4:
        return []
    sides = np.linalg.norm(np.roll(polygon, -1, axis=0) - polygon, axis=1)
    if sides[0] + sides[2] < sides[1] + sides[3]:
        polygon = np.roll(polygon, -1, axis=0)
    a, b, c, d = polygon
    count = max(2, round(float(np.linalg.norm(b - a)) / 1.2))
    share = (np.arange(count)[:, None] + np.array([0.25, 0.75])) / count
    near = a + share[..., None] * (b - a)
    far = d + share[..., None] * (c - d)
    return [np.stack([n[0], n[1], f[1], f[0]]) for n, f in zip(near, far, strict=True)]


def _draw_road_line(canvas: Canvas, line: Polyline, paint: _Paint) -> None:
    width = max(canvas.width(0.5), _ground_width(canvas, _LINE_WIDTH))
    apart = 2 * max(_LINE_WIDTH, canvas.to_metres(0.9))
    middle = (len(paint.dashed) - 1) / 2
    for index, dashed in enumerate(paint.dashed):
        stripe = offset(line, apart * (middle - index)) if middle else line
        canvas.stroke(dashes(stripe, _DASH, _GAP) if dashed else [stripe], paint.color, width)


def _draw_speed_bumps(canvas: Canvas, polygons: list[Polyline]) -> None:
    canvas.fill(polygons, colors.SPEED_BUMP)
    canvas.stroke(polygons, colors.INK, canvas.width(0.5), closed=True)


def _draw_road_edges(canvas: Canvas, features: MapFeatures) -> None:
    for kind in (Type.ROAD_EDGE_UNKNOWN, Type.ROAD_EDGE_BOUNDARY, Type.ROAD_EDGE_MEDIAN):
        canvas.stroke(features[kind], colors.ROAD_EDGE, canvas.width(1.5))
