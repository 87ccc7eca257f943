import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datatypes import AgentType, Trajectory
from catk_sim.dynamics import DeltaLocal
from tests import scenes

CARS = scenes.agents_of([AgentType.VEHICLE, AgentType.VEHICLE])


def test_it_moves_along_the_heading(log: Trajectory) -> None:
    one_metre_ahead = torch.tensor([1.0, 0.0, 0.0]).expand(2, 3)
    motion = DeltaLocal().forward(log.at(0), one_metre_ahead, CARS)
    torch.testing.assert_close(motion.xy[:, 0], torch.tensor([[1.0, 0.0], [5.0, 9.0]]))


def test_it_recovers_the_speed_of_a_steady_drive(log: Trajectory) -> None:
    model = DeltaLocal()
    motion = model.forward(log.at(0), model.inverse(log, 0, CARS), CARS)
    torch.testing.assert_close(motion.velocity, log.at(1).velocity)


@given(seed=st.integers(0, 2**32 - 1))
def test_it_turns_the_short_way(seed: int) -> None:
    motion = scenes.random_motion(seed, num_agents=2)
    assert DeltaLocal().inverse(motion, 0, CARS)[..., 2].abs().max() <= math.pi


@given(seed=st.integers(0, 2**32 - 1))
def test_it_can_follow_any_motion(seed: int) -> None:
    model, motion = DeltaLocal(), scenes.random_motion(seed, num_agents=2)
    told = model.forward(motion.at(0), model.inverse(motion, 0, CARS), CARS)
    # A float32 coordinate a kilometre out is known to 0.1 mm at best.
    torch.testing.assert_close(told.xy, motion.at(1).xy, atol=1e-3, rtol=0)
