"""What the colours and shapes mean."""

from collections.abc import Callable

import numpy as np

from catk_sim.datatypes import AgentType, TrafficLightState
from catk_sim.visualization import colors
from catk_sim.visualization.agent_layer import VisibleAgents, draw_agents, draw_ghosts
from catk_sim.visualization.canvas import Camera, Canvas, Frame
from catk_sim.visualization.light_layer import draw_light
from catk_sim.visualization.map_layer import draw_stop_sign
from catk_sim.visualization.text import text_width, write

_FONT, _TILE, _SPACE = 13, 23, 5  # Pixels at scale 1.
_TILE_METRES = 9.0


def draw_legend(width: int | None = None, *, scale: float = 1.0) -> Frame:
    """Draws the legend of all pictures on white.

    Args:
        width: Of the legend (pixels), which gets as many columns as fit. By default, of a single
            column.
        scale: Size of writing and symbols; 1 suits pictures of 800 pixels.
    """
    font, tile, space = (round(length * scale) for length in (_FONT, _TILE, _SPACE))
    column = tile + 3 * space + max(text_width(name, font) for name in _ENTRIES)
    width = column + space if width is None else width
    columns = min(max(1, width // column), len(_ENTRIES))
    rows = -(-len(_ENTRIES) // columns)
    # No emptier column than the number of rows asks for.
    columns = -(-len(_ENTRIES) // rows)
    pixels = np.full((rows * tile + 2 * space, width, 3), colors.WHITE, dtype=np.uint8)
    for index, (name, draw) in enumerate(_ENTRIES.items()):
        left = space + index // rows * (width // columns)
        top = space + index % rows * tile
        symbol = np.full((tile, tile, 3), colors.WHITE, dtype=np.uint8)
        draw(Canvas(symbol, Camera(center=(0.0, 0.0), metres=_TILE_METRES, size=tile), 0.8 * scale))
        place = pixels[top : top + tile, left : left + tile]
        place[:] = symbol[:, : place.shape[1]]
        middle = top + (tile - round(1.4 * font)) // 2
        write(pixels, name, left=left + tile + space, top=middle, height=font)
    return pixels


def _agent(
    kind: AgentType,
    length: float,
    width: float,
    *,
    is_sdc: bool = False,
    controlled: bool = True,
    collided: bool = False,
    offroad: bool = False,
) -> VisibleAgents:
    return VisibleAgents(
        xy=np.zeros((1, 2)),
        heading=np.zeros(1),
        size=np.array([[length, width]]),
        type=np.array([int(kind)]),
        is_sdc=np.array([is_sdc]),
        controlled=np.array([controlled]),
        collided=np.array([collided]),
        offroad=np.array([offroad]),
    )


def _symbol(agents: VisibleAgents) -> Callable[[Canvas], None]:
    return lambda canvas: draw_agents(canvas, agents)


def _light(state: TrafficLightState) -> Callable[[Canvas], None]:
    return lambda canvas: draw_light(canvas, np.zeros(2), state)


_ENTRIES: dict[str, Callable[[Canvas], None]] = {
    "sdc": _symbol(_agent(AgentType.VEHICLE, 7.4, 4.0, is_sdc=True)),
    "vehicle": _symbol(_agent(AgentType.VEHICLE, 7.4, 4.0)),
    "cyclist": _symbol(_agent(AgentType.CYCLIST, 7.0, 3.8)),
    "pedestrian": _symbol(_agent(AgentType.PEDESTRIAN, 4.4, 4.4)),
    "log replay": _symbol(_agent(AgentType.VEHICLE, 7.4, 4.0, controlled=False)),
    "place in the log": lambda canvas: draw_ghosts(canvas, _agent(AgentType.VEHICLE, 7.4, 4.0)),
    "collision": _symbol(_agent(AgentType.VEHICLE, 2.2, 1.4, collided=True)),
    "off the road": _symbol(_agent(AgentType.VEHICLE, 1.4, 0.9, offroad=True)),
    "light: stop": _light(TrafficLightState.STOP),
    "light: caution": _light(TrafficLightState.CAUTION),
    "light: go": _light(TrafficLightState.GO),
    "light: unknown": _light(TrafficLightState.UNKNOWN),
    "stop sign": lambda canvas: draw_stop_sign(canvas, np.zeros(2)),
}
