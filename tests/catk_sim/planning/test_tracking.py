import math
from collections.abc import Callable

import numpy as np
import pytest

from catk_sim.constants import STEP_SECONDS
from catk_sim.planning.planner import Controls, EgoHistory
from catk_sim.planning.tracking import (
    LOOKAHEAD,
    Exact,
    KinematicBicycle,
    Tracker,
    bicycle_step,
    brake,
)

Drive = Callable[[float], tuple[float, float, float]]
"""Pose (x, y, heading) at a time (s)."""


def history(
    *, xy: tuple[float, float] = (0.0, 0.0), heading: float = 0.0, speed: float = 10.0
) -> EgoHistory:
    direction = np.array([math.cos(heading), math.sin(heading)])
    step = np.arange(-2, 1)[:, None] * STEP_SECONDS
    return EgoHistory(
        xy=np.array(xy) + step * speed * direction,
        heading=np.full(3, heading),
        velocity=np.tile(speed * direction, (3, 1)),
    )


def plan_of(drive: Drive, start: int, length: int = 40) -> np.ndarray:
    times = (np.arange(length) + start + 1) * STEP_SECONDS
    return np.array([drive(time) for time in times], dtype=float)


def follow(
    tracker: Tracker, drive: Drive, ego: EgoHistory, num_steps: int, length: int = 40
) -> tuple[EgoHistory, np.ndarray]:
    """Returns where the ego went, and how far off the drive it was (m)."""
    errors = []
    for step in range(num_steps):
        plan = plan_of(drive, step, length)
        state = tracker.track(ego, plan)
        errors.append(np.hypot(*(state.xy - plan[0, :2])))
        ego = EgoHistory(
            xy=np.vstack([ego.xy, state.xy]),
            heading=np.append(ego.heading, state.heading),
            velocity=np.vstack([ego.velocity, state.velocity]),
        )
    return ego, np.array(errors)


def circle(radius: float, speed: float) -> Drive:
    def drive(time: float) -> tuple[float, float, float]:
        angle = speed * time / radius
        return radius * math.sin(angle), radius * (1 - math.cos(angle)), angle

    return drive


def slalom(time: float) -> tuple[float, float, float]:
    x = 10 * time
    return x, 2 * math.sin(x / 10) - x / 5, math.atan(0.2 * math.cos(x / 10) - 0.2)


def stop(time: float) -> tuple[float, float, float]:
    time = min(time, 10 / 3)
    return 10 * time - 1.5 * time**2, 0.0, 0.0


def test_exactly_is_at_the_first_pose_with_the_velocity_that_led_there() -> None:
    state = Exact().track(history(xy=(1, 2)), np.array([[50.0, 2.0, 0.5], [51.0, 2.0, 0.0]]))
    assert state.xy.tolist() == [50, 2]
    assert state.heading == 0.5
    np.testing.assert_allclose(state.velocity, [490, 0])


def test_exactly_has_the_velocity_that_the_plan_tells() -> None:
    state = Exact().track(history(), np.array([[1.0, 0.0, 0.0, 7.0, -8.0]]))
    assert state.velocity.tolist() == [7, -8]


@pytest.mark.parametrize("length", [2, 5, 40])
@pytest.mark.parametrize(
    ("drive", "most"),
    # The ego comes straight: on the circle it must first turn in, at 0.3 1/(m s).
    [(circle(20, 8), 0.07), (slalom, 0.05), (stop, 0.05)],
)
def test_the_bicycle_follows_what_can_be_driven_to_a_few_centimetres(
    drive: Drive, most: float, length: int
) -> None:
    start = history(speed=8 if most == 0.07 else 10)
    _, errors = follow(KinematicBicycle(), drive, start, 80, length)
    assert errors.max() < most
    assert errors[-1] < 0.02


def test_the_bicycle_comes_back_to_a_plan_that_it_is_beside() -> None:
    ego, errors = follow(
        KinematicBicycle(), lambda time: (10 * time, 0, 0), history(xy=(-2, 1.5), speed=7), 60
    )
    assert errors[-1] < 0.01
    # Nor does it swing beyond.
    assert ego.xy[:, 1].min() > -0.3


def test_the_bicycle_comes_back_from_far_away() -> None:
    ego = history(xy=(0, 5), heading=0.5)
    ego, errors = follow(KinematicBicycle(), lambda time: (10 * time, 0, 0), ego, 100)
    assert errors[-1] < 0.05
    assert ego.xy[:, 1].min() > -2


def test_the_bicycle_follows_in_reverse() -> None:
    _, errors = follow(KinematicBicycle(), lambda time: (-2 * time, 0, 0), history(speed=0), 50)
    assert errors[-1] < 1e-3


