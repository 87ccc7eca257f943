from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from catk_sim.datatypes import (
    Action,
    AgentMetadata,
    Scenario,
    SimState,
    TensorTree,
    Trajectory,
)
from catk_sim.dynamics import DeltaLocal, DynamicsModel, TokenDynamics
from catk_sim.envs import WaymoVectorEnv
from catk_sim.rollout import Policy, rollout
from tests.catk_sim.envs import variations
from tests.scenes import arc_vocabulary, straight_road

VOCABULARY = arc_vocabulary()


@dataclass(frozen=True, eq=False, kw_only=True)
class Memory(TensorTree):
    acted: Tensor
    token: Tensor


class SpeedingUp:
    """Drives straight on, a metre further each time it acts, and checks that it is asked in order.

    Args:
        kind: "delta" moves by that much in 0.1 s, "token" by a token of that speed in 0.5 s.
        horizon: Steps after which it cannot go on.
    """

    def __init__(self, kind: str, horizon: int = 80) -> None:
        self.kind = kind
        self.horizon = horizon
        self.dynamics: DynamicsModel = (
            TokenDynamics(VOCABULARY) if kind == "token" else DeltaLocal()
        )

    def init(self, state: SimState) -> Memory:
        shape = state.controlled.shape
        return Memory(
            acted=torch.zeros_like(state.step), token=torch.zeros(shape, dtype=torch.int64)
        )

    def act(
        self, state: SimState, memory: Memory, generator: Generator | None
    ) -> tuple[Action, Memory]:
        assert torch.equal(state.step, 10 + self.dynamics.steps_per_action * memory.acted)
        assert (state.step < 10 + self.horizon).all()
        shape = state.controlled.shape
        acted = memory.acted + 1
        if self.kind == "token":
            acts = (memory.acted > 0)[:, None] & state.controlled
            assert torch.equal(state.last_action.valid, acts)
            assert torch.equal(state.last_action.data[acts], memory.token[acts])
            data = (7 * acted + 4)[:, None].expand(shape)
            return Action(data=data, valid=state.controlled), Memory(acted=acted, token=data)
        metres = acted[:, None].expand(shape).to(state.history.xy.dtype)
        data = torch.stack([metres, 0 * metres, 0 * metres], dim=-1)
        return Action(data=data, valid=state.controlled), memory.replace(acted=acted)


def make(num_envs: int, background: Policy, **changes: Any) -> WaymoVectorEnv:
    arguments: dict[str, Any] = {
        "data": [straight_road(), variations.crowd(6), variations.crowd(9, seed=2)],
        "vocabulary": VOCABULARY,
        "background": background,
        "controlled": "sdc",
        "terminate_on_collision": False,
        "observation": "minimal",
        "report": (),
        **changes,
    }
    env = gymnasium.make_vec("CatK-Waymo-v0", num_envs=num_envs, **arguments).unwrapped
    assert isinstance(env, WaymoVectorEnv)
    return env


def stand_still(env: WaymoVectorEnv) -> np.ndarray:
    return np.zeros_like(env.action_space.sample())


