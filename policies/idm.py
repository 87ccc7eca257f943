"""Agents that follow their lane, and whoever is ahead on it."""

import math
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from catk_sim.constants import STEP_SECONDS
from catk_sim.datatypes import Action, SimState, TensorTree, TrafficLightState
from catk_sim.dynamics import StateDynamics
from catk_sim.geometry.se2 import rotate
from catk_sim.lane_following import ROUTE_LENGTH, LaneRoutes
from policies.constant_velocity import extrapolated
from policies.leader import find_leader

Array = TypeVar("Array", Tensor, np.ndarray)
"""Arrays of either kind, whose shapes broadcast."""

STOP_LINE_TOLERANCE = 2.0
"""How far beyond a red light's stop line an agent still holds (m)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IDMMemory(TensorTree):
    """Where everybody is going.

    Attributes:
        routes: The way of each vehicle.
        progress: Arc length that it has covered (m).
        cruise: Its desired speed where the map tells no limit (m/s).
    """

    routes: LaneRoutes
    progress: Float[Tensor, "*batch agents"]
    cruise: Float[Tensor, "*batch agents"]


@dataclass(frozen=True, kw_only=True)
class IDM:
    """Drives vehicles along their lanes by the intelligent driver model.

    Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and microscopic
    simulations", Phys. Rev. E 62 (2000), arXiv:cond-mat/0002177, equations 1 and 2: with the speed
    v, and the gap s and approach rate w to what is ahead,

        dv/dt = a [1 - (v / v0)^4 - (s* / s)^2],    s* = s0 + max(0, v T + v w / (2 sqrt(a b))).

    Ahead are the nearest agent whose box reaches into the way, red lights, and the end of the last
    lane; the strictest counts. Pedestrians, cyclists, and vehicles that are not on a lane keep
    their velocity.
    """

    max_acceleration: float = 1.5
    """a (m/s^2). This and the next suit a city; the paper's motorway has 0.73 and 1.67."""
    comfortable_deceleration: float = 2.0
    """b (m/s^2)."""
    max_deceleration: float = 8.0
    """Bound on braking (m/s^2), which the model does not have."""
    time_headway: float = 1.6
    """T (s)."""
    min_gap: float = 2.0
    """s0 (m)."""
    desired_speed: float = 13.4
    """v0 (m/s) where the map tells no speed limit, unless the agent starts faster."""

    dynamics = StateDynamics()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} must be above 0, got {value}")

    def init(self, state: SimState) -> IDMMemory:
        """Lays the routes."""
        routes = LaneRoutes.from_state(state)
        return IDMMemory(
            routes=routes,
            progress=torch.zeros_like(routes.length),
            cruise=_speed(state).clamp(min=self.desired_speed),
        )

    def act(
        self, state: SimState, memory: IDMMemory, generator: Generator | None
    ) -> tuple[Action, IDMMemory]:
        """Accelerates or brakes, and moves everybody on."""
        routes, speed = memory.routes, _speed(state)
        acceleration = self._acceleration(state, memory, speed)
        later = (speed + acceleration * STEP_SECONDS).clamp(min=0)
        progress = memory.progress + (speed + later) / 2 * STEP_SECONDS
        progress = progress.clamp(max=ROUTE_LENGTH)
        xy, heading = routes.pose_at(progress)
        velocity = later[..., None] * torch.stack([heading.cos(), heading.sin()], dim=-1)
        follows = torch.cat([xy, heading[..., None], velocity], dim=-1)
        data = torch.where(routes.valid[..., None], follows, extrapolated(state.current))
        return Action(data=data, valid=state.controlled), memory.replace(progress=progress)

    def _acceleration(
        self, state: SimState, memory: IDMMemory, speed: Float[Tensor, "*batch agents"]
    ) -> Float[Tensor, "*batch agents"]:
        routes, progress = memory.routes, memory.progress
        front = progress + state.scenario.agents.size[..., 0] / 2
        gap, leader_speed = find_leader(state, routes, progress)
        acceleration = torch.stack(
            [
                self.follow(speed, gap, speed - leader_speed),
                self.follow(speed, self._red_light(state, routes, front, speed), speed),
                self.follow(speed, routes.length - front, speed),
            ]
        ).amin(dim=0)
        here = progress.long()[..., None]
        limit = routes.speed_limit.gather(-1, here)[..., 0]
        desired = torch.where(limit > 0, limit, memory.cruise)
        acceleration = self.free(speed, desired) + acceleration
        return acceleration.clamp(-self.max_deceleration, self.max_acceleration)

    def free(self, speed: Array, desired: Array) -> Array:
        """Computes the model's first term, the acceleration on a free road (m/s^2)."""
        return self.max_acceleration * (1 - (speed / desired) ** 4)

    def follow(self, speed: Array, gap: Array, approach: Array) -> Array:
        """Computes the model's second term, how what is ahead slows down (m/s^2)."""
        softness = 2 * math.sqrt(self.max_acceleration * self.comfortable_deceleration)
        # `clip` is a method of arrays of both kinds.
        wanted = (speed * self.time_headway + speed * approach / softness).clip(min=0)
        return -self.max_acceleration * ((self.min_gap + wanted) / gap.clip(min=0.1)) ** 2

    def _red_light(
        self,
        state: SimState,
        routes: LaneRoutes,
        front: Float[Tensor, "*batch agents"],
        speed: Float[Tensor, "*batch agents"],
    ) -> Float[Tensor, "*batch agents"]:
        """Measures the gap to the next red light (m); infinite if there is none to stop for.

        Who cannot stop in time drives on.
        """
        lights = state.scenario.traffic_lights.at(state.step)
        if not lights.state.shape[-2]:
            return torch.full_like(front, math.inf)
        shown = lights.state
        is_red = (shown == TrafficLightState.STOP) | (shown == TrafficLightState.ARROW_STOP)
        gap = routes.stop - front[..., None]
        # (..., agents, lights)
        stops = (is_red & lights.valid).mT & self.can_stop(speed[..., None], gap)
        return torch.where(stops, gap, math.inf).amin(dim=-1)

    def can_stop(self, speed: Array, gap: Array) -> Array:
        """Tells who can stop at a line that is so far ahead (m), or little beyond it."""
        return gap > speed**2 / (2 * self.max_deceleration) - STOP_LINE_TOLERANCE


def _speed(state: SimState) -> Float[Tensor, "*batch agents"]:
    """Measures speeds along the heading; 0 for those that reverse."""
    now = state.current
    return rotate(now.velocity, -now.heading)[..., 0, 0].clamp(min=0)
