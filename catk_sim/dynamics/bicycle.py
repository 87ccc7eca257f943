"""Dynamics whose actions are what a driver controls."""

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from catk_sim.constants import HISTORY_STEPS, STEP_SECONDS
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics.base import DynamicsModel
from catk_sim.geometry import se2


class InvertibleBicycle(DynamicsModel):
    """Drives agents by acceleration (m/s^2) and steering curvature (1/m).

    Gulino et al., "Waymax: An Accelerated, Data-Driven Simulator for Large-Scale Autonomous Driving
    Research", arXiv:2310.08710, the invertible kinematic bicycle. With the speed v along the
    heading and the distance s = v dt + a dt^2 / 2 that an action covers,

        v' = v + a dt,    heading' = heading + curvature s,    (x', y') = (x, y) + s (cos, sin),

    where the direction of travel is that of the heading before the step. Speed has a sign: agents
    may reverse. Motion that does not follow its heading, such as a pedestrian's side step, cannot
    be represented, and controls beyond the bounds are clipped to them.

    Args:
        max_acceleration: Bound on the acceleration either way (m/s^2).
        max_curvature: Bound on the curvature either way (1/m).
    """

    steps_per_action = 1

    def __init__(self, *, max_acceleration: float = 6.0, max_curvature: float = 0.3) -> None:
        if max_acceleration <= 0 or max_curvature <= 0:
            raise ValueError(
                f"bounds must be above 0, got {max_acceleration} m/s^2 and {max_curvature} 1/m"
            )
        self.max_acceleration = max_acceleration
        self.max_curvature = max_curvature

    @override
    def forward(
        self, now: Trajectory, action: Float[Tensor, "*batch agents 2"], agents: AgentMetadata
    ) -> Trajectory:
        acceleration, curvature = self._clip(action).unsqueeze(-2).unbind(-1)
        speed = _signed_speed(now)
        distance = speed * STEP_SECONDS + acceleration * STEP_SECONDS**2 / 2
        heading = se2.wrap_angle(now.heading + curvature * distance)
        return now.replace(
            xy=now.xy + distance[..., None] * _direction(now.heading),
            heading=heading,
            velocity=(speed + acceleration * STEP_SECONDS)[..., None] * _direction(heading),
        )

    @override
    def inverse(
        self, log: Trajectory, step: int, agents: AgentMetadata
    ) -> Float[Tensor, "*batch agents 2"]:
        now, then = log.at(step), log.at(step + 1)
        speed = _signed_speed(now)
        acceleration = (_signed_speed(then) - speed) / STEP_SECONDS
        distance = speed * STEP_SECONDS + acceleration * STEP_SECONDS**2 / 2
        turn = se2.wrap_angle(then.heading - now.heading)
        # Whoever stands cannot steer: the logged turn is noise, or a turn on the spot.
        moves = distance.abs() > 1e-3
        curvature = torch.where(moves, turn / torch.where(moves, distance, 1.0), 0.0)
        return self._clip(torch.stack([acceleration, curvature], dim=-1).squeeze(-2))

    @override
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        return log.slice(0, HISTORY_STEPS)

    def _clip(self, action: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        bounds = action.new_tensor([self.max_acceleration, self.max_curvature])
        return action.clamp(-bounds, bounds)


def _direction(heading: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 2"]:
    return torch.stack([heading.cos(), heading.sin()], dim=-1)


def _signed_speed(motion: Trajectory) -> Float[Tensor, "*batch agents steps"]:
    return (motion.velocity * _direction(motion.heading)).sum(-1)
