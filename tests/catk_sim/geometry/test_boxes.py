import math

import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.geometry import boxes, se2
from catk_sim.geometry.boxes import box_corners, boxes_overlap, has_overlap


def random_boxes(seed: int, num: int, extent: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    xy = extent * torch.rand(num, 2, generator=generator, dtype=torch.float64)
    heading = 20 * torch.rand(num, generator=generator, dtype=torch.float64) - 10
    # From needles of a centimetre to trucks.
    size = 10 ** (3 * torch.rand(num, 3, generator=generator, dtype=torch.float64) - 2)
    return xy, heading, size


def polygons(xy: Tensor, heading: Tensor, size: Tensor) -> list[shapely.Polygon]:
    return [shapely.Polygon(corners) for corners in box_corners(xy, heading, size).tolist()]


def test_corners_go_clockwise_from_the_left_front() -> None:
    """A car of 4 m x 2 m at (10, 5) that heads north."""
    corners = box_corners(
        torch.tensor([10.0, 5.0]), torch.tensor(math.pi / 2), torch.tensor([4.0, 2.0, 1.5])
    )
    expected = torch.tensor([[9.0, 7.0], [11.0, 7.0], [11.0, 3.0], [9.0, 3.0]])
    torch.testing.assert_close(corners, expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_boxes_overlap_exactly_where_shapely_says(seed: int) -> None:
    one, other = random_boxes(seed, 5000, 6.0), random_boxes(seed + 10, 5000, 6.0)
    expected = shapely.intersects(polygons(*one), polygons(*other))
    assert 0.1 < expected.mean() < 0.9
    assert boxes_overlap(*one, *other).tolist() == expected.tolist()


def test_a_box_within_another_overlaps_it() -> None:
    xy, heading = torch.zeros(2), torch.tensor(0.3)
    big, small = torch.tensor([10.0, 5.0]), torch.tensor([0.1, 0.1])
    assert boxes_overlap(xy, heading, big, xy + 1, heading + 1, small)
    assert boxes_overlap(xy + 1, heading + 1, small, xy, heading, big)


@pytest.mark.parametrize("sides", ["ends", "flanks", "corners"])
def test_boxes_that_touch_do_not_overlap(sides: str) -> None:
    away = {"ends": [4.0, 0.5], "flanks": [1.0, 2.0], "corners": [4.0, 2.0]}[sides]
    xy, heading, size = torch.zeros(2), torch.tensor(0.0), torch.tensor([4.0, 2.0])
    assert not boxes_overlap(xy, heading, size, torch.tensor(away), heading, size)
    assert boxes_overlap(xy, heading, size, torch.tensor(away) * 0.999, heading, size)


@pytest.mark.parametrize("size", [[0.0, 2.0], [4.0, 0.0], [0.0, 0.0]])
def test_a_box_without_area_overlaps_nothing(size: list[float]) -> None:
    xy, heading, flat = torch.zeros(2), torch.tensor(0.0), torch.tensor(size)
    whole = torch.tensor([4.0, 2.0])
    assert not boxes_overlap(xy, heading, flat, xy, heading, whole)
    assert not boxes_overlap(xy, heading, whole, xy, heading, flat)


def all_pairs(xy: Tensor, heading: Tensor, size: Tensor, valid: Tensor) -> Tensor:
    """`has_overlap` without any cleverness."""
    num = len(valid)
    one, other = torch.cartesian_prod(torch.arange(num), torch.arange(num)).unbind(-1)
    hit = boxes_overlap(xy[one], heading[one], size[one], xy[other], heading[other], size[other])
    hit = hit & valid[one] & valid[other] & (one != other)
    return hit.reshape(num, num).any(dim=1)


@given(seed=st.integers(0, 2**31), origin=st.sampled_from([0.0, 1e4, 1e7]))
def test_culling_by_circles_changes_nothing(seed: int, origin: float) -> None:
    xy, heading, size = random_boxes(seed, 30, 25.0)
    # One agent a world away must not spoil the arithmetic of the others.
    xy = torch.cat([xy[:-1] + origin, xy[-1:] - 1e5]).float()
    valid = torch.rand(30, generator=torch.Generator().manual_seed(seed)) > 0.2
    args = (xy, heading.float(), size.float(), valid)
    assert has_overlap(*args).tolist() == all_pairs(*args).tolist()


def test_a_box_does_not_overlap_itself() -> None:
    one = torch.ones(1, dtype=torch.bool)
    assert not has_overlap(torch.zeros(1, 2), torch.zeros(1), torch.ones(1, 2), one).any()


def test_scenes_do_not_see_each_other() -> None:
    """The same place in two scenes is not a collision."""
    xy = torch.tensor([[[0.0, 0.0], [9.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    size = torch.tensor([4.0, 2.0]).expand(2, 2, 2)
    hit = has_overlap(xy, torch.zeros(2, 2), size, torch.ones(2, 2, dtype=torch.bool))
    assert hit.tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("pairs", [1, 900, 2000, 5000])
def test_bounding_the_memory_changes_nothing(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    xy, heading, size = random_boxes(3, 6 * 30, 25.0)
    args = (xy.reshape(2, 3, 30, 2), heading.reshape(2, 3, 30), size.reshape(2, 3, 30, 3))
    valid = torch.ones(2, 3, 30, dtype=torch.bool)
    whole = has_overlap(*args, valid)
    monkeypatch.setattr(boxes, "MAX_PAIRS", pairs)
    assert whole.any()
    assert torch.equal(has_overlap(*args, valid), whole)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0), (0,)])
def test_nothing_overlaps_in_an_empty_scene(shape: tuple[int, ...]) -> None:
    valid = torch.ones(shape, dtype=torch.bool)
    result = has_overlap(torch.zeros(*shape, 2), torch.zeros(shape), torch.ones(*shape, 3), valid)
    assert result.shape == shape


@given(seed=st.integers(0, 2**31), turn=st.floats(-10, 10))
def test_turning_and_moving_the_scene_changes_nothing(seed: int, turn: float) -> None:
    xy, heading, size = random_boxes(seed, 20, 25.0)
    valid = torch.ones(20, dtype=torch.bool)
    moved = se2.rotate(xy, torch.tensor(turn, dtype=torch.float64)) + 100
    still = has_overlap(xy, heading, size, valid)
    assert has_overlap(moved, heading + turn, size, valid).tolist() == still.tolist()
