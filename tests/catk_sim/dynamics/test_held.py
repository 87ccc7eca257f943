import pytest
import torch
from torch.testing import assert_close

from catk_sim.datatypes import AgentType, Trajectory
from catk_sim.dynamics import DeltaLocal, Held, InvertibleBicycle
from tests import scenes

AGENTS = scenes.agents_of([AgentType.VEHICLE] * 3)
ACTION = torch.tensor([[2.0, 0.1], [-1.0, 0.0], [0.5, -0.2]])


def start() -> Trajectory:
    motion = scenes.random_motion(1, num_steps=1)
    forward = torch.stack([motion.heading.cos(), motion.heading.sin()], dim=-1)
    return motion.replace(velocity=8 * forward, valid=torch.tensor([[True], [True], [False]]))


def test_an_action_is_applied_so_often() -> None:
    motion = Held(InvertibleBicycle(), 3).forward(start(), ACTION, AGENTS)
    now, model = start(), InvertibleBicycle()
    for step in range(3):
        now = model.forward(now, ACTION, AGENTS)
        assert_close(motion.at(step).xy, now.xy, rtol=0, atol=0)
        assert_close(motion.at(step).velocity, now.velocity, rtol=0, atol=0)
        assert torch.equal(motion.at(step).valid, now.valid)
    assert motion.num_steps == 3


def test_it_covers_so_many_steps() -> None:
    assert Held(InvertibleBicycle(), 5).steps_per_action == 5
    assert Held(Held(InvertibleBicycle(), 2), 5).steps_per_action == 10


def test_inverse_undoes_forward() -> None:
    held = Held(InvertibleBicycle(), 5)
    motion = held.forward(start(), ACTION, AGENTS)
    read = held.inverse(Trajectory.join([start(), motion]), 0, AGENTS)
    # float32 a kilometre out, over a tenth of a second.
    assert_close(read[:2], ACTION[:2], rtol=1e-2, atol=2e-2)


def test_an_action_that_changes_is_read_as_its_mean() -> None:
    model, now = DeltaLocal(), start()
    first = model.forward(now, torch.tensor([[1.0, 0.0, 0.0]] * 3), AGENTS)
    second = model.forward(first, torch.tensor([[3.0, 0.0, 0.0]] * 3), AGENTS)
    log = Trajectory.join([now, now, first, second])
    read = Held(model, 2).inverse(log, 1, AGENTS)
    assert_close(read, torch.tensor([[2.0, 0.0, 0.0]] * 3), rtol=0, atol=1e-3)


def test_the_history_is_that_of_the_model() -> None:
    log = scenes.straight_road().log
    assert torch.equal(Held(DeltaLocal(), 2).history(log, AGENTS).xy, log.xy[:, :11])


def test_an_action_is_held_once_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1 time, got 0"):
        Held(DeltaLocal(), 0)
