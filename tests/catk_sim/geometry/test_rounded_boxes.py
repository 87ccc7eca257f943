import math

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.geometry.boxes import box_corners
from catk_sim.geometry.rounded_boxes import distance_radii, rounded_box_distance
from tests.catk_sim.geometry.rounded_boxes_reference import crowd, reference_distance

ROUNDINGS = pytest.mark.parametrize("rounding", [0.0, 0.7])


def box(x: float, y: float, heading: float, length: float, width: float) -> Tensor:
    return torch.tensor([x, y, heading, length, width])


def all_pairs(boxes: Tensor) -> tuple[Tensor, Tensor]:
    num = boxes.shape[1]
    one, other = torch.cartesian_prod(torch.arange(num), torch.arange(num)).unbind(-1)
    return boxes[:, one], boxes[:, other]


CAR = box(0.0, 0.0, 0.0, 4.0, 2.0)


@pytest.mark.parametrize(
    ("other", "sharp", "rounded"),
    [
        # Nose to tail, side by side, and a T: sharp sides face each other.
        (box(10.0, 0.0, math.pi, 4.0, 2.0), 6.0, 6.0),
        (box(1.0, 5.0, 0.0, 4.0, 2.0), 3.0, 3.0),
        (box(5.0, 0.0, math.pi / 2, 4.0, 2.0), 2.0, 2.0),
        # Corner to corner: 3 m and 4 m apart. The corners of the cores are 0.7 m further in.
        (box(7.0, 6.0, 0.0, 4.0, 2.0), 5.0, math.hypot(4.4, 5.4) - 1.4),
        # 0.5 m into each other, by the side; then wholly, which ends fastest sidewards.
        (box(0.0, 1.5, 0.0, 4.0, 2.0), -0.5, -0.5),
        (CAR, -2.0, -2.0),
        # A pedestrian within, 0.2 m from the side.
        (box(0.3, 0.5, 0.0, 0.6, 0.6), -0.8, -0.8),
    ],
)
def test_distances_by_hand(other: Tensor, sharp: float, rounded: float) -> None:
    for rounding, expected in ((0.0, sharp), (0.7, rounded)):
        distance = rounded_box_distance(CAR, other, rounding=rounding)
        assert distance.item() == pytest.approx(expected, abs=1e-5)


@ROUNDINGS
@pytest.mark.parametrize("origin", [0.0, 1e4, 5e4])
def test_every_figure_is_that_of_plain_float32_steps(rounding: float, origin: float) -> None:
    one, other = all_pairs(crowd(0, 40, extent=12.0, origin=origin))
    distance = rounded_box_distance(one, other, rounding=rounding)
    expected = [reference_distance(*pair, rounding) for pair in zip(one.T, other.T, strict=True)]
    assert distance.tolist() == expected
    assert 0.1 < (distance < 0).float().mean() < 0.9


def test_sines_are_rounded_from_float64() -> None:
    """Boxes at the origin, where every bit of a sine shows, and a point."""
    heading = torch.linspace(-20, 20, 400)
    ones = torch.ones_like(heading)
    one = torch.stack([0 * ones, 0 * ones, heading, 4 * ones, 2 * ones])
    other = box(0.3, 0.2, 0.0, 0.0, 0.0)[:, None].expand_as(one)
    distance = rounded_box_distance(one, other, rounding=0.0)
    expected = [reference_distance(*pair, 0.0) for pair in zip(one.T, other.T, strict=True)]
    assert distance.tolist() == expected


@pytest.mark.parametrize("seed", [0, 1])
@ROUNDINGS
def test_gaps_and_depths_are_those_of_shapely(seed: int, rounding: float) -> None:
    """Where boxes overlap, shapely measures how deep the origin lies in the sum of the cores."""
    boxes = crowd(seed, 60, extent=10.0, dtype=torch.float64)
    boxes = boxes[:, boxes[3:].amin(dim=0) > 0.01]
    one, other = all_pairs(boxes)
    size = boxes[3:].T
    radius = rounding * size.amin(dim=1) / 2
    corners = box_corners(boxes[:2].T, boxes[2], size - 2 * radius[:, None])
    cores = np.asarray(shapely.polygons(corners.numpy()))
    num = len(radius)
    apart = torch.as_tensor(shapely.distance(cores[:, None], cores)).flatten()
    sums = (corners[:, None, :, None] - corners[None, :, None, :]).reshape(num * num, 16, 2)
    hulls = shapely.convex_hull(shapely.multipoints(sums.numpy()))
    depth = shapely.distance(shapely.boundary(hulls), shapely.Point(0, 0))
    expected = torch.where(apart > 0, apart, -torch.as_tensor(depth))
    expected = (expected.reshape(num, num) - radius - radius[:, None]).flatten()
    distance = rounded_box_distance(one, other, rounding=rounding)
    # Boxes that touch may count as apart, which changes nothing.
    torch.testing.assert_close(distance, expected, atol=1e-9, rtol=0)
    assert 0.1 < (distance < 0).double().mean() < 0.9


