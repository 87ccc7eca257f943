from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS, HISTORY_STEPS, NUM_STEPS
from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Action, SimState, TensorTree
from catk_sim.dynamics import DeltaLocal, DynamicsModel, TokenDynamics
from catk_sim.rollout import Policy, rollout, sim_agents, without_late_agents
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

VOCABULARY = arc_vocabulary()


@dataclass(frozen=True, eq=False, kw_only=True)
class Count(TensorTree):
    acted: Tensor


class Eastward:
    """Moves everyone east by one metre more each time it acts."""

    dynamics: DynamicsModel = DeltaLocal()

    def init(self, state: SimState) -> Count:
        return Count(acted=torch.zeros_like(state.step))

    def act(
        self, state: SimState, memory: Count, generator: Generator | None
    ) -> tuple[Action, Count]:
        acted = memory.acted + 1
        metres = acted[..., None].expand(state.controlled.shape).to(state.history.xy.dtype)
        heading = state.current.heading[..., 0]
        delta = torch.stack([metres * heading.cos(), -metres * heading.sin(), 0 * metres], dim=-1)
        return Action(data=delta, valid=state.controlled), Count(acted=acted)


class AnyToken:
    """Draws any token."""

    dynamics: DynamicsModel = TokenDynamics(VOCABULARY)

    def init(self, state: SimState) -> Count:
        return Count(acted=torch.zeros_like(state.step))

    def act(
        self, state: SimState, memory: Count, generator: Generator | None
    ) -> tuple[Action, Count]:
        shape = state.controlled.shape
        token = torch.randint(VOCABULARY.num_tokens, shape, generator=generator)
        return Action(data=token, valid=state.controlled), memory


def test_the_policy_is_asked_at_every_step_with_its_memory() -> None:
    result = rollout(Eastward(), straight_road(), num_steps=4)
    # 1 + 2 + 3 + 4 metres from (-30, -2), where A is at the current step.
    torch.testing.assert_close(
        result.final.current.xy[0, 0, 0], torch.tensor([-20.0, -2.0]), rtol=0, atol=1e-5
    )
    assert result.actions.data.shape == (1, 4, 3, 3)
    assert result.actions.valid.shape == (1, 4, 3)


def test_history_and_simulated_steps_are_one_trajectory() -> None:
    scenario = straight_road()
    result = rollout(Eastward(), scenario)
    assert result.simulated.num_steps == NUM_STEPS
    past = result.simulated.slice(0, HISTORY_STEPS)
    torch.testing.assert_close(past.xy[0], scenario.log.xy[:, :HISTORY_STEPS])
    end = result.simulated.slice(NUM_STEPS - HISTORY_STEPS, NUM_STEPS)
    torch.testing.assert_close(end.xy, result.final.history.xy)
    assert result.final.step.tolist() == [NUM_STEPS - 1]


def test_rollouts_are_independent_and_repeatable() -> None:
    one, other = (
        rollout(
            AnyToken(),
            straight_road(),
            num_rollouts=4,
            generator=torch.Generator().manual_seed(3),
        )
        for _ in range(2)
    )
    torch.testing.assert_close(one.simulated.xy, other.simulated.xy, rtol=0, atol=0)
    ends = one.simulated.xy[:, 0, -1]
    assert len({tuple(end.tolist()) for end in ends}) == 4


def test_a_batch_has_the_rollouts_before_it() -> None:
    batch = collate([straight_road(), variations.crowd(5)])
    result = rollout(AnyToken(), batch, num_rollouts=3, num_steps=10, generator=None)
    assert result.simulated.valid.shape == (3, 2, 5, HISTORY_STEPS + 10)
    assert result.actions.data.shape == (3, 2, 2, 5)
    assert result.final.scenario.scenario_id == ("straight_road", "crowd_0") * 3


def test_a_policy_without_randomness_drives_a_batch_as_its_members() -> None:
    members = [straight_road(), variations.crowd(5)]
    batched = rollout(Eastward(), collate(members), num_steps=20)
    for index, member in enumerate(members):
        single = rollout(Eastward(), member, num_steps=20).simulated
        ours = batched.simulated.xy[:, index, : member.log.num_agents]
        mask = single.valid
        torch.testing.assert_close(ours[mask], single.xy[mask], rtol=0, atol=1e-4)


def test_all_agents_that_are_present_are_driven_unless_told_otherwise() -> None:
    scenario = variations.with_present(straight_road(), [0, 1])
    assert sim_agents(scenario).tolist() == [True, True, False]
    result = rollout(Eastward(), scenario, num_steps=1)
    assert result.final.controlled.tolist() == [[True, True, False]]
    only_b = torch.tensor([False, True, False])
    result = rollout(Eastward(), scenario, num_steps=1, controlled=only_b)
    torch.testing.assert_close(
        result.final.current.xy[0, 0, 0], scenario.log.xy[0, 11], rtol=0, atol=0
    )


def test_a_number_of_steps_that_no_number_of_actions_covers_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 5, got 7"):
        rollout(AnyToken(), straight_road(), num_steps=7)


def test_a_log_of_eleven_steps_can_be_simulated_on() -> None:
    result = rollout(Eastward(), variations.short(straight_road()))
    assert result.simulated.num_steps == HISTORY_STEPS + FUTURE_STEPS
    assert result.simulated.valid[0, :, -1].all()


def test_policies_are_known_by_what_they_offer() -> None:
    assert isinstance(Eastward(), Policy)


def test_agents_that_come_later_can_be_hidden() -> None:
    scenario = straight_road()
    valid = scenario.log.valid.clone()
    valid[1, :20], valid[1, 20:] = False, True
    valid[2, CURRENT_STEP], valid[2, :CURRENT_STEP] = False, True
    valid[0] = True
    hidden = without_late_agents(scenario.replace(log=scenario.log.replace(valid=valid))).log.valid

    assert hidden[0].all()
    assert not hidden[1].any()
    assert torch.equal(hidden[2, :CURRENT_STEP], valid[2, :CURRENT_STEP])
    assert not hidden[2, CURRENT_STEP:].any()
