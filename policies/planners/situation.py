"""What a planner finds on its way: other agents, red lights, limits."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from catk_sim.constants import STEP_SECONDS
from catk_sim.datatypes import TrafficLightState
from catk_sim.geometry.se2 import rotate
from catk_sim.planning.planner import EgoHistory, PlannerContext, PlannerInput, SeenLights
from catk_sim.planning.route import Route
from policies.idm import IDM
from policies.planners.road import Road

FORECAST_STRIDE = 5
"""Steps between the times at which others are placed along the route."""

MIN_STEERING_DISTANCE = 0.05
"""Distance in a step from which a turn tells the curvature (m)."""

STOP_TOLERANCE = 3.0
"""How far from the route a light's stop point may be (m)."""

ROAD_WIDTH = 16.0
"""Who never comes nearer to the road's centre than half of this is in nobody's way (m)."""

MAX_SPEED = 40.0
"""Faster than anybody (m/s)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Ego:
    """The ego.

    Attributes:
        xy: Where it is (m).
        heading: Where it heads (rad).
        speed: Along its heading, 0 if it reverses (m/s).
        acceleration: In the last step (m/s^2).
        curvature: Of its path in the last step (1/m).
        size: Length, width, height (m).
    """

    xy: Float[Tensor, "2"]
    heading: float
    speed: float
    acceleration: float
    curvature: float
    size: Float[Tensor, "3"]

    @classmethod
    def of(cls, history: EgoHistory, size: Float[Tensor, "3"]) -> "Ego":
        """Reads its history."""
        heading = history.heading[-2:]
        velocity = history.velocity[-2:]
        along = [
            float(v[0] * math.cos(angle) + v[1] * math.sin(angle))
            for v, angle in zip(velocity, heading, strict=True)
        ]
        turn = math.remainder(heading[-1] - heading[0], 2 * math.pi)
        distance = (along[0] + along[-1]) / 2 * STEP_SECONDS
        return cls(
            xy=torch.tensor(history.xy[-1], dtype=torch.float32),
            heading=float(heading[-1]),
            speed=max(0.0, along[-1]),
            acceleration=(along[-1] - along[0]) / STEP_SECONDS,
            # Who hardly moves has not steered: the turn is noise.
            curvature=turn / distance if distance > MIN_STEERING_DISTANCE else 0.0,
            size=size,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Others:
    """The other agents, if they keep their velocities.

    Attributes:
        xy: Where they are, the current step first (m).
        heading: Where they head (rad).
        velocity: Their velocities (m/s).
        size: Length, width, height (m).
    """

    xy: Float[Tensor, "agents steps 2"]
    heading: Float[Tensor, " agents"]
    velocity: Float[Tensor, "agents 2"]
    size: Float[Tensor, "agents 3"]

    @classmethod
    def forecast(cls, input: PlannerInput, num_steps: int) -> "Others":
        """Reads those that are seen at the current step and could come near the ego."""
        agents, ego = input.agents, input.ego
        xy = torch.tensor(agents.xy[:, -1], dtype=torch.float32)
        velocity = torch.tensor(agents.velocity[:, -1], dtype=torch.float32)
        size = torch.tensor(agents.size, dtype=torch.float32)
        heading = torch.tensor(agents.heading[:, -1], dtype=torch.float32)
        offset = xy - torch.tensor(ego.xy[-1], dtype=torch.float32)
        reach = (velocity.norm(dim=-1) + MAX_SPEED) * num_steps * STEP_SECONDS
        near = torch.tensor(agents.valid[:, -1]) & (offset.norm(dim=-1) < reach)
        seconds = torch.arange(num_steps + 1) * STEP_SECONDS
        return cls(
            xy=xy[near, None] + seconds[:, None] * velocity[near, None],
            heading=heading[near],
            velocity=velocity[near],
            size=size[near],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Obstacles:
    """What may be in the way at each step, along the road.

    Attributes:
        arc: Where they are along the road (m).
        lateral: To the left of it (m).
        along: How far they reach along it (m).
        aside: How far they reach across it (m).
        speed: Along the road (m/s).
    """

    arc: Float[ndarray, "steps obstacles"]
    lateral: Float[ndarray, "steps obstacles"]
    along: Float[ndarray, "steps obstacles"]
    aside: Float[ndarray, "steps obstacles"]
    speed: Float[ndarray, "steps obstacles"]

    @classmethod
    def of(cls, others: Others, stops: Float[Tensor, " stops"], route: Route) -> "Obstacles":
        """Places agents along a route, and walls across it. There is one at infinity at least.

        Agents move evenly along the route between every fifth step.
        """
        coarse = others.xy[:, ::FORECAST_STRIDE]
        shape = coarse.shape[:2]
        arc, lateral = route.project(coarse.flatten(0, 1))
        direction = route.pose_at(arc)[1].reshape(shape)
        angle = others.heading[:, None] - direction
        cos, sin = angle.cos().abs(), angle.sin().abs()
        half_length, half_width = (others.size[:, None, :2] / 2).unbind(-1)
        arc, lateral = arc.reshape(shape), lateral.reshape(shape)
        aside = half_length * sin + half_width * cos
        near = (lateral.abs() - aside).amin(dim=1) < ROAD_WIDTH / 2
        values = torch.stack(
            [
                arc,
                lateral,
                half_length * cos + half_width * sin,
                aside,
                rotate(others.velocity[:, None].expand(*shape, 2), -direction)[..., 0],
            ]
        )
        num_steps = others.xy.shape[1]
        walls = torch.zeros(5, num_steps, len(stops) + 1)
        walls[0] = torch.cat([stops, torch.full((1,), math.inf)])
        walls[3] = math.inf
        placed = torch.cat([_interpolated(values[:, near], num_steps), walls], dim=-1)
        arc, lateral, along, aside, speed = placed.double().numpy()
        return cls(arc=arc, lateral=lateral, along=along, aside=aside, speed=speed)

    def grown(self, *, along: float, aside: float) -> "Obstacles":
        """Lets them reach farther (m), so that whoever comes near them may be taken for a point."""
        return replace(self, along=self.along + along, aside=self.aside + aside)


def _interpolated(
    values: Float[Tensor, "kinds agents coarse"], num_steps: int
) -> Float[Tensor, "kinds steps agents"]:
    place = torch.arange(num_steps) / FORECAST_STRIDE
    index = place.long().clamp(max=values.shape[-1] - 2)
    part = place - index
    return values[..., index].lerp(values[..., index + 1], part).transpose(1, 2)


def red_lights(route: Route, lights: SeenLights) -> Float[Tensor, " red"]:
    """Finds the arc lengths at which red lights stop the ego (m)."""
    is_red = np.isin(lights.state, (TrafficLightState.STOP, TrafficLightState.ARROW_STOP))
    on_route = np.isin(lights.lane, route.lane_id[route.valid].numpy())
    stop = torch.tensor(lights.stop_point[is_red & on_route], dtype=torch.float32)
    arc, lateral = route.project(stop)
    return arc[lateral.abs() < STOP_TOLERANCE]


@dataclass(frozen=True, eq=False, kw_only=True)
class Situation:
    """What a driver has to do with.

    Attributes:
        ego: The ego.
        road: The road near it.
        arc: Where it is along that road (m).
        limit: The speed limit at each metre of it (m/s).
        others: The other agents.
        obstacles: What may be in the way: agents, and red lights that the ego can stop for.
    """

    ego: Ego
    road: Road
    arc: float
    limit: Float[ndarray, " arc"]
    others: Others
    obstacles: Obstacles


class Observer:
    """Puts together what is seen during an episode.

    Args:
        context: What does not change.
        num_steps: How far ahead others are forecast.
        idm: How the ego brakes, and its speed where the map tells no limit, unless it is faster
            already.
    """

    def __init__(self, context: PlannerContext, *, num_steps: int, idm: IDM) -> None:
        self._road = Road.of(context.route, context.roadgraph)
        self._size = torch.tensor(context.ego_size, dtype=torch.float32)
        self._num_steps = num_steps
        self._idm = idm
        self._cruise = idm.desired_speed

    def look(self, input: PlannerInput) -> Situation:
        """Finds what is on the way."""
        ego = Ego.of(input.ego, self._size)
        self._cruise = max(self._cruise, ego.speed)
        road, arc = self._road.near(ego.xy)
        others = Others.forecast(input, self._num_steps)
        stops = red_lights(road.route, input.traffic_lights)
        gap = stops - arc - self._size[0] / 2
        stops = stops[self._idm.can_stop(torch.tensor(ego.speed), gap)]
        limit = road.route.speed_limit.double().numpy()
        return Situation(
            ego=ego,
            road=road,
            arc=arc,
            limit=np.where(limit > 0, limit, self._cruise),
            others=others,
            obstacles=Obstacles.of(others, stops, road.route),
        )