def test_a_rounded_box_is_a_box_with_its_corners_worn_off() -> None:
    """Shapely opens the sharp boxes with a disc. It makes arcs of short chords."""
    boxes = crowd(3, 50, extent=30.0, dtype=torch.float64)
    boxes = boxes[:, boxes[3:].amin(dim=0) > 0.01]
    sharp = shapely.polygons(box_corners(boxes[:2].T, boxes[2], boxes[3:].T).numpy())
    radius = (0.7 * boxes[3:].amin(dim=0) / 2).numpy()
    cores = shapely.buffer(sharp, -radius, join_style="mitre")
    worn = np.asarray(shapely.buffer(cores, radius, quad_segs=64))
    one, other = all_pairs(boxes)
    distance = rounded_box_distance(one, other, rounding=0.7)
    expected = torch.as_tensor(shapely.distance(worn[:, None], worn)).flatten()
    torch.testing.assert_close(distance.clamp(min=0), expected, atol=1e-3, rtol=0)


@ROUNDINGS
def test_a_box_without_area_is_a_point_that_never_overlaps(rounding: float) -> None:
    point = box(0.5, 0.0, 0.3, 0.0, 0.0)
    outside = rounded_box_distance(box(4.5, 0.0, 0.0, 4.0, 2.0), point, rounding=rounding)
    assert outside.item() == pytest.approx(2.0, abs=1e-6)
    inside = rounded_box_distance(CAR, point, rounding=rounding)
    assert inside.item() == pytest.approx(1 - 2 * 0.5 * rounding * 2, abs=1e-6)
    assert rounded_box_distance(point, point, rounding=rounding).item() == 0


@ROUNDINGS
@given(
    seed=st.integers(0, 2**31),
    origin=st.sampled_from([0.0, 8e3, 5e4, 1e6]),
    extent=st.sampled_from([0.0, 1.0, 8.0, 100.0]),
)
def test_distances_lie_within_the_bounds(
    rounding: float, seed: int, origin: float, extent: float
) -> None:
    boxes = crowd(seed, 24, extent=extent, origin=origin)
    one, other = all_pairs(boxes)
    distance = rounded_box_distance(one, other, rounding=rounding)
    centers = (one[:2] - other[:2]).norm(dim=0)
    inner, outer = distance_radii(boxes, rounding=rounding)
    both_outer = (outer[:, None] + outer).flatten()
    both_inner = (inner[:, None] + inner).flatten()
    assert (distance >= centers - both_outer).all()
    assert (distance <= centers - both_inner).all()


def test_the_bounds_are_close_where_float32_is_fine() -> None:
    """They must still tell neighbours apart at WOMD's distance from the origin."""
    inner, outer = distance_radii(box(-8e3, 7e3, 0.0, 4.5, 2.0)[:, None], rounding=0.7)
    assert inner.item() == pytest.approx(1.0, abs=0.15)
    assert outer.item() == pytest.approx(0.7 + math.hypot(0.3, 1.55), abs=0.02)


@pytest.mark.parametrize("moved", [(1000.0, -3000.0), (7.0, 11.0)])
def test_moving_and_turning_both_boxes_changes_nothing(moved: tuple[float, float]) -> None:
    boxes = crowd(5, 30, extent=12.0, dtype=torch.float64)
    expected = rounded_box_distance(*all_pairs(boxes), rounding=0.7)
    x, y, heading, length, width = boxes
    cos, sin = math.cos(0.8), math.sin(0.8)
    turned = torch.stack(
        [cos * x - sin * y + moved[0], sin * x + cos * y + moved[1], heading + 0.8, length, width]
    )
    whole = (boxes[3:].amin(dim=0) > 0.01) | (boxes[3:] == 0).all(dim=0)
    both = (whole[:, None] & whole).flatten()
    found = rounded_box_distance(*all_pairs(turned), rounding=0.7)
    torch.testing.assert_close(found[both], expected[both], atol=1e-9, rtol=0)


def test_what_is_measured_beside_it_does_not_change_a_figure() -> None:
    """Vectorised arithmetic may treat the last few numbers of a tensor differently."""
    one, other = all_pairs(crowd(6, 20, extent=12.0, origin=8e3))
    whole = rounded_box_distance(one, other, rounding=0.7)
    for size in (1, 3, 17):
        parts = zip(one.split(size, dim=1), other.split(size, dim=1), strict=True)
        assert torch.cat([rounded_box_distance(*part, rounding=0.7) for part in parts]).equal(whole)
