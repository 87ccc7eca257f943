import pytest
import torch
from torch import Generator

from catk_sim.constants import CURRENT_STEP, STEPS_PER_TOKEN
from catk_sim.datatypes import Rollout, Scenario
from catk_sim.rollout import TokenPolicy, rollout, sim_agents
from catk_sim.simulator import Simulator
from catk_sim.tokens import MotionTokens, tokenize
from policies.smart.map_tokens import tokenize_map
from policies.smart.policy import GREEDY, SMARTPolicy, TopK, TopP
from tests import scenes
from tests.policies.smart.examples import VOCABULARY, micro

MODEL = micro(torch.float32)
SCENARIO = scenes.straight_road()


def drive(policy: SMARTPolicy, seed: int, num_rollouts: int = 2) -> Rollout:
    generator = Generator().manual_seed(seed)
    return rollout(policy, SCENARIO, num_rollouts=num_rollouts, generator=generator)


def test_smart_is_a_token_policy() -> None:
    assert isinstance(SMARTPolicy(MODEL, VOCABULARY), TokenPolicy)


def test_a_seed_decides_the_rollouts() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY)
    first, same, other = drive(policy, 0), drive(policy, 0), drive(policy, 1)
    assert torch.equal(first.actions.data, same.actions.data)
    assert torch.equal(first.simulated.xy, same.simulated.xy)
    assert not torch.equal(first.actions.data, other.actions.data)
    assert not torch.equal(first.actions.data[0], first.actions.data[1])


def test_every_agent_of_the_current_step_is_driven() -> None:
    driven = drive(SMARTPolicy(MODEL, VOCABULARY), 0)
    assert driven.actions.valid.all()
    assert driven.simulated.valid[..., CURRENT_STEP:].all()


def visited(driven: Rollout, scenario: Scenario) -> MotionTokens:
    """The driven states as tokens."""
    history = tokenize(scenario.log.slice(0, 11), scenario.agents, VOCABULARY).tokens
    count = driven.actions.data.shape[0]
    simulated = driven.simulated
    marks = slice(STEPS_PER_TOKEN, None, STEPS_PER_TOKEN)
    chosen = driven.actions.data.movedim(-2, -1)
    token = torch.cat([history.token.expand(count, -1, 2), chosen], dim=-1)
    return MotionTokens(
        token=token,
        xy=simulated.xy[..., marks, :],
        heading=simulated.heading[..., marks],
        valid=simulated.valid[..., marks] & simulated.valid[..., :-STEPS_PER_TOKEN:STEPS_PER_TOKEN],
    )


def test_the_policy_scores_as_the_model_does_in_one_parallel_pass() -> None:
    driven = drive(SMARTPolicy(MODEL, VOCABULARY, GREEDY), 0, num_rollouts=1)
    map_tokens = tokenize_map(SCENARIO.roadgraph, SCENARIO.traffic_lights, MODEL.curves)
    with torch.no_grad():
        logits = MODEL(visited(driven, SCENARIO), SCENARIO.agents.repeat(1), map_tokens.repeat(1))
    chosen = driven.actions.data.movedim(-2, -1)
    assert torch.equal(logits.argmax(dim=-1), chosen)


def test_the_policy_can_be_given_the_map_as_tokens() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY)
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    map_tokens = tokenize_map(SCENARIO.roadgraph, SCENARIO.traffic_lights, MODEL.curves)
    given, made = policy.init(state, map_tokens=map_tokens), policy.init(state)
    assert torch.equal(given.logits, made.logits)


def test_the_policy_can_be_given_the_history_as_tokens() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY)
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    log = tokenize(SCENARIO.log, SCENARIO.agents, VOCABULARY).tokens
    given, made = policy.init(state, history=log.slice(0, 2)), policy.init(state)
    assert torch.equal(given.logits, made.logits)
    other = log.replace(token=log.token.roll(1, dims=-2))
    assert not torch.equal(policy.init(state, history=other).logits, made.logits)


def test_repeating_the_memory_copies_nothing() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY, GREEDY)
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    start = policy.init(state)
    _, memory = policy.act(state.repeat(5), start.repeat(5), None)
    ours = start.memory.map_memory.keys_values
    assert memory.map_memory.keys_values.data_ptr() == ours.data_ptr()
    assert memory.map_memory.keys_values.stride(0) == 0


