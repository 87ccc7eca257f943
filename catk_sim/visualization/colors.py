"""The colours of every picture, which people with colour-blindness can tell apart.

Masataka Okabe and Kei Ito, "Color Universal Design", https://jfly.uni-koeln.de/color/. No meaning
hangs on colour alone: types differ in their heading mark, lights and warnings in shape, the sdc
and replayed agents in outline and fill.
"""

from catk_sim.datatypes import AgentType, TrafficLightState

Color = tuple[int, int, int]
"""Red, green, blue, each from 0 to 255."""

BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
ORANGE: Color = (230, 159, 0)
SKY_BLUE: Color = (86, 180, 233)
BLUISH_GREEN: Color = (0, 158, 115)
YELLOW: Color = (240, 228, 66)
BLUE: Color = (0, 114, 178)
VERMILION: Color = (213, 94, 0)
REDDISH_PURPLE: Color = (204, 121, 167)
GRAY: Color = (80, 80, 84)

GROUND: Color = (244, 243, 240)
ASPHALT: Color = (214, 216, 219)
DRIVEWAY: Color = (229, 229, 229)
BIKE_LANE: Color = (204, 219, 212)
LANE_CENTER: Color = (192, 195, 199)
ROAD_EDGE: Color = (84, 86, 92)
WHITE_LINE: Color = WHITE
YELLOW_LINE: Color = (226, 170, 28)
CROSSWALK: Color = WHITE
SPEED_BUMP: Color = (184, 172, 140)
STOP_SIGN: Color = (168, 42, 32)
LOG_GHOST: Color = (95, 95, 100)
INK: Color = (32, 33, 36)
"""Text, outlines and scale bars."""

SDC: Color = REDDISH_PURPLE
COLLISION: Color = VERMILION
OFFROAD: Color = YELLOW

AGENTS: dict[AgentType, Color] = {
    AgentType.UNSET: GRAY,
    AgentType.VEHICLE: BLUE,
    AgentType.PEDESTRIAN: ORANGE,
    AgentType.CYCLIST: BLUISH_GREEN,
    AgentType.OTHER: GRAY,
}

LIGHTS: dict[TrafficLightState, Color] = {
    TrafficLightState.UNKNOWN: (225, 225, 228),
    TrafficLightState.ARROW_STOP: VERMILION,
    TrafficLightState.ARROW_CAUTION: YELLOW,
    TrafficLightState.ARROW_GO: BLUISH_GREEN,
    TrafficLightState.STOP: VERMILION,
    TrafficLightState.CAUTION: YELLOW,
    TrafficLightState.GO: BLUISH_GREEN,
    TrafficLightState.FLASHING_STOP: VERMILION,
    TrafficLightState.FLASHING_CAUTION: YELLOW,
}

POLICIES: tuple[Color, ...] = (VERMILION, BLUE, BLUISH_GREEN, REDDISH_PURPLE, ORANGE, SKY_BLUE)
"""Colours of compared policies and runs, in the order in which they are named."""


def tint(color: Color, toward: Color, share: float) -> Color:
    """Mixes a colour with another one, of which `share` (0 to 1) goes in."""
    red, green, blue = (
        round((1 - share) * own + share * other) for own, other in zip(color, toward, strict=True)
    )
    return red, green, blue


def to_hex(color: Color) -> str:
    """Writes a colour as matplotlib and HTML read it, such as `#0072b2`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


_HUES = (ORANGE, SKY_BLUE, BLUISH_GREEN, YELLOW, BLUE, VERMILION, REDDISH_PURPLE, GRAY)
PALETTE: tuple[Color, ...] = (
    BLACK,
    WHITE,
    *_HUES,
    *(tint(hue, INK, share) for hue in _HUES for share in (0.3, 0.6)),
    *(tint(hue, ASPHALT, share) for hue in _HUES for share in (0.3, 0.6)),
)
"""Colours that a picture may need although earlier ones of its film had none of them."""
