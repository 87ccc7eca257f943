"""What holds for every dynamics model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datatypes import AgentMetadata, AgentType, Trajectory
from catk_sim.dynamics import (
    DeltaLocal,
    DynamicsModel,
    InvertibleBicycle,
    PoseDynamics,
    StateDynamics,
    TokenDynamics,
)
from catk_sim.geometry import se2
from tests import scenes

AGENTS = scenes.agents_of([AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST])
MODELS = [
    DeltaLocal(),
    InvertibleBicycle(),
    PoseDynamics(),
    StateDynamics(),
    TokenDynamics(scenes.arc_vocabulary()),
    TokenDynamics(scenes.arc_vocabulary(), snap_start=False),
]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
SEEDS = st.integers(0, 2**32 - 1)


def some_action(model: DynamicsModel, seed: int) -> Tensor:
    """Actions that the model can represent."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, TokenDynamics):
        # From the ninth token on no two end alike.
        return torch.randint(8, model.vocabulary.num_tokens, (3,), generator=generator)
    scale = {
        DeltaLocal: [3.0, 1.0, 3.0],
        InvertibleBicycle: [6.0, 0.3],
        PoseDynamics: [15.0, 3.0, 3.0],
        StateDynamics: [900.0, 900.0, 3.0, 30.0, 30.0],
    }[type(model)]
    return torch.tensor(scale) * (2 * torch.rand(3, len(scale), generator=generator) - 1)


def drive(model: DynamicsModel, seed: int) -> tuple[Trajectory, Tensor, Trajectory]:
    """A start that a vehicle can have, an action, and what follows from it."""
    start = scenes.random_motion(seed, num_steps=1)
    forward = torch.stack([start.heading.cos(), start.heading.sin()], dim=-1)
    speed = 5 + start.velocity[..., :1].abs() / 3
    start = start.replace(velocity=speed * forward)
    action = some_action(model, seed)
    return start, action, model.forward(start, action, AGENTS)


@EVERY_MODEL
@given(seed=SEEDS)
def test_inverse_undoes_forward(model: DynamicsModel, seed: int) -> None:
    start, action, motion = drive(model, seed)
    read = model.inverse(Trajectory.join([start, motion]), 0, AGENTS)
    if isinstance(model, TokenDynamics):
        assert torch.equal(read, action)
        return
    # float32 a kilometre out, over a tenth of a second.
    torch.testing.assert_close(read, action, atol=2e-2, rtol=1e-3)


@EVERY_MODEL
@given(seed=SEEDS)
def test_forward_undoes_inverse(model: DynamicsModel, seed: int) -> None:
    start, _, motion = drive(model, seed)
    log = Trajectory.join([start, motion])
    again = model.forward(start, model.inverse(log, 0, AGENTS), AGENTS)
    # A float32 coordinate a kilometre out is known to 0.1 mm at best.
    torch.testing.assert_close(again.xy, motion.xy, atol=1e-3, rtol=0)
    turn = se2.wrap_angle(again.heading - motion.heading)
    torch.testing.assert_close(turn, torch.zeros_like(turn), atol=1e-4, rtol=0)


@EVERY_MODEL
@given(seed=SEEDS)
def test_headings_stay_wrapped(model: DynamicsModel, seed: int) -> None:
    _, _, motion = drive(model, seed)
    assert motion.heading.abs().max() <= math.pi


@EVERY_MODEL
@given(seed=SEEDS)
def test_a_batch_moves_as_its_members_do(model: DynamicsModel, seed: int) -> None:
    drives = [drive(model, seed), drive(model, seed + 1)]
    start = Trajectory.stack([start for start, _, _ in drives])
    action = torch.stack([action for _, action, _ in drives])
    together = model.forward(start, action, AgentMetadata.stack([AGENTS, AGENTS]))
    for index, (_, _, alone) in enumerate(drives):
        torch.testing.assert_close(together.select(index).xy, alone.xy)
        torch.testing.assert_close(together.select(index).velocity, alone.velocity)
        assert torch.equal(together.select(index).valid, alone.valid)