def test_a_repeated_start_is_prepared_like_a_single_one() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY)
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    single, repeated = policy.init(state), policy.init(state.repeat(3))
    assert repeated.logits.shape[0] == 3
    for logits in repeated.logits:
        torch.testing.assert_close(logits, single.logits)
    assert repeated.memory.map_memory.keys_values.stride(0) == 0


def test_a_batch_of_scenarios_is_driven_like_each_of_them() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY, GREEDY)
    together = rollout(policy, Scenario.stack([SCENARIO, SCENARIO]), num_rollouts=2)
    alone = drive(policy, 0, num_rollouts=1)
    for choices in together.actions.data.flatten(0, 1):
        assert torch.equal(choices, alone.actions.data[0])


def test_agents_that_follow_the_log_are_read_as_the_tokens_that_match() -> None:
    """The car A is logged at 10 m/s: half a second is 5 m straight ahead."""
    policy = SMARTPolicy(MODEL, VOCABULARY, GREEDY)
    simulator = Simulator(policy.dynamics)
    controlled = torch.tensor([False, True, True])
    state = simulator.reset(SCENARIO, controlled)
    memory = policy.init(state)
    action, memory = policy.act(state, memory, None)
    state = simulator.step(state, action)
    arrival = policy._arrival(state)
    end = VOCABULARY.end_poses[0, arrival.token[0, 0]]
    torch.testing.assert_close(end, torch.tensor([5.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert torch.equal(arrival.token[1:, 0], action.data[1:])
    assert arrival.valid.all()
    action, _ = policy.act(state, memory, None)
    assert action.valid.all()


def test_an_agent_that_comes_late_arrives_after_a_whole_move() -> None:
    """The parked car C is first seen at step 13, so its first whole move ends at step 20."""
    policy = SMARTPolicy(MODEL, VOCABULARY, GREEDY)
    valid = SCENARIO.log.valid.clone()
    valid[2, :13] = False
    late = SCENARIO.replace(log=SCENARIO.log.replace(valid=valid))
    simulator = Simulator(policy.dynamics)
    state = simulator.reset(late, sim_agents(late))
    memory, seen = policy.init(state), []
    for _ in range(4):
        action, memory = policy.act(state, memory, None)
        seen.append(action.valid[2].item())
        state = simulator.step(state, action)
    assert seen == [False, False, True, True]


def test_an_agent_that_is_gone_does_not_act() -> None:
    """The parked car C leaves the log after step 60."""
    policy = SMARTPolicy(MODEL, VOCABULARY, GREEDY)
    controlled = torch.tensor([True, True, False])
    driven = rollout(policy, SCENARIO, controlled=controlled)
    acts = driven.actions.valid[0]
    assert acts[:, :2].all()
    assert acts[:, 2].tolist() == [True] * 11 + [False] * 5


@pytest.mark.parametrize(
    ("sampler", "allowed"),
    [
        (GREEDY, {3}),
        (TopK(k=2), {3, 1}),
        (TopP(p=0.5), {3}),
        (TopP(p=0.85), {3, 1}),
        (TopK(k=4, temperature=1e-4), {3}),
    ],
)
def test_a_sampler_chooses_among_likely_tokens(
    sampler: TopK | TopP, allowed: set[int], generator: Generator
) -> None:
    logits = torch.tensor([0.05, 0.3, 0.05, 0.6]).log().expand(200, 4)
    assert set(sampler(logits, generator).tolist()) == allowed


def test_nothing_is_recorded_for_a_gradient() -> None:
    policy = SMARTPolicy(MODEL, VOCABULARY)
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    start = policy.init(state)
    logits, _ = policy.logits(state, start)
    assert not logits.requires_grad
    assert not start.memory.past.keys_values.requires_grad


def test_rollouts_do_not_depend_on_how_many_are_worked_on_at_once() -> None:
    together = drive(SMARTPolicy(MODEL, VOCABULARY), 0, num_rollouts=5)
    for at_once in (1, 2):
        parts = drive(SMARTPolicy(MODEL, VOCABULARY, at_once=at_once), 0, num_rollouts=5)
        assert torch.equal(parts.actions.data, together.actions.data)
