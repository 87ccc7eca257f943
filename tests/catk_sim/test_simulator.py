from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Action, Scenario, SimState, TensorTree, Trajectory
from catk_sim.dynamics import (
    DeltaLocal,
    DynamicsModel,
    InvertibleBicycle,
    StateDynamics,
    TokenDynamics,
)
from catk_sim.simulator import Simulator
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

VOCABULARY = arc_vocabulary()
DYNAMICS: dict[str, Callable[[], DynamicsModel]] = {
    "token": lambda: TokenDynamics(VOCABULARY),
    "delta": DeltaLocal,
    "bicycle": InvertibleBicycle,
    "state": StateDynamics,
}
FEATURES = {"token": (), "delta": (3,), "bicycle": (2,), "state": (5,)}


@pytest.fixture(params=list(DYNAMICS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def random_action(kind: str, shape: tuple[int, ...], seed: int) -> Action:
    generator = torch.Generator().manual_seed(seed)
    if kind == "token":
        data = torch.randint(VOCABULARY.num_tokens, shape, generator=generator)
    else:
        data = torch.randn(*shape, *FEATURES[kind], generator=generator)
    return Action(data=data, valid=torch.ones(shape, dtype=torch.bool))


def start(kind: str, scenario: Scenario, controlled: Tensor) -> tuple[Simulator, SimState]:
    simulator = Simulator(DYNAMICS[kind]())
    return simulator, simulator.reset(scenario, controlled)


def play(kind: str, scenario: Scenario, controlled: Tensor, num_actions: int) -> list[SimState]:
    simulator, state = start(kind, scenario, controlled)
    states = [state]
    for step in range(num_actions):
        action = random_action(kind, tuple(controlled.shape), step)
        if action.data.is_floating_point():
            action = action.replace(data=action.data.to(state.history.xy.dtype))
        states.append(simulator.step(states[-1], action))
    return states


def tensors(tree: TensorTree) -> list[Tensor]:
    found: list[Tensor] = []
    tree.map(lambda tensor: (found.append(tensor), tensor)[1])
    return found


def assert_equal(one: TensorTree, other: TensorTree) -> None:
    for left, right in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def assert_close(one: Trajectory, other: Trajectory) -> None:
    torch.testing.assert_close(one.valid, other.valid)
    for left, right in zip(tensors(one), tensors(other), strict=True):
        mask = one.valid
        torch.testing.assert_close(left[mask], right[mask], rtol=0, atol=1e-4)


@given(seed=st.integers(0, 1000), kind=st.sampled_from(list(DYNAMICS)))
def test_agents_that_are_not_controlled_replay_the_log(seed: int, kind: str) -> None:
    scenario = variations.crowd(5, seed)
    controlled = torch.rand(5, generator=torch.Generator().manual_seed(seed)) < 0.5
    states = play(kind, scenario, controlled, 4)
    follows = ~states[0].controlled
    for state in states[1:]:
        now = int(state.step)
        steps = states[0].step.new_tensor(now)
        expected = scenario.log.at(now)
        assert steps == state.step
        for left, right in zip(tensors(state.current), tensors(expected), strict=True):
            torch.testing.assert_close(left[follows], right[follows], rtol=0, atol=0)


@given(seed=st.integers(0, 1000), kind=st.sampled_from(list(DYNAMICS)))
def test_permuting_agents_permutes_the_result(seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    scenario = variations.crowd(5, seed)
    order = torch.randperm(5, generator=generator)
    permuted = scenario.replace(
        log=scenario.log.map(lambda tensor: tensor[order]),
        agents=scenario.agents.map(lambda tensor: tensor[order]),
        log_size=scenario.log_size[order],
    )
    everyone = torch.ones(5, dtype=torch.bool)
    simulator, state = start(kind, scenario, everyone)
    _, other = start(kind, permuted, everyone)
    action = random_action(kind, (5,), seed)
    after = simulator.step(state, action)
    after_permuted = simulator.step(other, action.map(lambda tensor: tensor[order]))
    assert_equal(after.history.map(lambda tensor: tensor[order]), after_permuted.history)


def test_an_absent_agent_stays_absent_unless_the_log_brings_it(kind: str) -> None:
    scenario = variations.with_present(straight_road(), [0])
    everyone = torch.ones(3, dtype=torch.bool)
    for state in play(kind, scenario, everyone, 4)[1:]:
        expected = scenario.log.at(int(state.step)).valid
        torch.testing.assert_close(state.current.valid[1:], expected[1:])
        assert state.current.valid[0]
        assert state.controlled.tolist() == [True, False, False]


def test_a_controlled_agent_outlives_its_log(kind: str) -> None:
    # C leaves the log after step 60, and B is not controlled.
    scenario = straight_road()
    controlled = torch.tensor([True, False, True])
    num_actions = 80 // DYNAMICS[kind]().steps_per_action
    state = play(kind, scenario, controlled, num_actions)[-1]
    assert int(state.step) == 90
    assert state.current.valid[:, 0].tolist() == [True, True, True]


def test_a_batch_acts_as_its_members(kind: str) -> None:
    members = [straight_road(), variations.crowd(7), variations.short(variations.crowd(2))]
    batch = collate(members)
    simulator, state = start(kind, batch, batch.agents.valid)
    singles = [start(kind, member, member.agents.valid)[1] for member in members]
    for step in range(3):
        action = random_action(kind, tuple(batch.agents.valid.shape), step)
        state = simulator.step(state, action)
        for index, member in enumerate(members):
            num_agents = member.log.num_agents
            own = action.select(index).map(lambda tensor, n=num_agents: tensor[:n])
            singles[index] = simulator.step(singles[index], own)
            history = state.history.select(index).map(lambda tensor, n=num_agents: tensor[:n])
            assert_close(singles[index].history, history)
            assert singles[index].step == state.step[index]


def test_the_precision_is_that_of_the_scenario(kind: str) -> None:
    scenario = variations.crowd(6)
    everyone = torch.ones(6, dtype=torch.bool)
    single = play(kind, scenario, everyone, 3)[-1].history
    double = play(kind, scenario.to(torch.float64), everyone, 3)[-1].history
    assert double.xy.dtype == torch.float64
    assert_close(single, double.to(torch.float32))


def test_the_history_is_the_last_eleven_steps(kind: str) -> None:
    scenario = straight_road()
    states = play(kind, scenario, torch.tensor([True, False, False]), 3)
    per_action = DYNAMICS[kind]().steps_per_action
    for before, after in pairwise(states):
        assert after.history.num_steps == HISTORY_STEPS
        kept = HISTORY_STEPS - per_action
        assert_equal(after.history.slice(0, kept), before.history.slice(per_action, HISTORY_STEPS))
        # B stands where it stands, and the window ends at the current step.
        assert_equal(after.current, after.history.at(HISTORY_STEPS - 1))
    assert int(states[-1].step) == CURRENT_STEP + 3 * per_action


def test_the_log_fills_the_history_of_those_who_follow_it() -> None:
    scenario = straight_road()
    state = play("delta", scenario, torch.zeros(3, dtype=torch.bool), 7)[-1]
    expected = scenario.log.slice(7, 7 + HISTORY_STEPS)
    assert_equal(state.history, expected)


def test_old_states_stay_as_they_were(kind: str) -> None:
    scenario = variations.crowd(5)
    everyone = torch.ones(5, dtype=torch.bool)
    simulator, state = start(kind, scenario, everyone)
    remembered = state.map(torch.clone)
    for step in range(4):
        later = simulator.step(state, random_action(kind, (5,), step))
        assert_equal(state, remembered)
        state, remembered = later, later.map(torch.clone)


def test_an_invalid_action_leaves_the_agent_to_the_log(kind: str) -> None:
    scenario = straight_road()
    simulator, state = start(kind, scenario, torch.ones(3, dtype=torch.bool))
    action = random_action(kind, (3,), 0)
    after = simulator.step(state, action.replace(valid=torch.tensor([False, True, True])))
    logged = scenario.log.at(int(after.step))
    torch.testing.assert_close(after.current.xy[0], logged.xy[0], rtol=0, atol=0)
    assert after.last_action.valid.tolist() == [False, True, True]


def test_after_a_log_of_eleven_steps_only_the_controlled_remain(kind: str) -> None:
    scenario = variations.short(straight_road())
    state = play(kind, scenario, torch.tensor([True, False, False]), 3)[-1]
    assert state.current.valid[:, 0].tolist() == [True, False, False]


@pytest.mark.parametrize("present", [[], [1]])
def test_nobody_or_one_at_the_current_step_can_be_simulated(kind: str, present: list[int]) -> None:
    scenario = variations.with_present(straight_road(), present)
    states = play(kind, scenario, torch.ones(3, dtype=torch.bool), 2)
    assert states[0].controlled.nonzero()[:, 0].tolist() == present
    for tensor in tensors(states[-1].history):
        assert tensor.isfinite().all()


def test_hundreds_of_agents_without_a_map_far_from_anything_can_be_simulated(kind: str) -> None:
    scenario = variations.moved(variations.without_map(variations.crowd(300)), 20_000)
    states = play(kind, scenario, torch.ones(300, dtype=torch.bool), 2)
    assert int(states[0].controlled.sum()) > 200
    assert states[-1].current.xy.isfinite().all()


def test_each_world_has_its_own_step() -> None:
    batch = collate([straight_road(), straight_road()])
    simulator, state = start("delta", batch, torch.zeros_like(batch.agents.valid))
    state = state.replace(step=torch.tensor([20, 40]))
    after = simulator.step(state, random_action("delta", (2, 3), 0))
    assert after.step.tolist() == [21, 41]
    # The sdc is at -40 m + 1 m a step.
    assert after.current.xy[:, 0, 0, 0].tolist() == [-19, 1]
