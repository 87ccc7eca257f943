import itertools

import numpy as np
import pytest

from catk_sim.datatypes import AgentType, TrafficLightState
from catk_sim.visualization import colors

# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A Physiologically-based Model for Simulation
# of Color Vision Deficiency" (2009), severity 1: what linear red, green and blue become.
VISION = {
    "all cones": np.eye(3),
    "no red cones": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green cones": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue cones": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# What is seen at the same time and means different things.
SETS = {
    "agents": [colors.SDC, *{colors.AGENTS[kind] for kind in AgentType}],
    "lights": [*{colors.LIGHTS[state] for state in TrafficLightState}],
    "warnings": [colors.COLLISION, colors.OFFROAD, colors.ASPHALT, colors.SPEED_BUMP],
    "policies": list(colors.POLICIES[:3]),
}


def as_seen(color: colors.Color, vision: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour. Ten of its units are plainly different."""
    channel = np.array(color) / 255
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(vision @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("meaning", SETS)
@pytest.mark.parametrize("vision", VISION)
def test_colours_that_mean_different_things_look_different(meaning: str, vision: str) -> None:
    for one, other in itertools.combinations(SETS[meaning], 2):
        apart = as_seen(one, VISION[vision]) - as_seen(other, VISION[vision])
        assert np.linalg.norm(apart) > 15, (one, other)


def test_every_agent_and_light_has_a_colour() -> None:
    assert set(colors.AGENTS) == set(AgentType)
    assert set(colors.LIGHTS) == set(TrafficLightState)


def test_a_tint_lies_between_its_colours() -> None:
    assert colors.tint((0, 100, 200), (100, 100, 0), 0.25) == (25, 100, 150)
    assert colors.tint(colors.BLUE, colors.WHITE, 0.0) == colors.BLUE
    assert colors.tint(colors.BLUE, colors.WHITE, 1.0) == colors.WHITE


def test_a_colour_is_written_in_hexadecimal() -> None:
    assert colors.to_hex(colors.BLUE) == "#0072b2"
