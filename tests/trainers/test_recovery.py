"""Where vehicles beside their logs are to go."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from catk_sim.constants import NUM_STEPS
from catk_sim.datatypes import Trajectory
from catk_sim.geometry import se2
from trainers.recovery import SIDEWAYS, along_the_log

RADIUS = 20.0


def log_of(xy: Tensor, heading: Tensor) -> Trajectory:
    """One log, batched."""
    return Trajectory(
        xy=xy[None],
        z=torch.zeros(1, NUM_STEPS),
        heading=heading[None],
        velocity=torch.zeros(1, NUM_STEPS, 2),
        valid=torch.ones(1, NUM_STEPS, dtype=torch.bool),
    )


def straight(arc: Tensor) -> Trajectory:
    """East along the x axis."""
    return log_of(torch.stack([arc, torch.zeros_like(arc)], dim=-1), torch.zeros_like(arc))


def bend(arc: Tensor) -> Trajectory:
    """Left around a centre 20 m north of the origin."""
    angle = arc / RADIUS
    xy = RADIUS * torch.stack([angle.sin(), 1 - angle.cos()], dim=-1)
    return log_of(xy, se2.wrap_angle(angle))


def target(log: Trajectory, pose: list[float], step: int) -> list[float]:
    """The recovery of one vehicle."""
    goal = along_the_log(torch.tensor([pose]), log, torch.tensor([step]))
    return [round(value, 3) for value in goal[0].tolist()]


STEADY = torch.arange(NUM_STEPS) * 1.0
"""10 m/s."""

BRAKES = torch.minimum(STEADY, torch.tensor(50.0))
"""Stands from step 50 on."""


@pytest.mark.parametrize("step", [10, 45, 48, 85])
@pytest.mark.parametrize("shape", [straight, bend])
@pytest.mark.parametrize("arc", [STEADY, BRAKES], ids=["steady", "brakes"])
def test_on_the_log_it_is_the_logs_next_pose(
    shape: Callable[[Tensor], Trajectory], arc: Tensor, step: int
) -> None:
    log = shape(arc)
    now = torch.cat([log.xy[:, step], log.heading[:, step, None]], dim=-1)
    goal = along_the_log(now, log, torch.tensor([step]))
    then = torch.cat([log.xy[:, step + 5], log.heading[:, step + 5, None]], dim=-1)
    torch.testing.assert_close(goal, then, atol=1e-3, rtol=0)


def test_where_the_way_passes_twice_the_step_decides() -> None:
    there_and_back = torch.minimum(STEADY, 90.0 - STEADY)
    assert target(straight(there_and_back), [30.0, 0.0, 0.0], 30) == [35.0, 0.0, 0.0]
    assert target(straight(there_and_back), [30.0, 0.0, 0.0], 60) == [25.0, 0.0, 0.0]


def test_what_it_is_ahead_or_behind_stays() -> None:
    assert target(straight(STEADY), [18.0, 0.0, 0.0], 20) == [23.0, 0.0, 0.0]
    assert target(straight(STEADY), [22.5, 0.0, 0.0], 20) == [27.5, 0.0, 0.0]
    # The log stands after 5 of its last 7 m.
    assert target(straight(BRAKES), [40.0, 0.0, 0.0], 48) == [42.0, 0.0, 0.0]
    assert target(straight(BRAKES), [53.0, 0.0, 0.0], 60) == [53.0, 0.0, 0.0]


def test_it_comes_back_sideways_by_half_a_metre_at_most() -> None:
    assert target(straight(STEADY), [20.0, 0.3, 0.1], 20) == [25.0, 0.0, 0.0]
    assert target(straight(STEADY), [20.0, -1.2, 0.1], 20) == [25.0, -1.2 + SIDEWAYS, 0.0]


def test_in_a_bend_it_follows_the_bend() -> None:
    log = bend(STEADY)
    behind = bend(STEADY - 3.0)  # On the way, 3 m behind.
    now = torch.cat([behind.xy[:, 30], behind.heading[:, 30, None]], dim=-1)
    goal = along_the_log(now, log, torch.tensor([30]))
    then = torch.cat([behind.xy[:, 35], behind.heading[:, 35, None]], dim=-1)
    torch.testing.assert_close(goal, then, atol=1e-2, rtol=0)


def test_the_way_goes_straight_on_past_its_ends() -> None:
    log = bend(torch.minimum(STEADY, torch.tensor(30.0)))
    end, heading = log.xy[0, -1], log.heading[0, -1]
    now = se2.to_global(torch.tensor([4.0, 0.2]), end, heading)
    goal = target(log, [*now.tolist(), heading.item()], 80)
    there = se2.to_global(torch.tensor([4.0, 0.0]), end, heading)
    assert goal == pytest.approx([*there.tolist(), heading.item()], abs=2e-3)
    assert target(bend(STEADY), [-3.0, 0.0, 0.0], 10) == pytest.approx([2.0, 0.1, 0.1], abs=2e-2)


def test_headings_are_wrapped_and_turn_the_short_way() -> None:
    angle = torch.full((NUM_STEPS,), math.pi - 0.05)
    angle[11:] = -math.pi + 0.05
    log = log_of(torch.stack([-STEADY, torch.zeros(NUM_STEPS)], dim=-1), angle)
    goal = along_the_log(torch.tensor([[-5.5, 0.0, math.pi]]), log, torch.tensor([5]))
    torch.testing.assert_close(goal[0, 2].cos(), torch.tensor(-1.0), atol=1e-5, rtol=0)


def test_where_the_log_is_not_known_the_last_known_pose_counts() -> None:
    log = straight(STEADY)
    valid = log.valid.clone()
    valid[:, :3], valid[:, 40:] = False, False
    xy = log.xy.where(valid[..., None], 0)
    gaps = log.replace(xy=xy, valid=valid)
    assert target(gaps, [38.0, 0.0, 0.0], 38) == [39.0, 0.0, 0.0]
    assert target(gaps, [5.0, 0.1, 0.0], 5) == [10.0, 0.0, 0.0]
