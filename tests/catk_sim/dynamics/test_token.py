import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datatypes import AgentType, Scenario, Trajectory
from catk_sim.dynamics import TokenDynamics
from catk_sim.tokens import tokenize
from catk_sim.tokens.matching import prepare
from tests import scenes

VOCABULARY = scenes.arc_vocabulary()
STRAIGHT_AT_TEN = 10 * 7 + 3 + 1
CARS = scenes.agents_of([AgentType.VEHICLE, AgentType.VEHICLE])


def off_grid() -> Scenario:
    """The straight road, but the sdc drives at 10.1 m/s, which is between two tokens."""
    scenario = scenes.straight_road()
    xy = scenario.log.xy.clone()
    xy[0, :, 0] = -40 + 1.01 * torch.arange(91)
    return scenario.replace(log=scenario.log.replace(xy=xy))


def test_a_token_is_placed_at_the_current_pose(log: Trajectory) -> None:
    token = torch.tensor([STRAIGHT_AT_TEN, STRAIGHT_AT_TEN])
    motion = TokenDynamics(VOCABULARY).forward(log.at(0), token, CARS)
    steps = torch.arange(1.0, 6.0)
    torch.testing.assert_close(motion.xy[0, :, 0], steps)
    torch.testing.assert_close(motion.xy[1, :, 1], 10 - steps)
    torch.testing.assert_close(motion.heading[1], torch.full((5,), -math.pi / 2))
    torch.testing.assert_close(motion.velocity[1], torch.tensor([0.0, -10.0]).expand(5, 2))


def test_each_type_has_its_own_tokens(log: Trajectory) -> None:
    poses = VOCABULARY.poses.clone()
    poses[1] *= 0.1
    slow = VOCABULARY.replace(poses=poses)
    agents = scenes.agents_of([AgentType.PEDESTRIAN, AgentType.OTHER])
    token = torch.tensor([STRAIGHT_AT_TEN, STRAIGHT_AT_TEN])
    motion = TokenDynamics(slow).forward(log.at(0), token, agents)
    moved = torch.linalg.vector_norm(motion.xy[:, -1] - log.xy[:, 0], dim=-1)
    torch.testing.assert_close(moved, torch.tensor([0.5, 5.0]))


def test_the_snapped_history_is_told_in_tokens() -> None:
    scenario = off_grid()
    snapped = TokenDynamics(VOCABULARY).history(scenario.log, scenario.agents)
    expected = -40 + torch.arange(11.0)
    # 10 m/s is the nearest speed: the second token starts where the first one ended.
    torch.testing.assert_close(snapped.xy[0, :, 0], expected)
    torch.testing.assert_close(snapped.velocity[0, 1:, 0], torch.full((10,), 10.0))


def test_without_snapping_the_history_is_the_log() -> None:
    scenario = off_grid()
    history = TokenDynamics(VOCABULARY, snap_start=False).history(scenario.log, scenario.agents)
    assert torch.equal(history.xy, scenario.log.xy[:, :HISTORY_STEPS])


def test_the_snapped_history_ends_where_the_tokenized_log_is() -> None:
    scenario = off_grid()
    snapped = TokenDynamics(VOCABULARY).history(scenario.log, scenario.agents)
    told = tokenize(scenario.log, scenario.agents, VOCABULARY).tokens
    torch.testing.assert_close(snapped.xy[:, 5], told.xy[:, 0])
    torch.testing.assert_close(snapped.xy[:, 10], told.xy[:, 1])


@given(entry=st.integers(0, CURRENT_STEP), seed=st.integers(0, 2**32 - 1))
def test_snapping_twice_is_snapping_once(entry: int, seed: int) -> None:
    scenario = off_grid()
    valid = scenario.log.valid.clone()
    valid[0] = torch.arange(91) >= entry
    model = TokenDynamics(VOCABULARY)
    once = model.history(scenario.log.replace(valid=valid), scenario.agents)
    twice = model.history(once, scenario.agents)
    assert torch.equal(twice.valid, once.valid)
    torch.testing.assert_close(twice.xy[once.valid], once.xy[once.valid])


def test_who_entered_late_is_extended_backwards() -> None:
    scenario = scenes.straight_road()
    snapped = TokenDynamics(VOCABULARY).history(scenario.log, scenario.agents)
    # The parked car enters at step 6: it is given step 5, where a token starts.
    assert snapped.valid[2].tolist() == [step >= 5 for step in range(11)]


def test_who_is_absent_now_keeps_the_logged_history() -> None:
    scenario = scenes.straight_road()
    valid = scenario.log.valid.clone()
    valid[0, 9:] = False
    log = scenario.log.replace(valid=valid)
    snapped = TokenDynamics(VOCABULARY).history(log, scenario.agents)
    assert torch.equal(snapped.valid[0], valid[0, :HISTORY_STEPS])
    assert torch.equal(snapped.xy[0], log.xy[0, :HISTORY_STEPS])


def test_tokens_chosen_by_inverse_retell_the_log() -> None:
    scenario = off_grid()
    model = TokenDynamics(VOCABULARY)
    log = prepare(scenario.log, scenario.agents)
    told = tokenize(scenario.log, scenario.agents, VOCABULARY).tokens
    state = model.history(scenario.log, scenario.agents).at(-1)
    for mark in range(2, 10):
        step = 5 * mark
        ahead = log.slice(step + 1, step + 6)
        token = model.inverse(Trajectory.join([state, ahead]), 0, scenario.agents)
        state = model.forward(state, token, scenario.agents).at(-1)
        torch.testing.assert_close(state.xy[:, 0], told.xy[:, mark])
