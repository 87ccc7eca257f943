"""Time to collision: by hand, against a plain loop, and that of the Sim Agents challenge."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.kinematics import Differences, planar_speed
from catk_sim.metrics.time_to_collision import time_to_collision
from tests.catk_sim.metrics.test_kinematics import (
    CASES,
    GENERATION_CASES,
    boxes_of,
    golden_agents,
    golden_boxes,
    golden_features,
)

FIRST = torch.tensor([0])


def column(*values: float) -> Tensor:
    """What each agent has at the only step."""
    return torch.tensor(values, dtype=torch.float32)[:, None]


def car_behind_car(
    gap: float = 10.0, *, left: float = 0.0, turned: float = 0.0, start: float = 0.0
) -> BoxTrajectory:
    """Two cars of 4 m x 2 m.

    [A>]  gap  [B>]     B may stand `left` of A's line and be `turned`; both start at `start`.
    """
    return boxes_of(column(start, start + 4 + gap), y=column(0, left), heading=column(0, turned))


def first_time(boxes: BoxTrajectory, *speed: float) -> float:
    """The first agent's time to collision."""
    return time_to_collision(boxes, column(*speed), FIRST).item()


@pytest.mark.parametrize(
    ("case", "differences"),
    [
        *[(case, Differences.CENTRAL) for case in (*CASES, *GENERATION_CASES)],
        *[(case, Differences.BACKWARD) for case in CASES],
    ],
)
def test_times_are_those_of_the_challenge(case: str, differences: Differences) -> None:
    expected = torch.from_numpy(golden_features(case, differences)["time_to_collision"])
    boxes = golden_boxes(case)
    if case in GENERATION_CASES:
        boxes = boxes.replace(valid=torch.ones_like(boxes.valid))
    steps = boxes.valid.shape[-1] - expected.shape[-1]
    speed = planar_speed(boxes, differences=differences)[..., steps:]
    found = time_to_collision(boxes.slice(steps), speed, golden_agents(case))
    assert (expected < 5).any()
    # The cosine and sine of the other library.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_car_hits_the_slower_one_ahead_when_it_has_closed_the_gap() -> None:
    assert first_time(car_behind_car(gap=10), 8, 3) == pytest.approx(2.0)


def test_no_time_is_longer_than_five_seconds() -> None:
    assert first_time(car_behind_car(gap=10), 4, 3) == 5.0


@pytest.mark.parametrize("ahead", [8.0, 9.0, math.nan])
def test_a_car_that_is_not_slower_is_never_hit(ahead: float) -> None:
    assert first_time(car_behind_car(gap=10), 8, ahead) == 5.0


def test_a_car_of_unknown_speed_hits_nobody() -> None:
    assert first_time(car_behind_car(gap=10), math.nan, 3) == 5.0


@pytest.mark.parametrize("gap", [-0.01, -2.0, -18.0])
def test_nobody_follows_whom_it_touches_or_who_is_behind(gap: float) -> None:
    assert first_time(car_behind_car(gap=gap), 8, 3) == 5.0


@pytest.mark.parametrize(
    ("left", "turned", "is_followed"),
    [
        (0.0, 74, True),
        (0.0, -74, True),
        (0.0, 76, False),
        (0.0, 180, False),
        (1.99, 0, True),
        (-1.99, 0, True),
        (2.01, 0, False),
        (-2.01, 0, False),
        # Turned by 9 degrees, a car reaches 1.30 m to each side, by 11 degrees 1.36 m.
        (2.29, -9, True),
        (2.31, -9, False),
        (1.85, 11, True),
        (1.88, 11, False),
        (-1.88, 11, False),
    ],
)
def test_whom_a_car_follows(left: float, turned: float, is_followed: bool) -> None:
    boxes = car_behind_car(left=left, turned=math.radians(turned))
    assert (first_time(boxes, 100, 0) < 5) == is_followed


def test_a_box_that_is_wider_than_long_is_followed_along_all_its_width() -> None:
    boxes = car_behind_car(left=2.9)
    wide = boxes.replace(length=column(4, 1), width=column(2, 4))
    assert first_time(wide, 10, 0) == pytest.approx((10 + 2 - 0.5) / 10)


def test_a_turned_box_is_nearer_with_its_corner() -> None:
    """At 60 degrees a box of 4 m x 2 m reaches back 2 cos 60 + 1 sin 60 = 1.87 m instead of 2 m."""
    boxes = car_behind_car(gap=10, turned=math.radians(60))
    assert first_time(boxes, 5, 0) == pytest.approx((10 + 2 - 1 - math.sqrt(3) / 2) / 5)


def test_a_car_that_has_turned_full_circle_follows_nobody() -> None:
    """Headings are taken as they are."""
    assert first_time(car_behind_car(turned=2 * math.pi), 8, 3) == 5.0


def test_an_absent_car_is_not_followed_but_may_follow() -> None:
    boxes = car_behind_car(gap=10)
    absent = boxes.valid.clone()
    absent[1] = False
    assert first_time(boxes.replace(valid=absent), 8, 3) == 5.0
    assert first_time(boxes.replace(valid=~absent | absent.flip(0)), 8, 3) == pytest.approx(2.0)


def test_the_nearest_car_counts_and_not_the_one_that_would_be_hit_first() -> None:
    """A follows B, which drives away. C stands behind B."""
    boxes = boxes_of(column(0, 30, 14))
    assert first_time(boxes, 8, 0, 7) == 5.0
    assert first_time(boxes, 8, 7, 0) == pytest.approx(10 / 8)


def test_of_two_equally_near_cars_the_first_counts() -> None:
    boxes = boxes_of(column(0, 14, 14))
    assert first_time(boxes, 8, 3, 0) == pytest.approx(2.0)
    assert first_time(boxes, 8, 0, 3) == pytest.approx(10 / 8)


