"""Policies, and episodes driven by them."""

from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS, HISTORY_STEPS
from catk_sim.datatypes import Action, Rollout, Scenario, SimState, TensorTree, Trajectory
from catk_sim.dynamics import DynamicsModel
from catk_sim.simulator import Simulator

Memory = TypeVar("Memory", bound=TensorTree)


@runtime_checkable
class Policy(Protocol[Memory]):
    """Chooses actions. Whatever it must remember is passed through, never kept."""

    @property
    def dynamics(self) -> DynamicsModel:
        """What its actions mean."""
        ...

    def init(self, state: SimState) -> Memory:
        """Prepares for an episode. What does not change in it, such as the map, is read here."""
        ...

    def act(
        self, state: SimState, memory: Memory, generator: Generator | None
    ) -> tuple[Action, Memory]:
        """Chooses an action for every agent. Called once for each state, in order."""
        ...


@runtime_checkable
class TokenPolicy(Policy[Memory], Protocol[Memory]):
    """A policy over motion tokens, whose scores can be read before a choice is made."""

    def logits(
        self, state: SimState, memory: Memory
    ) -> tuple[Float[Tensor, "*batch agents tokens"], Memory]:
        """Scores every token for every agent. `act` is a choice from these."""
        ...


def sim_agents(scenario: Scenario) -> Bool[Tensor, "*batch agents"]:
    """Tells which agents WOSAC simulates: those that are valid at the current step."""
    return scenario.agents.valid & scenario.log.valid[..., CURRENT_STEP]


def without_late_agents(scenario: Scenario) -> Scenario:
    """Hides agents that are absent at the current step from the steps after it.

    Whoever is not simulated follows the log. To see such agents come is to see the future, which
    the Sim Agents Challenge forbids, and its scores do not know them.
    """
    log = scenario.log
    step = torch.arange(log.num_steps, device=log.valid.device)
    valid = log.valid & (sim_agents(scenario)[..., None] | (step <= CURRENT_STEP))
    return scenario.replace(log=log.replace(valid=valid))


def rollout(
    policy: Policy[Memory],
    scenario: Scenario,
    *,
    num_rollouts: int = 1,
    num_steps: int = FUTURE_STEPS,
    controlled: Bool[Tensor, "*batch agents"] | None = None,
    generator: Generator | None = None,
) -> Rollout:
    """Drives scenarios in closed loop.

    Args:
        policy: Who drives.
        scenario: One scenario, or a batch.
        num_rollouts: Independent episodes of each scenario; the first dimension of the result.
        num_steps: Steps to simulate after the current one (10 Hz).
        controlled: Agents that the policy drives; by default all that are valid at the current
            step. The others follow the log.
        generator: Source of randomness.

    Returns:
        An episode whose batch is (num_rollouts, *batch of the scenario).

    Example:
        >>> from catk_sim.datasets import open_scenarios
        >>> from policies.registry import make_policy
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> driven = rollout(make_policy("idm"), scenario, num_rollouts=4)
        >>> driven.simulated.xy.shape  # Rollouts, agents, steps of 0.1 s, x and y (m).
        torch.Size([4, 40, 91, 2])
    """
    simulator = Simulator(policy.dynamics)
    per_action = policy.dynamics.steps_per_action
    if num_steps % per_action:
        raise ValueError(f"num_steps must be a multiple of {per_action}, got {num_steps}")
    start = simulator.reset(scenario, sim_agents(scenario) if controlled is None else controlled)
    # What the policy prepares does not differ between rollouts, so it is prepared once.
    memory = policy.init(start).repeat(num_rollouts)
    state = start.repeat(num_rollouts)
    motion, actions = [state.history], []
    for _ in range(num_steps // per_action):
        action, memory = policy.act(state, memory, generator)
        state = simulator.step(state, action)
        motion.append(state.history.slice(HISTORY_STEPS - per_action, HISTORY_STEPS))
        actions.append(action)
    dim = state.controlled.dim() - 1
    return Rollout(
        simulated=Trajectory.join(motion),
        final=state,
        actions=Action(
            data=torch.stack([action.data for action in actions], dim=dim),
            valid=torch.stack([action.valid for action in actions], dim=dim),
        ),
    )
