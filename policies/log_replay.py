"""Agents that do what they did."""

import torch
from torch import Generator

from catk_sim.datatypes import Action, SimState
from catk_sim.dynamics import DynamicsModel, StateDynamics
from policies.memory import NoMemory


class LogReplay:
    """Replays the log, to the bit: agents leave and come back when they do in the log.

    Nobody acts, because whoever does not act follows the log. The actions tell which ones would
    have led where the log goes; beyond its end they mean nothing.

    Args:
        dynamics: What these actions mean.
    """

    def __init__(self, dynamics: DynamicsModel | None = None) -> None:
        self.dynamics = StateDynamics() if dynamics is None else dynamics

    def init(self, state: SimState) -> NoMemory:
        """Prepares nothing."""
        return NoMemory()

    def act(
        self, state: SimState, memory: NoMemory, generator: Generator | None
    ) -> tuple[Action, NoMemory]:
        """Reads the next action off the log."""
        ahead = torch.arange(self.dynamics.steps_per_action + 1, device=state.step.device)
        log = state.scenario.log.gather(state.step[..., None] + ahead)
        action = self.dynamics.inverse(log, 0, state.scenario.agents)
        return Action(data=action, valid=torch.zeros_like(state.controlled)), memory