def test_the_bicycle_stands_still_if_the_plan_does() -> None:
    ego, _ = follow(KinematicBicycle(), lambda time: (0, 0, 0), history(speed=0), 20)
    assert np.abs(ego.xy[3:]).max() == 0
    assert np.abs(ego.heading).max() == 0


@pytest.mark.parametrize(
    "drive",
    [
        lambda time: (100 * time, 50.0, 1.5),
        lambda time: (-50.0, 30 * math.sin(9 * time), -3.0),
        circle(3, 12),
        lambda time: (1000.0 * (time > 0.5), 0.0, 3.1 * time),
    ],
)
def test_no_plan_leads_the_bicycle_beyond_its_limits(drive: Drive) -> None:
    bicycle = KinematicBicycle()
    ego, _ = follow(bicycle, drive, history(speed=12), 60)
    ahead = np.stack([np.cos(ego.heading), np.sin(ego.heading)], axis=-1)
    speed = (ego.velocity * ahead).sum(axis=-1)
    acceleration = np.diff(speed) / STEP_SECONDS
    distance = (speed[1:] + speed[:-1]) / 2 * STEP_SECONDS
    turn = (np.diff(ego.heading) + math.pi) % (2 * math.pi) - math.pi
    moves = np.abs(distance) > 0.05
    curvature = np.where(moves, turn / np.where(moves, distance, 1), 0)
    slack = 1e-6
    assert acceleration.max() <= bicycle.max_acceleration + slack
    assert acceleration.min() >= -bicycle.max_deceleration - slack
    jerk = np.diff(acceleration) / STEP_SECONDS
    assert np.abs(jerk).max() <= bicycle.max_jerk + slack
    assert np.abs(curvature).max() <= bicycle.max_curvature + slack
    assert np.abs(curvature * speed[:-1] ** 2).max() <= bicycle.max_lateral_acceleration + slack
    # And these plans are such that it gets there.
    assert max(acceleration.max() / 4, -acceleration.min() / 8) > 0.99


def test_the_bicycle_turns_its_wheel_no_faster_than_it_may() -> None:
    bicycle = KinematicBicycle()
    ego, _ = follow(bicycle, circle(6, 5), history(speed=5), 4)
    distance = np.hypot(*np.diff(ego.xy, axis=0).T)
    curvature = np.diff(ego.heading) / distance
    rate = np.diff(curvature)[2:] / STEP_SECONDS
    np.testing.assert_allclose(rate[:3], bicycle.max_curvature_rate, rtol=0.02)


def test_a_single_pose_is_followed_less_well() -> None:
    _, errors = follow(KinematicBicycle(), circle(20, 8), history(speed=8), 80, length=1)
    assert 0.1 < errors.max() < 0.5


def test_a_plan_beyond_the_look_ahead_changes_nothing() -> None:
    plan = plan_of(slalom, 0)
    other = plan.copy()
    other[LOOKAHEAD:] = 77.0
    one, two = (KinematicBicycle().track(history(), each) for each in (plan, other))
    assert one.xy.tolist() == two.xy.tolist()


def test_controls_are_driven_exactly_and_within_limits() -> None:
    hard = Controls(acceleration=-50.0, curvature=1.0)
    exact = Exact().track(history(), hard)
    np.testing.assert_allclose(np.hypot(*exact.velocity), 5)
    limited = KinematicBicycle().track(history(), hard)
    # Jerk: 30 m/s^3 for 0.1 s, from no acceleration at all.
    np.testing.assert_allclose(np.hypot(*limited.velocity), 10 - 0.3)


def test_a_step_of_the_bicycle_is_an_arc() -> None:
    state = bicycle_step(
        Exact().track(history(), np.array([[0.0, 0.0, 0.0, 10.0, 0.0]])),
        Controls(acceleration=0.0, curvature=0.5),
    )
    # A metre of a circle of radius 2 m.
    np.testing.assert_allclose(state.xy, [2 * math.sin(0.5), 2 * (1 - math.cos(0.5))])
    assert state.heading == pytest.approx(0.5)
    np.testing.assert_allclose(state.velocity, [10 * math.cos(0.5), 10 * math.sin(0.5)])


def test_braking_ends_at_a_standstill() -> None:
    ego = history(heading=0.5, speed=1.0)
    first = brake(ego, 4.0)
    np.testing.assert_allclose(np.hypot(*first.velocity), 0.6)
    assert first.heading == pytest.approx(0.5)
    slow = brake(history(heading=0.5, speed=0.3), 4.0)
    np.testing.assert_allclose(slow.velocity, 0, atol=1e-12)
    # A reversing car stops, too.
    np.testing.assert_allclose(brake(history(speed=-1.0), 4.0).velocity, [-0.6, 0])


@pytest.mark.parametrize("limit", ["max_acceleration", "max_jerk", "max_curvature_rate"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_limits_must_be_limits(limit: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be above 0 and finite"):
        KinematicBicycle(**{limit: value})