def test_speed_and_place_are_those_of_the_same_step() -> None:
    boxes = boxes_of(torch.tensor([[0.0, 0.0, 0.0], [14.0, 9.0, 14.0]]))
    speed = torch.tensor([[10.0, 10.0, 10.0], [0.0, 0.0, 6.0]])
    found = time_to_collision(boxes, speed, FIRST)
    assert found[0].tolist() == pytest.approx([1.0, 0.5, 2.5])


def plain_times(boxes: BoxTrajectory, speed: Tensor, evaluated: Tensor) -> Tensor:
    """The definition, one pair after the other, in float32."""
    f = np.float32
    x, y, heading, length, width = (
        getattr(boxes, name).numpy() for name in ("x", "y", "heading", "length", "width")
    )
    valid, speeds = boxes.valid.numpy(), speed.numpy()
    times = np.full((len(evaluated), x.shape[1]), 5, f)
    for row, a in enumerate(evaluated.tolist()):
        for t in range(x.shape[1]):
            nearest, hit = f(np.inf), -1
            for b in range(len(x)):
                cos, sin = np.cos(-heading[a, t]), np.sin(-heading[a, t])
                dx, dy = x[b, t] - x[a, t], y[b, t] - y[a, t]
                turn = np.abs(heading[b, t] - heading[a, t])
                cs, sn = np.abs(np.cos(turn)), np.abs(np.sin(turn))
                long, wide = length[b, t] / f(2), width[b, t] / f(2)
                gap = cos * dx - sin * dy - length[a, t] / f(2) - (long * cs + wide * sn)
                side = np.abs(sin * dx + cos * dy) - width[a, t] / f(2) - (long * sn + wide * cs)
                followed = gap > 0 and side < 0 and turn <= f(math.radians(75)) and valid[b, t]
                followed = followed and (side < f(-0.5) or turn <= f(math.radians(10)))
                if followed and gap < nearest:
                    nearest, hit = gap, b
            if hit >= 0 and speeds[a, t] > speeds[hit, t]:
                times[row, t] = min(nearest / (speeds[a, t] - speeds[hit, t]), f(5))
    return torch.from_numpy(times)


def traffic(seed: int, *batch: int, num_agents: int = 7, num_steps: int = 5) -> BoxTrajectory:
    """Boxes kilometres from the origin, some absent, on lanes and turned at random.

    Every other scene is on a grid, so that what is compared is often equal.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, num_agents, num_steps)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    x, y = 7000 + uniform(0, 60), -8000 + uniform(0, 8)
    length, width = uniform(0.5, 6), uniform(0.5, 3)
    heading = uniform(-0.25, 0.25) + math.pi / 2 * uniform(-0.7, 0.7).round()
    if seed % 2:
        x, y, length, width = (2 * x).round() / 2, y.round(), length.round(), width.round()
        heading = math.pi / 2 * uniform(-0.7, 0.7).round()
    valid = uniform(0, 1) > 0.1
    return boxes_of(x, y=y, heading=heading).replace(length=length, width=width, valid=valid)


def speeds(seed: int, boxes: BoxTrajectory) -> Tensor:
    """Speeds of up to 30 m/s, some of them unknown."""
    generator = torch.Generator().manual_seed(seed + 1)  # not the numbers that place the boxes
    speed = 30 * torch.rand(boxes.x.shape, generator=generator)
    return torch.where(torch.rand(boxes.x.shape, generator=generator) < 0.05, torch.nan, speed)


@given(seed=st.integers(0, 2**31))
def test_times_are_those_of_a_plain_loop(seed: int) -> None:
    boxes, evaluated = traffic(seed), torch.tensor([4, 0, 2])
    speed = speeds(seed, boxes)
    found = time_to_collision(boxes, speed, evaluated)
    expected = plain_times(boxes, speed, evaluated)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_random_traffic_has_many_that_follow() -> None:
    boxes = traffic(8, 50)
    found = time_to_collision(boxes, speeds(8, boxes), torch.arange(7).repeat(50, 1))
    assert (found < 5).float().mean() > 0.05


@given(seed=st.integers(0, 2**31))
def test_permuting_the_agents_permutes_the_times(seed: int) -> None:
    boxes, everyone = traffic(2 * (seed // 2)), torch.arange(7)
    speed = speeds(seed, boxes)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    permuted = time_to_collision(boxes.map(lambda tensor: tensor[order]), speed[order], everyone)
    assert permuted.equal(time_to_collision(boxes, speed, order))


@given(seed=st.integers(0, 2**31))
def test_rollouts_and_scenes_do_not_see_each_other(seed: int) -> None:
    boxes = traffic(seed, 3, 2)
    speed = speeds(seed, boxes)
    evaluated = torch.tensor([[0, 3], [5, 5]])
    together = time_to_collision(boxes, speed, evaluated)
    for rollout in range(3):
        for scene in range(2):
            one = boxes.select(rollout).select(scene)
            alone = time_to_collision(one, speed[rollout, scene], evaluated[scene])
            assert together[rollout, scene].equal(alone)


@given(seed=st.integers(0, 2**31))
def test_moving_the_scene_changes_no_time(seed: int) -> None:
    boxes = traffic(2 * (seed // 2) + 1)
    # On a grid of half metres, whole metres are added without rounding.
    moved = boxes.replace(x=boxes.x - 7123, y=boxes.y + 456)
    speed, everyone = speeds(seed, boxes), torch.arange(7)
    found = time_to_collision(moved, speed, everyone)
    assert found.equal(time_to_collision(boxes, speed, everyone))
