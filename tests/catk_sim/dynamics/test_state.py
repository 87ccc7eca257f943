import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datatypes import AgentType, Trajectory
from catk_sim.dynamics import StateDynamics
from tests import scenes

CARS = scenes.agents_of([AgentType.VEHICLE, AgentType.VEHICLE])


def test_agents_are_put_where_the_action_says(log: Trajectory) -> None:
    action = torch.tensor([[100.0, 200.0, 1.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0, 9.0]])
    motion = StateDynamics().forward(log.at(0), action, CARS)
    assert motion.xy[0].tolist() == [[100.0, 200.0]]
    assert motion.heading[0].item() == pytest.approx(1.0)
    assert motion.heading[1].item() == pytest.approx(7.0 - 2 * math.pi, abs=1e-5)
    assert motion.velocity[0].tolist() == [[3.0, 4.0]]


@given(seed=st.integers(0, 2**32 - 1))
def test_it_can_follow_any_motion(seed: int) -> None:
    model, motion = StateDynamics(), scenes.random_motion(seed, num_agents=2)
    told = model.forward(motion.at(0), model.inverse(motion, 0, CARS), CARS)
    assert torch.equal(told.xy, motion.at(1).xy)
    assert torch.equal(told.velocity, motion.at(1).velocity)
    torch.testing.assert_close(told.heading, motion.at(1).heading, atol=1e-6, rtol=0)
