"""Dynamics whose actions are motion tokens."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from catk_sim.constants import HISTORY_STEPS, STEP_SECONDS, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics.base import DynamicsModel
from catk_sim.geometry import se2
from catk_sim.tokens import MotionVocabulary, match_trajectory, recovery_token
from catk_sim.tokens.matching import prepare


class TokenDynamics(DynamicsModel):
    """Moves agents by half a second of a vocabulary's motion, placed at their current pose.

    Args:
        vocabulary: The moves to choose from.
        snap_start: Whether simulations start from the history as told in tokens, as SMART and CAT-K
            do: a few centimetres off the log, and where a policy that was trained on tokens expects
            to be. Otherwise they start from the log.
    """

    steps_per_action = STEPS_PER_TOKEN

    def __init__(self, vocabulary: MotionVocabulary, *, snap_start: bool = True) -> None:
        self.vocabulary = vocabulary
        self.snap_start = snap_start

    @override
    def forward(
        self, now: Trajectory, action: Int[Tensor, "*batch agents"], agents: AgentMetadata
    ) -> Trajectory:
        row = self.vocabulary.row_of_type[agents.type]
        moves = self.vocabulary.poses.to(now.xy.dtype)[row, action][..., 1:, :]
        xy = se2.to_global(moves[..., :2], now.xy, now.heading)
        shape = xy.shape[:-1]
        return Trajectory(
            xy=xy,
            z=now.z.expand(shape),
            heading=se2.wrap_angle(now.heading + moves[..., 2]),
            velocity=_velocity(now.xy, xy),
            valid=now.valid.expand(shape),
        )

    @override
    def inverse(
        self, log: Trajectory, step: int, agents: AgentMetadata
    ) -> Int[Tensor, "*batch agents"]:
        now, then = _pose(log.at(step)), _pose(log.at(step + STEPS_PER_TOKEN))
        return recovery_token(self.vocabulary, agents.type, now, then)

    @override
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        logged = log.slice(0, HISTORY_STEPS)
        if not self.snap_start:
            return logged
        prepared = prepare(logged, agents)
        return self.retell(prepared, agents).where(prepared.valid[..., -1], logged)

    def retell(self, prepared: Trajectory, agents: AgentMetadata) -> Trajectory:
        """Tells a log in tokens, each placed where the one before it ended.

        Args:
            prepared: The log, mended as `tokens.matching.prepare` does. What cannot be told in
                tokens stays as it is.
            agents: Type and size of the agents.
        """
        tokens = match_trajectory(prepared, agents, self.vocabulary).tokens
        parts = [prepared.at(0)]
        for mark in range(tokens.token.shape[-1]):
            start = (mark * STEPS_PER_TOKEN) + 1
            told = self.forward(parts[-1].at(-1), tokens.token[..., mark], agents)
            kept = prepared.slice(start, start + STEPS_PER_TOKEN)
            parts.append(told.where(tokens.valid[..., mark], kept))
        return Trajectory.join(parts)


def _pose(motion: Trajectory) -> Float[Tensor, "*batch agents 3"]:
    return torch.cat([motion.xy, motion.heading[..., None]], dim=-1).squeeze(-2)


def _velocity(
    start: Float[Tensor, "*batch agents 1 2"], xy: Float[Tensor, "*batch agents steps 2"]
) -> Float[Tensor, "*batch agents steps 2"]:
    return torch.cat([start, xy], dim=-2).diff(dim=-2) / STEP_SECONDS
