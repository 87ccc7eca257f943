import numpy as np
import pytest

from catk_sim.datatypes import MapFeatureType, TrafficLightState
from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Camera, Canvas
from catk_sim.visualization.light_layer import draw_light
from catk_sim.visualization.map_layer import MapFeatures, draw_map, regular_polygon


def canvas(metres: float) -> Canvas:
    pixels = np.full((200, 200, 3), 255, dtype=np.uint8)
    return Canvas(pixels, Camera(center=(0.0, 0.0), metres=metres, size=200), 0.25)


def light(state: TrafficLightState) -> Canvas:
    drawn = canvas(4.0)
    draw_light(drawn, np.zeros(2), state)
    return drawn


def street(**lines: np.ndarray) -> Canvas:
    features: MapFeatures = {kind: [] for kind in MapFeatureType}
    for name, line in lines.items():
        features[MapFeatureType[name]].append(line)
    drawn = canvas(40.0)
    draw_map(drawn, features)
    return drawn


EAST = np.stack([np.linspace(-30, 30, 61), np.zeros(61)], axis=-1)


@pytest.mark.parametrize("state", list(TrafficLightState))
def test_a_light_has_the_colour_of_its_state(state: TrafficLightState) -> None:
    pixels = light(state).pixels
    # Right of the middle, clear of arrows and hollows.
    assert tuple(pixels[100, 100 + 28]) == colors.LIGHTS[state]


def test_lights_of_different_states_differ_even_in_gray() -> None:
    shapes = {
        (light(state).pixels.astype(int).max(axis=-1) < 60).tobytes() for state in TrafficLightState
    }
    assert len(shapes) == len(TrafficLightState)


def test_a_lane_is_paved() -> None:
    drawn = street(LANE_SURFACE_STREET=EAST)
    assert tuple(drawn.pixels[100 - 5, 30]) == colors.ASPHALT
    assert tuple(drawn.pixels[100 - 15, 30]) == colors.GROUND


@pytest.mark.parametrize("name", ["SOLID_SINGLE_WHITE", "BROKEN_SINGLE_WHITE"])
def test_a_single_line_is_where_the_map_has_it(name: str) -> None:
    drawn = street(LANE_SURFACE_STREET=EAST + np.array([0, 1]), **{f"ROAD_LINE_{name}": EAST})
    dashed = (np.abs(drawn.pixels[98:102].astype(int) - colors.WHITE_LINE).max(axis=-1) < 30).any(
        axis=0
    )
    share = dashed.mean()
    assert share == (1.0 if name.startswith("SOLID") else pytest.approx(3 / 8, abs=0.15))


def test_a_passing_line_is_solid_on_one_side_and_broken_on_the_other() -> None:
    drawn = street(ROAD_LINE_PASSING_DOUBLE_YELLOW=EAST)
    yellow = np.abs(drawn.pixels.astype(int) - colors.YELLOW_LINE).max(axis=-1) < 60
    assert yellow[:100].any(axis=0).mean() > 0.95
    assert 0.2 < yellow[100:].any(axis=0).mean() < 0.6


def test_a_crosswalk_is_striped_across_its_length() -> None:
    corners = np.array([[-10.0, -2.0], [10.0, -2.0], [10.0, 2.0], [-10.0, 2.0]])
    for crosswalk in (corners, np.roll(corners, 1, axis=0), np.vstack([corners, corners[:1]])):
        row = street(CROSSWALK=crosswalk).pixels[100, 55:145].astype(int).min(axis=-1)
        changes = np.count_nonzero(np.diff((row > 245).astype(int)))
        # A stripe each 1.2 m, over 18 m.
        assert changes == pytest.approx(2 * 18 / 1.2, abs=2)


def test_a_crosswalk_of_many_corners_is_filled() -> None:
    hexagon = regular_polygon(np.zeros(2), 8.0, 6)
    assert tuple(street(CROSSWALK=hexagon).pixels[100, 100]) not in (colors.GROUND, colors.ASPHALT)


def test_a_stop_sign_is_red_within_white() -> None:
    pixels = street(STOP_SIGN=np.zeros((1, 2))).pixels
    assert tuple(pixels[100, 100]) == colors.STOP_SIGN


def test_a_regular_polygon_stands_on_a_side() -> None:
    square = regular_polygon(np.array([1.0, 2.0]), np.sqrt(2), 4)
    np.testing.assert_allclose(sorted(square.tolist()), [[0, 1], [0, 3], [2, 1], [2, 3]], atol=1e-9)
