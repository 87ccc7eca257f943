"""Actions that last longer than a step."""

import torch
from torch import Tensor
from typing_extensions import override

from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics.base import DynamicsModel


class Held(DynamicsModel):
    """Applies the same action several times in a row, as if the driver held the pedal and wheel.

    A learner that decides less often sees further ahead with the same number of decisions. It is
    the action repeat, or frame skip, of Mnih et al., arXiv:1312.5602.

    Args:
        dynamics: What the action means. Its actions must be real numbers.
        times: How often it is applied.
    """

    def __init__(self, dynamics: DynamicsModel, times: int) -> None:
        if times < 1:
            raise ValueError(f"an action must be held at least 1 time, got {times}")
        self.dynamics = dynamics
        self.times = times
        self.steps_per_action = times * dynamics.steps_per_action

    @override
    def forward(self, now: Trajectory, action: Tensor, agents: AgentMetadata) -> Trajectory:
        parts = []
        for _ in range(self.times):
            parts.append(self.dynamics.forward(now, action, agents))
            now = parts[-1].at(-1)
        return Trajectory.join(parts)

    @override
    def inverse(self, log: Trajectory, step: int, agents: AgentMetadata) -> Tensor:
        # A log need not hold its action. The mean of what it does is the nearest to that.
        stride = self.dynamics.steps_per_action
        each = [
            self.dynamics.inverse(log, step + time * stride, agents) for time in range(self.times)
        ]
        return torch.stack(each).mean(0)

    @override
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        return self.dynamics.history(log, agents)
