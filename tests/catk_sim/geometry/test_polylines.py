import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.geometry.polylines import (
    fraction_along,
    offset_from_segment,
    side,
    side_of_polyline,
    weighted_square,
)


def vectors(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).T


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=6))
def test_the_offset_is_as_long_as_shapelys_distance(numbers: list[float]) -> None:
    px, py, ax, ay, bx, by = numbers
    if (ax, ay) == (bx, by):
        return
    expected = shapely.Point(px, py).distance(shapely.LineString([(ax, ay), (bx, by)]))
    start = vectors([ax, ay, 0.0])
    x, y, z = offset_from_segment(vectors([px, py, 0.0]), start, vectors([bx, by, 0.0]) - start)
    assert (x * x + y * y).sqrt().item() == pytest.approx(expected, abs=1e-9)
    assert z.item() == 0


def test_height_counts_where_the_segment_is_nearest_from_above() -> None:
    """A ramp from the ground to 4 m; beside its middle, a point at 5 m."""
    ramp = vectors([0, 0, 0]), vectors([10, 0, 4])
    x, y, z = offset_from_segment(vectors([5, 2, 5]), *ramp)
    assert (x.item(), y.item(), z.item()) == (0, 2, 3)
    assert weighted_square((x, y, z)).item() == 2**2 + (3 * 3) ** 2


# A road edge that runs east to the origin and then turns. Left of it is the road.
@pytest.mark.parametrize(
    ("turn", "point", "side"),
    [
        # Turns left (north). Beyond the corner everything is off the road.
        ([0, 5, 0], [-1.0, 1.0, 0.0], -1),
        ([0, 5, 0], [1.0, -1.0, 0.0], 1),
        ([0, 5, 0], [2.0, -0.1, 0.0], 1),
        ([0, 5, 0], [0.1, -2.0, 0.0], 1),
        # Turns right (south). Beyond the corner everything is on the road.
        ([0, -5, 0], [-1.0, -1.0, 0.0], 1),
        ([0, -5, 0], [2.0, 0.1, 0.0], -1),
        ([0, -5, 0], [0.1, 2.0, 0.0], -1),
        # Turns back sharply to the left: the north-west is road, the tip is not.
        ([-5, 1, 0], [1.0, 0.1, 0.0], 1),
        ([-5, 1, 0], [1.0, -0.1, 0.0], 1),
        ([-5, 1, 0], [-4.0, 0.1, 0.0], -1),
        # Turns back sharply to the right: around the tip lies the road.
        ([-5, -1, 0], [1.0, 0.1, 0.0], -1),
        ([-5, -1, 0], [1.0, -0.1, 0.0], -1),
        ([-5, -1, 0], [-4.0, -0.1, 0.0], 1),
        # Straight on.
        ([5, 0, 0], [0.0, 1.0, 0.0], -1),
        ([5, 0, 0], [0.0, -1.0, 0.0], 1),
        ([5, 0, 0], [0.0, 0.0, 0.0], 0),
    ],
)
def test_the_side_is_right_at_a_vertex(turn: list[float], point: list[float], side: int) -> None:
    """Whichever of the two segments is taken for the nearest one."""
    east = vectors([-5, 0, 0, 5, 0, 0])
    after = vectors([0, 0, 0, *turn])
    where = vectors(point)
    squares = [
        weighted_square(offset_from_segment(where, segment[:3], segment[3:])).item()
        for segment in (east, after)
    ]
    if squares[0] <= squares[1]:
        assert side_of_polyline(where, east, east, after).item() == side
    if squares[1] <= squares[0]:
        assert side_of_polyline(where, after, east, after).item() == side


def test_beyond_an_open_end_the_last_segment_decides() -> None:
    east = vectors([-5, 0, 0, 5, 0, 0])
    for y in (-1.0, 1.0):
        assert side_of_polyline(vectors([3, y, 0]), east, east, east).item() == -y
        assert side_of_polyline(vectors([-9, y, 0]), east, east, east).item() == -y


def test_a_segment_without_length_is_where_it_starts_and_has_no_sides() -> None:
    point, start, step = vectors([3, 4, 5]), vectors([1, 1, 1]), vectors([0, 0, 2])
    assert fraction_along((point - start).unbind(0), step.unbind(0)).item() == 0
    offset = offset_from_segment(point, start, step)
    assert [coordinate.item() for coordinate in offset] == [2, 3, 4]
    assert side(point, start, step).item() == 0


@pytest.mark.parametrize(("end_is_beyond", "expected"), [(False, 1), (True, -1)])
def test_the_end_of_a_segment_may_count_as_beyond_it(end_is_beyond: bool, expected: int) -> None:
    """Beside the tip of a sharp turn to the right, where the road lies all around."""
    east = vectors([-5, 0, 0, 5, 0, 0])
    back = vectors([0, 0, 0, -5, -1, 0])
    where = vectors([0, -1, 0])
    found = side_of_polyline(where, east, east, back, end_is_beyond=end_is_beyond)
    assert found.item() == expected
