"""Dynamics whose actions are states."""

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics.base import DynamicsModel
from catk_sim.geometry import se2


class StateDynamics(DynamicsModel):
    """Puts agents where the action says: x, y (m), heading (rad), and their velocity (m/s).

    In the scenario's frame. Nothing is checked for feasibility: this is how a planner with its own
    motion model drives. The height stays.
    """

    steps_per_action = 1

    @override
    def forward(
        self, now: Trajectory, action: Float[Tensor, "*batch agents 5"], agents: AgentMetadata
    ) -> Trajectory:
        state = action.unsqueeze(-2)
        return now.replace(
            xy=state[..., :2], heading=se2.wrap_angle(state[..., 2]), velocity=state[..., 3:]
        )

    @override
    def inverse(
        self, log: Trajectory, step: int, agents: AgentMetadata
    ) -> Float[Tensor, "*batch agents 5"]:
        then = log.at(step + 1)
        heading = then.heading.unsqueeze(-1)
        return torch.cat([then.xy, heading, then.velocity], dim=-1).squeeze(-2)

    @override
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        return log.slice(0, HISTORY_STEPS)
