"""What each agent sees from where it is: small tensors for policies that many agents share.

Positions and directions are in the agent's own frame: x ahead, y to the left. A view has

    present          (1,)                  whether there is an agent to act; else all is zero
    own              (14,)                 velocity ahead and to the left (m/s); acceleration ahead
                                           (m/s^2); yaw rate (rad/s); length, width (m); is it a
                                           vehicle, pedestrian, cyclist, other; the goal's x, y (m);
                                           seconds until the log is there; is there a goal
    neighbors        (max_neighbors, 12)   x, y (m); cos and sin of the heading; velocity x, y
                                           (m/s); length, width (m); vehicle, ..., other
    neighbors_valid  (max_neighbors,)
    map              (max_map_points, 6)   x, y (m); the direction of travel as a unit vector; lane,
                                           road edge
    map_valid        (max_map_points,)
    lights           (max_lights, 6)       x, y of the stop point (m); one-hot of `LIGHT_CLASSES`
    lights_valid     (max_lights,)

Goals are those of `catk_sim.rewards.Goals`. Neighbours and lights are the nearest; map points are
those nearest to a place `LOOK_AHEAD` ahead. Numbers are finite, zero where not valid, and at most
`LIMIT` in size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.constants import STEP_SECONDS
from catk_sim.datatypes import RoadGraph, SimState
from catk_sim.geometry.se2 import rotate, to_local, wrap_angle
from catk_sim.observation import (
    LIGHT_CLASSES,
    LIMIT,
    MAP_CLASSES,
    MapPoints,
    current_lights,
    fit,
    observable_points,
    type_one_hot,
)
from catk_sim.rewards import Goals

LOOK_AHEAD = 10.0
"""How far ahead of an agent its map points lie around (m)."""

NUM_CANDIDATES = 2048
"""Map points of a scenario that may be seen, those nearest to its origin."""

_SEEN_CLASSES = tuple(
    index for index, (name, _) in enumerate(MAP_CLASSES) if name in ("lane", "road edge")
)
_SEEN_CODES = tuple(code for index in _SEEN_CLASSES for code in MAP_CLASSES[index][1])


@dataclass(frozen=True, kw_only=True)
class ViewSizes:
    """How many of each thing a view has room for."""

    max_neighbors: int
    """Other agents."""
    max_map_points: int
    """Map points."""
    max_lights: int
    """Traffic lights."""


def view_space(sizes: ViewSizes, num_agents: int | None) -> spaces.Space:
    """Describes the views of the agents of a world, or of one agent without that dimension."""
    agents = () if num_agents is None else (num_agents,)

    def floats(*shape: int) -> spaces.Box:
        return spaces.Box(-LIMIT, LIMIT, (*agents, *shape), np.float32)

    def booleans(*shape: int) -> spaces.Box:
        dtype: Any = np.bool_  # Gymnasium takes it, but does not say so.
        return spaces.Box(0, 1, (*agents, *shape), dtype)

    return spaces.Dict(
        {
            "present": booleans(1),
            "own": floats(14),
            "neighbors": floats(sizes.max_neighbors, 12),
            "neighbors_valid": booleans(sizes.max_neighbors),
            "map": floats(sizes.max_map_points, 6),
            "map_valid": booleans(sizes.max_map_points),
            "lights": floats(sizes.max_lights, 2 + len(LIGHT_CLASSES)),
            "lights_valid": booleans(sizes.max_lights),
        }
    )


def visible_points(roadgraph: RoadGraph) -> MapPoints:
    """Picks the lanes and road edges out of maps, once per episode."""
    kind = roadgraph.point_type
    seen = torch.isin(kind, kind.new_tensor(_SEEN_CODES))
    kept = roadgraph.replace(point_valid=roadgraph.point_valid & seen)
    return observable_points(kept, NUM_CANDIDATES)


def view(
    state: SimState, points: MapPoints, sizes: ViewSizes, agents: Bool[Tensor, "worlds agents"]
) -> dict[str, Tensor]:
    """Describes to some agents of a batch of worlds what they see.

    Args:
        state: The worlds, with one batch dimension.
        points: From `visible_points`.
        sizes: How much there is room for.
        agents: Who sees. Those that are not valid now see nothing.

    Returns:
        Views of shape (rows, ...), a row for each of `agents`, world after world.
    """
    world, agent = agents.nonzero().unbind(-1)
    now = state.current
    rows = _Rows(
        world=world,
        agent=agent,
        xy=now.xy[world, agent, 0],
        heading=now.heading[world, agent, 0],
        present=now.valid[world, agent, 0],
    )
    neighbors, neighbors_valid = _neighbors(state, rows, sizes.max_neighbors)
    seen, seen_valid = _map(points, rows, sizes.max_map_points)
    lights, lights_valid = _lights(state, rows, sizes.max_lights)
    return {
        "present": rows.present[:, None],
        "own": _finish(_own(state, rows), rows.present),
        "neighbors": _finish(neighbors, neighbors_valid),
        "neighbors_valid": neighbors_valid,
        "map": _finish(seen, seen_valid),
        "map_valid": seen_valid,
        "lights": _finish(lights, lights_valid),
        "lights_valid": lights_valid,
    }


def view_all(
    state: SimState, points: MapPoints, sizes: ViewSizes, num_agents: int
) -> dict[str, Tensor]:
    """Describes to the controlled ones of the first agents what they see, to the others nothing.

    Returns:
        Views of shape (worlds, num_agents, ...).
    """
    acts = fit(state.controlled & state.current.valid[..., 0], 1, num_agents)
    rows = view(state, points, sizes, acts)
    return {name: _scatter(values, acts) for name, values in rows.items()}


def view_sdc(state: SimState, points: MapPoints, sizes: ViewSizes) -> dict[str, Tensor]:
    """Describes to the sdc of each world what it sees; nothing, where it is not controlled.

    Returns:
        Views of shape (worlds, ...).
    """
    acts = state.controlled & state.current.valid[..., 0] & state.scenario.agents.is_sdc
    rows = view(state, points, sizes, acts)
    return {name: _scatter(values, acts.any(-1)) for name, values in rows.items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class _Rows:
    """The agents that look, and their frames."""

    world: Tensor
    agent: Tensor
    xy: Float[Tensor, "rows 2"]
    heading: Float[Tensor, " rows"]
    present: Bool[Tensor, " rows"]

    def points(self, xy: Float[Tensor, "rows things 2"]) -> Float[Tensor, "rows things 2"]:
        return to_local(xy, self.xy[:, None], self.heading[:, None])

    def vectors(self, xy: Float[Tensor, "rows things 2"]) -> Float[Tensor, "rows things 2"]:
        return rotate(xy, -self.heading[:, None])


def _own(state: SimState, rows: _Rows) -> Float[Tensor, "rows features"]:
    agents = state.scenario.agents
    goals = Goals.from_log(state.scenario.log)
    has_goal = goals.valid[rows.world, rows.agent]
    goal = rows.points(goals.xy[rows.world, rows.agent][:, None])[:, 0]
    seconds = (goals.step - state.step[:, None])[rows.world, rows.agent].clamp(min=0) * STEP_SECONDS
    motion = state.history.slice(-2 + state.history.num_steps, state.history.num_steps)
    velocity = motion.velocity[rows.world, rows.agent]
    heading, valid = motion.heading[rows.world, rows.agent], motion.valid[rows.world, rows.agent]
    local = rows.vectors(velocity)
    is_moving_on = valid.all(-1)
    acceleration = torch.where(is_moving_on, local[:, 1, 0] - local[:, 0, 0], 0) / STEP_SECONDS
    turn = wrap_angle(heading[:, 1] - heading[:, 0])
    yaw_rate = torch.where(is_moving_on, turn, 0) / STEP_SECONDS
    goal_features = torch.cat([goal, seconds[:, None]], dim=-1) * has_goal[:, None]
    return torch.cat(
        [
            local[:, 1],
            torch.stack([acceleration, yaw_rate], dim=-1),
            agents.size[rows.world, rows.agent, :2],
            type_one_hot(agents.type, local.dtype)[rows.world, rows.agent],
            goal_features,
            has_goal[:, None].to(local.dtype),
        ],
        dim=-1,
    )


def _neighbors(
    state: SimState, rows: _Rows, room: int
) -> tuple[Float[Tensor, "rows things features"], Bool[Tensor, "rows things"]]:
    now, agents = state.current, state.scenario.agents
    xy = now.xy[..., 0, :]
    others = now.valid[..., 0][rows.world]
    others = others & (torch.arange(others.shape[-1], device=xy.device) != rows.agent[:, None])
    index, valid = _nearest(xy[rows.world], others, rows.xy, room)
    world = rows.world[:, None]
    turn = now.heading[..., 0][world, index] - rows.heading[:, None]
    features = [
        rows.points(xy[world, index]),
        torch.stack([turn.cos(), turn.sin()], dim=-1),
        rows.vectors(now.velocity[..., 0, :][world, index]),
        agents.size[..., :2][world, index],
        type_one_hot(agents.type, xy.dtype)[world, index],
    ]
    return fit(torch.cat(features, dim=-1), 1, room), fit(valid, 1, room)


def _map(
    points: MapPoints, rows: _Rows, room: int
) -> tuple[Float[Tensor, "rows things features"], Bool[Tensor, "rows things"]]:
    ahead = torch.stack([rows.heading.cos(), rows.heading.sin()], dim=-1)
    center = rows.xy + LOOK_AHEAD * ahead
    index, valid = _nearest(points.xy[rows.world], points.valid[rows.world], center, room)
    world = rows.world[:, None]
    features = [
        rows.points(points.xy[world, index]),
        rows.vectors(points.direction[world, index]),
        points.one_hot[..., _SEEN_CLASSES][world, index],
    ]
    return fit(torch.cat(features, dim=-1), 1, room), fit(valid, 1, room)


def _lights(
    state: SimState, rows: _Rows, room: int
) -> tuple[Float[Tensor, "rows things features"], Bool[Tensor, "rows things"]]:
    xy, kind, lit = current_lights(state)
    index, valid = _nearest(xy[rows.world], lit[rows.world], rows.xy, room)
    world = rows.world[:, None]
    features = torch.cat([rows.points(xy[world, index]), kind[world, index]], dim=-1)
    return fit(features, 1, room), fit(valid, 1, room)


def _nearest(
    xy: Float[Tensor, "rows things 2"],
    valid: Bool[Tensor, "rows things"],
    center: Float[Tensor, "rows 2"],
    room: int,
) -> tuple[Tensor, Bool[Tensor, "rows chosen"]]:
    distance = (xy - center[:, None]).square().sum(-1).masked_fill(~valid, torch.inf)
    nearest = distance.topk(min(room, distance.shape[-1]), largest=False)
    return nearest.indices, nearest.values.isfinite()


def _finish(
    features: Float[Tensor, "*rows features"], valid: Bool[Tensor, "*rows"]
) -> Float[Tensor, "*rows features"]:
    return features.masked_fill(~valid[..., None], 0).clamp(-LIMIT, LIMIT).to(torch.float32)


def _scatter(values: Tensor, where: Bool[Tensor, "*batch"]) -> Tensor:
    whole = values.new_zeros(*where.shape, *values.shape[1:])
    whole[where] = values
    return whole
