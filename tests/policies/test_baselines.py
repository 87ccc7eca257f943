from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Scenario, SimState, TensorTree, Trajectory
from catk_sim.dynamics import TokenDynamics
from catk_sim.rollout import Policy, rollout, sim_agents
from catk_sim.simulator import Simulator
from catk_sim.tokens import MotionVocabulary
from policies.pretrained import PRETRAINED
from policies.registry import POLICIES, make_policy
from tests import scenes

NAMES = sorted(set(POLICIES) - set(PRETRAINED))
DETERMINISTIC = sorted(set(NAMES) - {"random_token"})


def policy_of(name: str) -> Policy[Any]:
    vocabulary = {"vocabulary": scenes.arc_vocabulary()} if name == "random_token" else {}
    return make_policy(name, **vocabulary)


def crossing_cars() -> Scenario:
    """The straight road with the pedestrian on it, in front of A, and C already gone."""
    scenario = scenes.straight_road()
    xy, valid = scenario.log.xy.clone(), scenario.log.valid.clone()
    xy[1] = torch.tensor([20.0, -2.0])
    valid[2] = False
    return scenario.replace(scenario_id=("crossing",), log=scenario.log.replace(xy=xy, valid=valid))


def start(policy: Policy[Any], scenario: Scenario) -> SimState:
    return Simulator(policy.dynamics).reset(scenario, sim_agents(scenario))


def acted(policy: Policy[Any], scenario: Scenario) -> Tensor:
    """The first actions."""
    state = start(policy, scenario)
    action, _ = policy.act(state, policy.init(state), Generator().manual_seed(0))
    return action.data


def tensors(tree: TensorTree) -> list[Tensor]:
    values = [getattr(tree, field.name) for field in fields(tree)]
    nested = [tensors(value) if isinstance(value, TensorTree) else [value] for value in values]
    return [tensor for some in nested for tensor in some if isinstance(tensor, Tensor)]


