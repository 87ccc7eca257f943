"""States and rollouts of a scenario, made by hand."""

import torch
from torch import Tensor

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datatypes import Action, Rollout, Scenario, SimState, Trajectory


def state_of(scenario: Scenario, step: int, controlled: Tensor | None = None) -> SimState:
    """The logged state at a step, with its history; everyone is controlled unless told."""
    controlled = scenario.agents.valid if controlled is None else controlled
    return SimState(
        scenario=scenario,
        history=scenario.log.slice(step + 1 - HISTORY_STEPS, step + 1),
        step=torch.tensor(step),
        controlled=controlled,
        last_action=Action(
            data=torch.zeros(controlled.shape, dtype=torch.int64),
            valid=torch.zeros_like(controlled),
        ),
    )


def rollout_of(scenario: Scenario, simulated: Trajectory) -> Rollout:
    """An episode that led along a given motion. It remembers no actions."""
    last = simulated.num_steps - 1
    final = state_of(scenario, last).replace(
        history=simulated.slice(last + 1 - HISTORY_STEPS, last + 1)
    )
    none = torch.zeros(0, simulated.num_agents, dtype=torch.int64)
    return Rollout(
        simulated=simulated, final=final, actions=Action(data=none, valid=none.to(torch.bool))
    )


def moved(scenario: Scenario, x: float, y: float) -> Trajectory:
    """The log, with every agent aside by some metres."""
    return scenario.log.replace(xy=scenario.log.xy + scenario.log.xy.new_tensor([x, y]))
