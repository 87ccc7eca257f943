import numpy as np
import pytest

from catk_sim.visualization import colors
from catk_sim.visualization.canvas import Camera, Canvas


def blank(size: int = 40, metres: float = 40.0) -> Canvas:
    pixels = np.full((size, size, 3), 255, dtype=np.uint8)
    return Canvas(pixels, Camera(center=(0.0, 0.0), metres=metres, size=size), 1.0)


def square(x: float, y: float, half: float = 4.0) -> np.ndarray:
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
    return np.array([x, y]) + half * corners


def test_the_middle_of_the_picture_lies_at_the_camera() -> None:
    camera = Camera(center=(10.0, 20.0), metres=50.0, size=100)
    # Pixels 49 and 50 meet in the middle.
    assert camera.to_pixels(np.array([10.0, 20.0])).tolist() == [49.5, 49.5]


def test_east_is_right_and_north_is_up() -> None:
    camera = Camera(center=(10.0, 20.0), metres=50.0, size=100)
    assert camera.to_pixels(np.array([[11.0, 20.0], [10.0, 21.0]])).tolist() == [
        [51.5, 49.5],
        [49.5, 47.5],
    ]


def test_two_overlapping_polygons_are_both_filled() -> None:
    canvas = blank()
    canvas.fill([square(0, 0), square(2, 2)], colors.BLUE)
    assert tuple(canvas.pixels[18, 21]) == colors.BLUE


def test_convex_polygons_have_their_own_colours() -> None:
    canvas = blank()
    canvas.fill_convex(np.stack([square(-10, 0), square(10, 0)]), [colors.BLUE, colors.ORANGE])
    assert tuple(canvas.pixels[20, 10]) == colors.BLUE
    assert tuple(canvas.pixels[20, 30]) == colors.ORANGE


def test_lines_of_a_list_and_of_an_array_look_the_same() -> None:
    lines = np.random.default_rng(0).uniform(-20, 20, (5, 7, 2))
    one, other = blank(), blank()
    one.stroke(lines, colors.INK, 2)
    other.stroke(list(lines), colors.INK, 2)
    assert (one.pixels != 255).any()
    assert np.array_equal(one.pixels, other.pixels)


def test_a_closed_line_returns_to_its_start() -> None:
    open_line, closed = blank(), blank()
    open_line.stroke([square(0, 0)], colors.INK, 1)
    closed.stroke([square(0, 0)], colors.INK, 1, closed=True)
    assert tuple(open_line.pixels[15, 20]) == colors.WHITE
    assert max(closed.pixels[15, 20]) < 200


def test_a_shape_moves_by_less_than_a_pixel() -> None:
    pictures = []
    for x in (0.0, 0.25, 0.5):
        canvas = blank()
        canvas.fill([square(x, 0.0)], colors.BLACK)
        pictures.append(canvas.pixels[20, :20, 0].astype(int).sum())
    # The further right its left side is, the lighter is the left half of the picture.
    assert pictures == sorted(set(pictures))


def test_drawing_nothing_changes_nothing() -> None:
    canvas = blank()
    canvas.stroke([], colors.INK, 1)
    canvas.fill([], colors.INK)
    canvas.fill_convex(np.zeros((0, 4, 2)), [])
    assert (canvas.pixels == 255).all()


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    canvas = blank()
    canvas.stroke([np.array([[-5000.0, 0.0], [5000.0, 0.0]])], colors.INK, 3)
    assert (canvas.pixels[20] != 255).all()
    assert (canvas.pixels[:15] == 255).all()


def test_a_line_is_never_thinner_than_a_pixel() -> None:
    assert Canvas(blank().pixels, blank().camera, 0.1).width(1.0) == 1
    assert Canvas(blank().pixels, blank().camera, 2.0).width(1.5) == 3


@pytest.mark.parametrize("metres", [0.0, -1.0, float("inf"), float("nan")])
def test_a_camera_that_shows_no_ground_is_refused(metres: float) -> None:
    with pytest.raises(ValueError, match="positive number of metres"):
        Camera(center=(0.0, 0.0), metres=metres, size=100)


def test_a_picture_of_a_few_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels, got 15"):
        Camera(center=(0.0, 0.0), metres=10.0, size=15)
