"""Dynamics whose actions are poses half a second ahead."""

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from catk_sim.constants import HISTORY_STEPS, STEP_SECONDS, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics.base import DynamicsModel
from catk_sim.geometry import se2


class PoseDynamics(DynamicsModel):
    """Moves agents to poses half a second ahead, in their own frames: x, y (m), heading (rad).

    In between, the corners of an agent's box go straight and evenly from here to there, as in the
    ego policy of arXiv:2412.05334: so does its centre, and its heading goes along the chord of the
    turn. Any pose is accepted, however infeasible for a vehicle.
    """

    steps_per_action = STEPS_PER_TOKEN

    @override
    def forward(
        self, now: Trajectory, action: Float[Tensor, "*batch agents 3"], agents: AgentMetadata
    ) -> Trajectory:
        share = torch.arange(1, STEPS_PER_TOKEN + 1, device=action.device) / STEPS_PER_TOKEN
        share = share.to(action.dtype)
        pose = action[..., None, :]
        turn = torch.atan2(share * pose[..., 2].sin(), (1 - share) + share * pose[..., 2].cos())
        xy = se2.to_global(share[:, None] * pose[..., :2], now.xy, now.heading)
        return Trajectory(
            xy=xy,
            z=now.z.expand(turn.shape),
            heading=se2.wrap_angle(now.heading + turn),
            velocity=torch.cat([now.xy, xy], dim=-2).diff(dim=-2) / STEP_SECONDS,
            valid=now.valid.expand(turn.shape),
        )

    @override
    def inverse(
        self, log: Trajectory, step: int, agents: AgentMetadata
    ) -> Float[Tensor, "*batch agents 3"]:
        now, then = log.at(step), log.at(step + STEPS_PER_TOKEN)
        xy = se2.to_local(then.xy, now.xy, now.heading)
        turn = se2.wrap_angle(then.heading - now.heading)
        return torch.cat([xy, turn[..., None]], dim=-1).squeeze(-2)

    @override
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        return log.slice(0, HISTORY_STEPS)
