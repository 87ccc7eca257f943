import math

import pytest
import torch

from catk_sim.datatypes import AgentType, Trajectory
from catk_sim.dynamics import InvertibleBicycle
from tests import scenes

CARS = scenes.agents_of([AgentType.VEHICLE, AgentType.VEHICLE])


def drive(
    model: InvertibleBicycle, start: Trajectory, action: list[float], steps: int
) -> Trajectory:
    motion = start
    for _ in range(steps):
        motion = model.forward(motion, torch.tensor([action] * 2), CARS)
    return motion


def test_it_accelerates_as_the_textbook_says(log: Trajectory) -> None:
    # 10 m/s and 2 m/s^2 for a second: 10 + 1 metres, 12 m/s.
    motion = drive(InvertibleBicycle(), log.at(0), [2.0, 0.0], 10)
    torch.testing.assert_close(motion.xy[:, 0], torch.tensor([[11.0, 0.0], [5.0, -1.0]]))
    torch.testing.assert_close(motion.velocity[:, 0], torch.tensor([[12.0, 0.0], [0.0, -12.0]]))


def test_steering_turns_by_the_curvature_of_the_way(log: Trajectory) -> None:
    # Ten metres on a circle of radius 20 are half a radian.
    motion = drive(InvertibleBicycle(), log.at(0), [0.0, 0.05], 10)
    torch.testing.assert_close(motion.heading[0], torch.tensor([0.5]))
    torch.testing.assert_close(
        motion.velocity[0, 0], torch.tensor([10 * math.cos(0.5), 10 * math.sin(0.5)])
    )


def test_a_full_circle_comes_back(log: Trajectory) -> None:
    radius = 20.0
    motion = drive(InvertibleBicycle(), log.at(0), [0.0, 1 / radius], round(2 * math.pi * radius))
    # A polygon of one-metre sides; 126 of them are 0.3 m too many.
    torch.testing.assert_close(motion.xy[0, 0], torch.zeros(2), atol=0.4, rtol=0)


def test_braking_goes_on_into_reverse(log: Trajectory) -> None:
    motion = drive(InvertibleBicycle(), log.at(0), [-5.0, 0.0], 30)
    # 10 - 5 * 3 m/s, and 30 - 22.5 metres.
    torch.testing.assert_close(motion.velocity[0, 0], torch.tensor([-5.0, 0.0]))
    torch.testing.assert_close(motion.xy[0, 0], torch.tensor([7.5, 0.0]), atol=1e-5, rtol=0)


def test_reversing_is_read_back(log: Trajectory) -> None:
    model = InvertibleBicycle()
    start = log.at(0).replace(velocity=-log.at(0).velocity)
    motion = model.forward(start, torch.tensor([[1.0, 0.1], [-1.0, -0.2]]), CARS)
    read = model.inverse(Trajectory.join([start, motion]), 0, CARS)
    torch.testing.assert_close(read, torch.tensor([[1.0, 0.1], [-1.0, -0.2]]), atol=1e-4, rtol=0)


def test_controls_beyond_the_bounds_are_clipped(log: Trajectory) -> None:
    model = InvertibleBicycle(max_acceleration=3.0, max_curvature=0.1)
    clipped = drive(model, log.at(0), [9.0, -9.0], 1)
    bound = drive(model, log.at(0), [3.0, -0.1], 1)
    assert torch.equal(clipped.xy, bound.xy)
    assert torch.equal(clipped.heading, bound.heading)
    jump = log.replace(velocity=log.velocity * torch.arange(5.0)[:, None])
    assert model.inverse(jump, 0, CARS)[:, 0].tolist() == [3.0, 3.0]


def test_who_stands_does_not_steer(log: Trajectory) -> None:
    parked = log.replace(
        velocity=torch.zeros_like(log.velocity), heading=log.heading + 0.1 * torch.arange(5)
    )
    assert not InvertibleBicycle().inverse(parked, 0, CARS).any()


def test_bounds_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="bounds must be above 0"):
        InvertibleBicycle(max_acceleration=0.0)