@pytest.mark.parametrize("policy", ["token", "delta"])
@pytest.mark.parametrize("action", ["token", "delta"])
def test_the_others_move_as_in_a_rollout_of_the_policy(action: str, policy: str) -> None:
    scenario = variations.crowd(6)
    background = SpeedingUp(policy)
    env = make(1, background, action=action, data=[scenario])
    env.reset()
    num_steps = 20
    for _ in range(num_steps // env.worlds.steps_per_action):
        env.step(stand_still(env))
    driven = scenario.agents.valid & scenario.log.valid[:, 10] & ~scenario.agents.is_sdc
    # A simulation that acts in tokens starts from the history as told in tokens.
    background.dynamics = StartingAs(background.dynamics, env.worlds.actions.dynamics)
    alone = rollout(background, scenario, num_steps=num_steps, controlled=driven)
    ours, theirs = env.state.history.xy[0], alone.final.history.xy[0]
    torch.testing.assert_close(ours[1:], theirs[1:], rtol=0, atol=1e-4)
    # The sdc has the user's actions instead, and stands.
    assert (ours[0].diff(dim=0).norm(dim=-1) < 1e-6).all()


class StartingAs(DynamicsModel):
    """One model, whose simulations start as those of another."""

    def __init__(self, model: DynamicsModel, other: DynamicsModel) -> None:
        self.model, self.other = model, other
        self.steps_per_action = model.steps_per_action

    def forward(self, now: Trajectory, action: Tensor, agents: AgentMetadata) -> Trajectory:
        return self.model.forward(now, action, agents)

    def inverse(self, log: Trajectory, step: int, agents: AgentMetadata) -> Tensor:
        return self.model.inverse(log, step, agents)

    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        return self.other.history(log, agents)


@pytest.mark.parametrize("policy", ["token", "delta"])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_worlds_may_be_at_different_steps(policy: str, mode: str) -> None:
    env = make(3, SpeedingUp(policy), action="delta", autoreset_mode=mode, horizon=12)
    alone = [
        make(1, SpeedingUp(policy), action="delta", autoreset_mode=mode, horizon=12)
        for _ in range(3)
    ]
    scenarios: list[Scenario] = [variations.crowd(6, seed) for seed in range(3)]
    env.reset(options={"scenario": scenarios})
    for one, scenario in zip(alone, scenarios, strict=True):
        one.reset(options={"scenario": scenario})
    for step in range(11):
        if step in (3, 7):
            world = step % 3
            mask = np.arange(3) == world
            again = variations.crowd(4 + step, seed=step)
            env.reset(options={"reset_mask": mask, "scenario": again})
            alone[world].reset(options={"scenario": again})
        env.step(stand_still(env))
        for world, one in enumerate(alone):
            one.step(stand_still(one))
            expected = one.state.history
            num_agents = expected.num_agents
            torch.testing.assert_close(
                env.state.history.xy[world, :num_agents], expected.xy[0], rtol=0, atol=1e-4
            )


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_new_episode_starts_the_policy_anew(mode: str) -> None:
    # The policy itself asserts that it is asked in order, and no longer than an episode lasts.
    env = make(3, SpeedingUp("delta", 3), action="delta", autoreset_mode=mode, horizon=3)
    env.reset(seed=0)
    env.step(stand_still(env))
    env.reset(options={"reset_mask": np.array([False, True, False])})
    for _ in range(9):
        env.step(stand_still(env))


def test_agents_that_enter_later_follow_the_log() -> None:
    scenario = variations.crowd(30)
    late = scenario.log.valid[:, 30] & ~scenario.log.valid[:, 10]
    assert late.any()
    env = make(1, SpeedingUp("token"), action="delta", data=[scenario])
    env.reset()
    for _ in range(20):
        env.step(stand_still(env))
    logged = scenario.log.xy[:, 30]
    torch.testing.assert_close(env.state.current.xy[0, late, 0], logged[late], rtol=0, atol=0)


class Drawing:
    """Moves by random tokens, unless it declines."""

    dynamics: DynamicsModel = TokenDynamics(VOCABULARY)

    def __init__(self, *, declines: bool = False) -> None:
        self.declines = declines

    def init(self, state: SimState) -> Memory:
        return Memory(acted=state.step, token=state.step)

    def act(
        self, state: SimState, memory: Memory, generator: Generator | None
    ) -> tuple[Action, Memory]:
        shape = state.controlled.shape
        token = torch.randint(VOCABULARY.num_tokens, shape, generator=generator)
        return Action(data=token, valid=state.controlled & (not self.declines)), memory


class Watching(Drawing):
    """Remembers whom it was asked to drive."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def init(self, state: SimState) -> Memory:
        self.asked.append(state.controlled)
        return super().init(state)

    def act(
        self, state: SimState, memory: Memory, generator: Generator | None
    ) -> tuple[Action, Memory]:
        self.asked.append(state.controlled)
        return super().act(state, memory, generator)


def test_the_policy_is_asked_for_those_who_are_present_and_not_controlled() -> None:
    watching = Watching()
    scenario = variations.with_present(variations.crowd(4), [0, 2])
    env = make(1, watching, action="token", data=[scenario])
    env.reset()
    env.step(stand_still(env))
    assert [asked.tolist() for asked in watching.asked] == [[[False, False, True, False]]] * 2


def test_the_seed_decides_what_a_random_policy_does() -> None:
    def play(seed: int) -> Tensor:
        env = make(2, Drawing(), action="token", data=[variations.crowd(6)])
        env.reset(seed=seed)
        env.step(stand_still(env))
        return env.state.history.xy

    assert torch.equal(play(1), play(1))
    assert not torch.equal(play(1), play(2))


def test_agents_that_the_policy_declines_to_drive_follow_the_log() -> None:
    scenario = variations.crowd(6)
    env = make(1, Drawing(declines=True), action="delta", data=[scenario])
    env.reset()
    for _ in range(7):
        env.step(stand_still(env))
    torch.testing.assert_close(
        env.state.current.xy[0, 1:, 0], scenario.log.xy[1:, 17], rtol=0, atol=0
    )
