"""Traffic lights, at the points where their traffic stops."""

import numpy as np
from jaxtyping import Float

from catk_sim.datatypes import TrafficLightState
from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Canvas
from catk_sim.visualization.map_layer import regular_polygon

_STATE = TrafficLightState
# Corners of the lamp: a square stops, a diamond warns, a disc lets go.
_STOPS = (_STATE.STOP, _STATE.ARROW_STOP, _STATE.FLASHING_STOP)
_GOES = (_STATE.GO, _STATE.ARROW_GO)
_ARROWS = (_STATE.ARROW_STOP, _STATE.ARROW_CAUTION, _STATE.ARROW_GO)
_HOLLOW = (_STATE.FLASHING_STOP, _STATE.FLASHING_CAUTION, _STATE.UNKNOWN)


def draw_light(canvas: Canvas, xy: Float[np.ndarray, " 2"], state: TrafficLightState) -> None:
    """Draws a lamp in a dark housing: with an arrow, or hollow if it flashes or is unknown."""
    radius = max(1.1, canvas.to_metres(6.0))
    lamp = _lamp(xy, 0.72 * radius, state)
    canvas.fill([regular_polygon(xy, radius, 24)], colors.INK)
    canvas.fill([lamp], colors.LIGHTS[state])
    if state in _HOLLOW:
        canvas.fill([_lamp(xy, 0.36 * radius, state)], colors.INK)
    if state in _ARROWS:
        arrow = np.array([[-0.35, 0.05], [0.0, 0.45], [0.35, 0.05], [0.0, 0.05], [0.0, -0.45]])
        canvas.stroke([xy + radius * arrow], colors.INK, canvas.width(1.2))


def _lamp(
    xy: Float[np.ndarray, " 2"], radius: float, state: TrafficLightState
) -> Float[np.ndarray, "corners 2"]:
    if state in _STOPS:
        return regular_polygon(xy, 1.1 * radius, 4)
    if state in _GOES or state == _STATE.UNKNOWN:
        return regular_polygon(xy, radius, 24)
    return xy + 1.15 * radius * np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
