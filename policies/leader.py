"""Who is ahead on a route."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from catk_sim.datatypes import SimState
from catk_sim.geometry.se2 import rotate
from catk_sim.lane_following import ROUTE_LENGTH, LaneRoutes

LOOK_AHEAD = 100
"""How far along its route an agent looks for others (m)."""

LOOK_SPACING = 2
"""Distance between the points of the route that others are compared with (m)."""

MAX_PAIRS = 1 << 16
"""Pairs of an agent and another that are looked at together, which bounds the memory."""


def find_leader(
    state: SimState, routes: LaneRoutes, progress: Float[Tensor, "*batch agents"]
) -> tuple[Float[Tensor, "*batch agents"], Float[Tensor, "*batch agents"]]:
    """Finds the nearest agent ahead whose box reaches into the way that an agent's box will take.

    Args:
        state: Where everybody is.
        routes: Where they go.
        progress: How far along its route each is (m).

    Returns:
        The gap between the boxes (m), infinite if there is nobody, and the speed of the one ahead
        along the route (m/s), 0 if there is nobody. Who has no route has nobody ahead.
    """
    pairs = _pairs(state, routes)
    parts = [
        _approach(state, routes, progress, *part)
        for part in zip(*(index.split(MAX_PAIRS) for index in pairs), strict=True)
    ]
    gap, speed = (torch.cat(values) for values in zip(*parts, strict=True))
    agent = pairs[0]
    least = gap.new_full((progress.numel(),), math.inf).scatter_reduce(0, agent, gap, "amin")
    # Of several that are equally near, the first. The last pair, nobody's, is for who has none.
    nobody = len(gap)
    index = torch.arange(nobody, device=gap.device)
    index = torch.where(gap.isfinite() & (gap == least[agent]), index, nobody)
    first = torch.full_like(least, nobody, dtype=torch.int64)
    first = first.scatter_reduce(0, agent, index, "amin")
    speed = torch.cat([speed, speed.new_zeros(1)])[first]
    return least.reshape(progress.shape), speed.reshape(progress.shape)


def _pairs(
    state: SimState, routes: LaneRoutes
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Pairs those that have a route with the others of their scene, as indices of all agents."""
    num_agents = routes.valid.shape[-1]
    agent = routes.valid.flatten().nonzero()[:, 0]
    scene, slot = agent // max(num_agents, 1), agent % max(num_agents, 1)
    present = state.current.valid[None, ..., 0].flatten(0, -2)[scene]
    slots = torch.arange(num_agents, device=agent.device)
    row, other = (present & (slots != slot[:, None])).nonzero().unbind(-1)
    return agent[row], scene[row] * num_agents + other


def _approach(
    state: SimState,
    routes: LaneRoutes,
    progress: Float[Tensor, "*batch agents"],
    agent: Int[Tensor, " pairs"],
    other: Int[Tensor, " pairs"],
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Measures the gap of each pair, infinite where the other is not ahead, and its speed."""
    num_batch = progress.dim()
    # Everybody in one list, scene after scene.
    now = state.current.map(lambda field: field.flatten(0, num_batch - 1))
    half_size = state.scenario.agents.size.flatten(0, num_batch - 1) / 2
    xy, heading, velocity = now.xy[other, 0], now.heading[other, 0], now.velocity[other, 0]
    point, direction, arc = _nearest_point(xy, routes, progress, agent)
    along, aside = rotate(xy - point, -direction).unbind(-1)
    distance = arc - progress.flatten()[agent] + along

    angle = heading - direction
    cos, sin = angle.cos().abs(), angle.sin().abs()
    half_length, half_width, _ = half_size[other].unbind(-1)
    reach_along = half_length * cos + half_width * sin
    reach_aside = half_length * sin + half_width * cos
    own_length, own_width, _ = half_size[agent].unbind(-1)
    blocks = (aside.abs() < own_width + reach_aside) & (distance > 0)
    gap = torch.where(blocks, distance - own_length - reach_along, math.inf)
    return gap, rotate(velocity, -direction)[:, 0]


def _nearest_point(
    xy: Float[Tensor, "pairs 2"],
    routes: LaneRoutes,
    progress: Float[Tensor, "*batch agents"],
    agent: Int[Tensor, " pairs"],
) -> tuple[Float[Tensor, "pairs 2"], Float[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Finds the point of each agent's way that is nearest: where, its direction, and its arc."""
    who, row = agent.unique_consecutive(return_inverse=True)
    ahead = torch.arange(0, LOOK_AHEAD + 1, LOOK_SPACING, device=xy.device)
    index = (progress.flatten()[who].long()[:, None] + ahead).clamp(max=ROUTE_LENGTH)
    route_xy = routes.xy.flatten(0, -3)[who[:, None], index]
    # (pairs, points)
    x, y = (xy[:, None, axis] - route_xy[row, :, axis] for axis in (0, 1))
    nearest = (x * x + y * y).argmin(dim=-1)
    arc = index[row, nearest]
    return route_xy[row, nearest], routes.heading.flatten(0, -2)[agent, arc], arc