@EVERY_MODEL
def test_an_action_covers_the_steps_it_promises(model: DynamicsModel) -> None:
    _, _, motion = drive(model, 0)
    assert motion.num_steps == model.steps_per_action


@EVERY_MODEL
@given(seed=SEEDS)
def test_an_absent_agent_stays_absent(model: DynamicsModel, seed: int) -> None:
    start, _, motion = drive(model, seed)
    assert torch.equal(motion.valid, start.valid.expand_as(motion.valid))


@EVERY_MODEL
def test_the_height_stays(model: DynamicsModel) -> None:
    start, _, motion = drive(model, 0)
    assert torch.equal(motion.z, start.z.expand_as(motion.z))


@EVERY_MODEL
@given(seed=SEEDS)
def test_the_velocity_is_that_of_the_motion(model: DynamicsModel, seed: int) -> None:
    if isinstance(model, StateDynamics):
        return  # Its velocity is the action's.
    start, _, motion = drive(model, seed)
    start, motion = start.to(torch.float64), motion.to(torch.float64)
    moved = torch.cat([start.xy, motion.xy], dim=-2).diff(dim=-2) / 0.1
    speed = torch.linalg.vector_norm(motion.velocity, dim=-1)
    # A bicycle's velocity is that at the end of the step: 6 m/s^2 for 0.1 s, and its turn.
    allowed = 0.4 if isinstance(model, InvertibleBicycle) else 0.01
    torch.testing.assert_close(torch.linalg.vector_norm(moved, dim=-1), speed, atol=allowed, rtol=0)


@EVERY_MODEL
def test_nothing_is_changed_in_place(model: DynamicsModel) -> None:
    start, action, _ = drive(model, 0)
    before, given_action = start.map(torch.clone), action.clone()
    motion = model.forward(start, action, AGENTS)
    model.inverse(Trajectory.join([start, motion]), 0, AGENTS)
    assert torch.equal(start.xy, before.xy)
    assert torch.equal(start.heading, before.heading)
    assert torch.equal(action, given_action)


@EVERY_MODEL
def test_the_history_has_eleven_steps_and_ends_where_the_log_does(model: DynamicsModel) -> None:
    scenario = scenes.straight_road()
    history = model.history(scenario.log, scenario.agents)
    assert history.num_steps == HISTORY_STEPS
    now, logged = history.at(-1), scenario.log.at(10)
    assert torch.equal(now.valid, logged.valid)
    torch.testing.assert_close(now.xy, logged.xy)


@EVERY_MODEL
def test_the_history_knows_nothing_of_the_future(model: DynamicsModel) -> None:
    scenario = scenes.straight_road()
    absent = scenario.log.valid.clone()
    absent[1, 9:12] = False  # It comes back at step 12.
    whole = scenario.log.replace(valid=absent)
    history = model.history(whole, scenario.agents)
    short = model.history(whole.slice(0, HISTORY_STEPS), scenario.agents)
    assert torch.equal(history.xy, short.xy)
    assert torch.equal(history.valid, short.valid)
    assert not history.valid[1, -1]
    assert history.valid[1, :9].all()


@EVERY_MODEL
def test_a_model_works_in_float64(model: DynamicsModel) -> None:
    start, action, motion = drive(model, 3)
    exact = action if action.dtype == torch.int64 else action.double()
    double = model.forward(start.to(torch.float64), exact, AGENTS)
    assert double.xy.dtype == torch.float64
    torch.testing.assert_close(double.xy.float(), motion.xy)
    log = Trajectory.join([start.to(torch.float64), double])
    read = model.inverse(log, 0, AGENTS)
    torch.testing.assert_close(read, exact, atol=1e-6, rtol=1e-6)
