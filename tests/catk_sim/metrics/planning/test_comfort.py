import math

import pytest
import torch
from torch import Tensor

from catk_sim.datatypes import TensorTree
from catk_sim.metrics.planning.comfort import Comfort, comfort
from tests.catk_sim.metrics.planning.drives import SECONDS


def along_x(x: Tensor, heading: float = 0.0) -> Comfort:
    """How comfortable it is to be that far along a heading."""
    xy = x[:, None] * torch.tensor([math.cos(heading), math.sin(heading)])
    return comfort(xy, torch.full_like(x, heading), torch.ones_like(x, dtype=torch.bool))


def turning(angle: Tensor) -> Comfort:
    xy = torch.zeros(len(angle), 2)
    return comfort(xy, angle, torch.ones(len(angle), dtype=torch.bool))


def extremes(found: TensorTree) -> dict[str, float]:
    return {name: float(value) for name, value in vars(found).items()}


@pytest.mark.parametrize("heading", [0.0, 2.0, -3.0])
def test_a_steady_drive_has_no_acceleration(heading: float) -> None:
    found = along_x(12 * SECONDS, heading)
    assert extremes(found) == pytest.approx(dict.fromkeys(extremes(found), 0.0), abs=1e-3)
    assert found.score == 1


@pytest.mark.parametrize(("acceleration", "score"), [(2.35, 1), (2.45, 0), (-4.0, 1), (-4.1, 0)])
def test_speeding_up_and_braking_have_bounds(acceleration: float, score: float) -> None:
    """In any direction of travel."""
    found = along_x(20 * SECONDS + acceleration * SECONDS**2 / 2, heading=2.5)
    assert found.min_longitudinal_acceleration == pytest.approx(acceleration, abs=1e-3)
    assert found.max_longitudinal_acceleration == pytest.approx(acceleration, abs=1e-3)
    assert found.lateral_acceleration == pytest.approx(0, abs=1e-3)
    assert found.score == score


@pytest.mark.parametrize(("jerk", "score"), [(-4.1, 1), (-4.15, 0)])
def test_longitudinal_jerk_has_a_bound(jerk: float, score: float) -> None:
    """For two seconds, lest the acceleration leave its own bounds."""
    x = (jerk * (SECONDS - 0.5) ** 3 / 6)[:21]
    found = along_x(x)
    assert found.longitudinal_jerk == pytest.approx(-jerk, abs=1e-3)
    assert found.jerk == pytest.approx(-jerk, abs=1e-3)
    assert found.score == score


@pytest.mark.parametrize(("jerk", "score"), [(8.3, 1), (8.4, 0)])
def test_jerk_has_a_bound_in_any_direction(jerk: float, score: float) -> None:
    """Sideways, for half a second: the acceleration leaves its bound at 4.89."""
    y = (jerk * SECONDS**3 / 6)[:16]
    xy = torch.stack([torch.zeros_like(y), y], dim=-1)
    found = comfort(xy, torch.zeros_like(y), torch.ones_like(y, dtype=torch.bool))
    assert found.jerk == pytest.approx(jerk, abs=1e-3)
    assert found.longitudinal_jerk == pytest.approx(0, abs=1e-3)
    assert found.lateral_acceleration == pytest.approx(jerk / 2, abs=1e-3)
    assert found.score == score


@pytest.mark.parametrize(("speed", "score"), [(9.0, 1), (11.0, 0)])
@pytest.mark.parametrize("side", [-1, 1])
def test_lateral_acceleration_has_a_bound(speed: float, score: float, side: int) -> None:
    """A circle of 20 m radius: 9 m/s make 4.05 m/s^2, and 11 make 6.05."""
    rate = side * speed / 20
    angle = rate * SECONDS
    xy = 20 * side * torch.stack([angle.sin(), 1 - angle.cos()], dim=-1)
    found = comfort(xy, angle, torch.ones_like(angle, dtype=torch.bool))
    assert found.lateral_acceleration == pytest.approx(
        speed**2 / 20,
        rel=0.07,  # A cubic is no circle, which tells at the last steps.
    )
    assert found.yaw_rate == pytest.approx(abs(rate), abs=1e-3)
    assert found.yaw_acceleration == pytest.approx(0, abs=1e-2)
    assert found.score == score


@pytest.mark.parametrize(("rate", "score"), [(0.94, 1), (-0.94, 1), (0.96, 0), (-0.96, 0)])
def test_turning_has_a_bound(rate: float, score: float) -> None:
    """Also where the heading starts again after half a turn."""
    angle = (rate * SECONDS + math.pi) % (2 * math.pi) - math.pi
    found = turning(angle)
    assert found.yaw_rate == pytest.approx(abs(rate), abs=1e-3)
    assert found.score == score


@pytest.mark.parametrize(("growth", "score"), [(1.9, 1), (-1.96, 0)])
def test_the_growth_of_turning_has_a_bound(growth: float, score: float) -> None:
    """About the middle of a short drive, lest the rate leave its own bound."""
    found = turning((growth * (SECONDS - 0.25) ** 2 / 2)[:16])
    assert found.yaw_acceleration == pytest.approx(abs(growth), abs=1e-3)
    assert found.yaw_rate < 0.95
    assert found.score == score


def test_a_jolt_in_the_middle_is_felt() -> None:
    x = 10 * SECONDS + torch.where(SECONDS > 4, 0.4, 0.0)
    assert along_x(x).score == 0


def test_a_jolt_in_the_history_is_not() -> None:
    """The window reaches 0.7 s back from the first step that counts."""
    x = 10 * SECONDS + torch.where(SECONDS > -0.85, 0.0, 5.0)
    assert along_x(x).score == 1


def test_a_jolt_just_before_the_start_is() -> None:
    x = 10 * SECONDS + torch.where(SECONDS > -0.35, 0.0, 5.0)
    assert along_x(x).score == 0


def test_noise_of_a_centimetre_is_not_felt() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 10 * SECONDS + 0.01 * torch.randn(len(SECONDS), generator=generator)
    assert along_x(x).score == 1


def test_an_ego_that_is_absent_has_no_comfort() -> None:
    valid = torch.ones(2, 91, dtype=torch.bool)
    valid[1, 40] = False
    xy = (10 * SECONDS)[:, None].expand(2, 91, 2)
    found = comfort(xy, torch.zeros(2, 91), valid)
    assert found.jerk.isnan().tolist() == [False, True]
    assert found.score.isnan().tolist() == [False, True]
