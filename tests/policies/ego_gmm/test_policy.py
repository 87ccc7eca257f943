"""The ego policy as a driver."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Generator

from catk_sim.constants import (
    CURRENT_STEP,
    HISTORY_MARKS,
    HISTORY_STEPS,
    NUM_MARKS,
    STEPS_PER_TOKEN,
)
from catk_sim.datatypes import Rollout
from catk_sim.geometry.se2 import to_local
from catk_sim.rollout import Policy, rollout, sim_agents
from catk_sim.simulator import Simulator
from catk_sim.tokens import MotionTokens, match_step, tokenize
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.mixture import PoseMixture
from policies.ego_gmm.model import EgoGMM, of_sdc
from policies.ego_gmm.policy import EgoGMMPolicy, ModeSampler
from policies.smart.config import SMARTConfig
from policies.smart.map_tokens import tokenize_map
from policies.smart.model import motion_since_last_mark
from tests import scenes

SCENARIO = scenes.straight_road()


def small_model(mixture: MixtureConfig) -> EgoGMM:
    """Biases and norms matter, in evaluation mode."""
    torch.manual_seed(0)
    model = EgoGMM(SMARTConfig.preset("micro"), mixture, scenes.arc_vocabulary())
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


MODEL = small_model(MixtureConfig())
GOES_ON = small_model(MixtureConfig(from_last_move=True))


def drive(
    sampler: ModeSampler | None = None,
    seed: int = 0,
    num_rollouts: int = 2,
    model: EgoGMM = MODEL,
) -> Rollout:
    return rollout(
        EgoGMMPolicy(model, sampler),
        SCENARIO,
        num_rollouts=num_rollouts,
        generator=Generator().manual_seed(seed),
    )


def test_it_is_a_policy() -> None:
    assert isinstance(EgoGMMPolicy(MODEL), Policy)


def test_it_drives_the_sdc_and_nobody_else() -> None:
    driven = drive()
    assert torch.equal(driven.actions.valid, SCENARIO.agents.is_sdc.expand(2, 16, 3))
    assert torch.equal(driven.simulated.xy[:, 1:], SCENARIO.log.xy[1:].expand(2, -1, -1, -1))
    assert not torch.equal(driven.simulated.xy[:, 0, 11:], SCENARIO.log.xy[0, 11:].expand(2, -1, 2))


def test_a_seed_decides_the_rollouts() -> None:
    wild = ModeSampler(k=16, temperature=1.0, std_scale=1.0)
    first, same, other = drive(wild), drive(wild), drive(wild, seed=1)
    assert torch.equal(first.simulated.xy, same.simulated.xy)
    assert not torch.equal(first.simulated.xy, other.simulated.xy)
    assert not torch.equal(first.simulated.xy[0], first.simulated.xy[1])


def test_by_default_rollouts_are_near_copies() -> None:
    driven = drive()
    torch.testing.assert_close(driven.simulated.xy[0], driven.simulated.xy[1], atol=0.3, rtol=0)


def mixtures_in_parallel(model: EgoGMM, driven: Rollout) -> PoseMixture:
    """What the network makes of the driven states, in one pass."""
    agents, vocabulary = SCENARIO.agents, model.vocabulary
    history = tokenize(SCENARIO.log.slice(0, HISTORY_STEPS), agents, vocabulary).tokens
    simulated = driven.simulated.map(lambda tensor: tensor[0])
    marks = [simulated.at(step) for step in range(CURRENT_STEP, 91, STEPS_PER_TOKEN)]
    parts = [history]
    for before, now in pairwise(marks):
        token = match_step(
            vocabulary,
            agents.type,
            to_local(now.xy, before.xy, before.heading)[:, 0],
            (now.heading - before.heading)[:, 0],
        )
        valid = before.valid & now.valid
        parts.append(
            MotionTokens(token=token[:, None], xy=now.xy, heading=now.heading, valid=valid)
        )
    tokens = MotionTokens(
        token=torch.cat([part.token for part in parts], dim=-1),
        xy=torch.cat([part.xy for part in parts], dim=-2),
        heading=torch.cat([part.heading for part in parts], dim=-1),
        valid=torch.cat([part.valid for part in parts], dim=-1),
    )
    map_tokens = tokenize_map(SCENARIO.roadgraph, SCENARIO.traffic_lights, model.curves)
    with torch.no_grad():
        features = model.encoder.features(tokens, agents, map_tokens)
        values = (features, motion_since_last_mark(tokens), tokens.heading)
        now = slice(HISTORY_MARKS - 1, NUM_MARKS - 1)
        return model.mixture(*(of_sdc(value, agents)[now] for value in values))


def test_a_mode_of_no_spread_is_its_mean() -> None:
    policy = EgoGMMPolicy(MODEL, ModeSampler(k=1, std_scale=0.0))
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    memory = policy.init(state)
    mixture, _ = policy.mixture(state, memory)
    action, _ = policy.act(state, memory, None)
    likeliest = mixture.mean_of(mixture.logits.argmax(-1))
    torch.testing.assert_close(action.data[0, :2], likeliest[:2])
    turn = action.data[0, 2] - likeliest[2]
    torch.testing.assert_close(turn.cos(), torch.tensor(1.0))
    assert (action.data[1:] == 0).all()


def test_a_model_with_a_bandwidth_drives_to_the_peak() -> None:
    model = small_model(MixtureConfig(bandwidth=0.4))
    policy = EgoGMMPolicy(model)
    state = Simulator(policy.dynamics).reset(SCENARIO, sim_agents(SCENARIO))
    memory = policy.init(state)
    mixture, _ = policy.mixture(state, memory)
    action, _ = policy.act(state, memory, None)
    assert torch.equal(action.data[0], mixture.peak(0.4))
    assert not torch.equal(action.data[0], mixture.peak(0.1))
    likeliest, _ = EgoGMMPolicy(model, ModeSampler()).act(state, memory, Generator())
    assert not torch.equal(action.data[0], likeliest.data[0])


@pytest.mark.parametrize("model", [MODEL, GOES_ON], ids=["from_here", "from_last_move"])
def test_rollouts_read_what_the_parallel_pass_reads(model: EgoGMM) -> None:
    driven = drive(ModeSampler(k=1, std_scale=0.0), num_rollouts=1, model=model)
    chosen = driven.actions.data[0, :, 0]
    mixture = mixtures_in_parallel(model, driven)
    likeliest = mixture.mean_of(mixture.logits.argmax(-1))
    torch.testing.assert_close(chosen[:, :2], likeliest[:, :2], atol=2e-3, rtol=0)


def test_a_batch_is_driven_as_its_members_are() -> None:
    policy = EgoGMMPolicy(MODEL, ModeSampler(k=1, std_scale=0.0))
    other = SCENARIO.replace(log=SCENARIO.log.replace(xy=SCENARIO.log.xy + 3))
    together = rollout(policy, type(SCENARIO).stack([SCENARIO, other]))
    for index, alone in enumerate((SCENARIO, other)):
        expected = rollout(policy, alone).simulated.xy[0]
        torch.testing.assert_close(together.simulated.xy[0, index], expected, atol=1e-3, rtol=0)


def test_an_absent_sdc_is_not_driven() -> None:
    valid = SCENARIO.log.valid.clone()
    valid[0, CURRENT_STEP:] = False
    gone = SCENARIO.replace(log=SCENARIO.log.replace(valid=valid))
    driven = rollout(EgoGMMPolicy(MODEL), gone, generator=Generator().manual_seed(0))
    assert not driven.actions.valid.any()
    assert not driven.simulated.valid[0, 0, CURRENT_STEP:].any()


def test_no_gradient_is_recorded() -> None:
    assert not drive().simulated.xy.requires_grad


@pytest.mark.parametrize("change", [{"k": 0}, {"k": 17}, {"temperature": 0.0}])
def test_impossible_samplers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        drive(ModeSampler(**{"k": 3, **change}))
