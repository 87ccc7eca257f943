"""Dynamics whose actions are displacements."""

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from catk_sim.constants import HISTORY_STEPS, STEP_SECONDS
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics.base import DynamicsModel
from catk_sim.geometry import se2


class DeltaLocal(DynamicsModel):
    """Displaces agents in their own frames: dx (m, forward), dy (m, left), dheading (rad).

    Any displacement is accepted, however infeasible for a vehicle.
    """

    steps_per_action = 1

    @override
    def forward(
        self, now: Trajectory, action: Float[Tensor, "*batch agents 3"], agents: AgentMetadata
    ) -> Trajectory:
        delta = action.unsqueeze(-2)
        xy = se2.to_global(delta[..., :2], now.xy, now.heading)
        return now.replace(
            xy=xy,
            heading=se2.wrap_angle(now.heading + delta[..., 2]),
            velocity=(xy - now.xy) / STEP_SECONDS,
        )

    @override
    def inverse(
        self, log: Trajectory, step: int, agents: AgentMetadata
    ) -> Float[Tensor, "*batch agents 3"]:
        now, then = log.at(step), log.at(step + 1)
        dxy = se2.to_local(then.xy, now.xy, now.heading)
        dheading = se2.wrap_angle(then.heading - now.heading)
        return torch.cat([dxy, dheading.unsqueeze(-1)], dim=-1).squeeze(-2)

    @override
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        return log.slice(0, HISTORY_STEPS)