def permuted(scenario: Scenario, order: list[int]) -> Scenario:
    return scenario.replace(
        log=scenario.log.map(lambda tensor: tensor[order]),
        agents=scenario.agents.map(lambda tensor: tensor[order]),
        log_size=scenario.log_size[order],
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_one(name: str) -> None:
    assert isinstance(policy_of(name), Policy)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_agent_gets_an_action_that_the_dynamics_understand(
    name: str, dtype: torch.dtype
) -> None:
    policy, scenario = policy_of(name), collate([scenes.straight_road(), crossing_cars()])
    state = start(policy, scenario.to(dtype))
    action, _ = policy.act(state, policy.init(state), None)
    assert action.data.shape[:2] == action.valid.shape == (2, 3)
    moved = policy.dynamics.forward(state.current, action.data, state.scenario.agents)
    assert moved.num_steps == policy.dynamics.steps_per_action
    assert all(tensor.isfinite().all() for tensor in tensors(moved))
    assert moved.xy.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_equal_generators_lead_to_equal_episodes(name: str) -> None:
    one, other = (
        rollout(
            policy_of(name),
            scenes.straight_road(),
            num_rollouts=2,
            num_steps=10,
            generator=Generator().manual_seed(4),
        )
        for _ in range(2)
    )
    pairs = zip(tensors(one.simulated), tensors(other.simulated), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_batch_acts_as_its_members(name: str) -> None:
    members = [scenes.straight_road(), crossing_cars()]
    together = rollout(policy_of(name), collate(members), num_steps=20).simulated
    for index, member in enumerate(members):
        alone = rollout(policy_of(name), member, num_steps=20).simulated
        assert torch.equal(together.xy[:, index], alone.xy)
        assert torch.equal(together.heading[:, index], alone.heading)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_permuting_agents_permutes_their_actions(name: str) -> None:
    scenario, order = crossing_cars(), [2, 0, 1]
    expected = acted(policy_of(name), scenario)[order]
    assert torch.equal(acted(policy_of(name), permuted(scenario, order)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_absent_agents_change_nothing(name: str) -> None:
    """C is absent: wherever its arbitrary numbers put it, and whatever it is."""
    scenario = crossing_cars()
    xy, velocity = scenario.log.xy.clone(), scenario.log.velocity.clone()
    xy[2], velocity[2] = torch.tensor([-20.0, -2.0]), 100.0
    elsewhere = scenario.replace(log=scenario.log.replace(xy=xy, velocity=velocity))
    present = [0, 1]
    expected = acted(policy_of(name), scenario)[present]
    assert torch.equal(acted(policy_of(name), elsewhere)[present], expected)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name: str) -> None:
    if name == "random_token":
        pytest.skip("draws in order of the agents, so it depends on how many there are")
    scenario = crossing_cars()
    wide = permuted(scenario, [0, 1, 2, 2, 2])
    gone = torch.tensor([True, True, True, False, False])
    wide = wide.replace(
        agents=wide.agents.replace(valid=gone),
        log=wide.log.replace(valid=wide.log.valid & gone[:, None]),
    )
    assert torch.equal(acted(policy_of(name), wide)[:3], acted(policy_of(name), scenario))


@pytest.mark.parametrize("name", NAMES)
def test_acting_edits_no_input(name: str) -> None:
    policy = policy_of(name)
    state = start(policy, scenes.straight_road())
    memory = policy.init(state)
    before = [tensor.clone() for tensor in [*tensors(state), *tensors(memory)]]
    policy.act(state, memory, None)
    after = [*tensors(state), *tensors(memory)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_only_controlled_agents_act(name: str) -> None:
    policy, scenario = policy_of(name), scenes.straight_road()
    state = Simulator(policy.dynamics).reset(scenario, torch.tensor([False, True, False]))
    action, _ = policy.act(state, policy.init(state), None)
    assert not action.valid[[0, 2]].any()


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="there is no policy 'wayformer'; there are log_replay"):
        make_policy("wayformer")


def same(one: Trajectory, other: Trajectory) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_log_replay_is_the_log_to_the_bit() -> None:
    """C leaves after step 60, and comes back here."""
    scenario = scenes.straight_road()
    valid = scenario.log.valid.clone()
    valid[2, 70:80] = True
    z = torch.arange(float(NUM_STEPS)).expand(3, -1)
    scenario = scenario.replace(log=scenario.log.replace(valid=valid, z=z))
    assert same(rollout(make_policy("log_replay"), scenario).simulated.select(0), scenario.log)


def test_log_replay_tells_the_actions_that_lead_along_the_log() -> None:
    scenario = scenes.straight_road()
    action = acted(make_policy("log_replay"), scenario)
    torch.testing.assert_close(action[0], torch.tensor([-29.0, -2.0, 0.0, 10.0, 0.0]))


def test_constant_velocity_goes_straight_on() -> None:
    scenario = scenes.straight_road()
    velocity = scenario.log.velocity.clone()
    velocity[0] = torch.tensor([6.0, -3.0])
    scenario = scenario.replace(log=scenario.log.replace(velocity=velocity))
    simulated = rollout(make_policy("constant_velocity"), scenario).simulated.select(0)
    end = torch.tensor([[-30.0 + 8 * 6, -2.0 - 8 * 3], [10.0, 6.0], [40.0, -2.0]])
    torch.testing.assert_close(simulated.xy[:, -1], end, rtol=0, atol=1e-3)
    assert torch.equal(simulated.heading[:, -1], scenario.log.heading[:, CURRENT_STEP])
    assert simulated.valid[:, HISTORY_STEPS:].all()


def test_random_tokens_are_drawn_from_the_whole_vocabulary() -> None:
    vocabulary = scenes.arc_vocabulary(num_speeds=2, num_turns=2)
    policy = make_policy("random_token", vocabulary=vocabulary)
    state = start(policy, scenes.straight_road()).repeat(200)
    generator = Generator().manual_seed(0)
    action, _ = policy.act(state, policy.init(state), generator)
    counts = torch.bincount(action.data.flatten(), minlength=5)
    assert len(counts) == vocabulary.num_tokens == 5
    assert counts.min() > 0.7 * counts.sum() / 5


def test_the_shipped_vocabulary_is_the_default() -> None:
    dynamics = make_policy("random_token").dynamics
    assert isinstance(dynamics, TokenDynamics)
    assert dynamics.vocabulary.digest == MotionVocabulary.default().digest
