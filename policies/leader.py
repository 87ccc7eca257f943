"""Who is ahead on a route."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import SimState
from catk_sim.geometry.se2 import rotate
from catk_sim.lane_following import ROUTE_LENGTH, LaneRoutes

LOOK_AHEAD = 100
"""How far along its route an agent looks for others (m)."""

LOOK_SPACING = 2
"""Distance between the points of the route that others are compared with (m)."""

MAX_PAIRS = 1 << 22
"""Pairs of an agent and a point of another's route that are looked at together."""


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
        along the route (m/s).
    """
    batch, num_agents = progress.shape[:-1], progress.shape[-1]
    now, size = state.current, state.scenario.agents.size
    # (scenes, agents, ...)
    flat = [
        tensor.reshape(-1, *tensor.shape[len(batch) :]).split(_scenes_at_once(num_agents))
        for tensor in (
            now.xy[..., 0, :],
            now.heading[..., 0],
            now.velocity[..., 0, :],
            now.valid[..., 0],
            size[..., :2],
            routes.xy,
            routes.heading,
            progress,
        )
    ]
    parts = [_find_leader(*part) for part in zip(*flat, strict=True)]
    gap, speed = (torch.cat(values).reshape(progress.shape) for values in zip(*parts, strict=True))
    return gap, speed


def _scenes_at_once(num_agents: int) -> int:
    return max(1, MAX_PAIRS // max(1, num_agents**2 * (LOOK_AHEAD // LOOK_SPACING)))


def _find_leader(
    xy: Float[Tensor, "scenes agents 2"],
    heading: Float[Tensor, "scenes agents"],
    velocity: Float[Tensor, "scenes agents 2"],
    valid: Bool[Tensor, "scenes agents"],
    size: Float[Tensor, "scenes agents 2"],
    route_xy: Float[Tensor, "scenes agents arc 2"],
    route_heading: Float[Tensor, "scenes agents arc"],
    progress: Float[Tensor, "scenes agents"],
) -> tuple[Float[Tensor, "scenes agents"], Float[Tensor, "scenes agents"]]:
    ahead = torch.arange(0, LOOK_AHEAD + 1, LOOK_SPACING, device=xy.device)
    index = (progress.long()[..., None] + ahead).clamp(max=ROUTE_LENGTH)
    # (scenes, agents, others): the point of the agent's route that is nearest to the other.
    nearest = index.gather(-1, _nearest_point(xy, route_xy, index))
    direction = route_heading.gather(-1, nearest)
    point = route_xy.gather(-2, nearest[..., None].expand(*nearest.shape, 2))
    along, aside = rotate(xy[:, None] - point, -direction).unbind(-1)
    distance = nearest - progress[..., None] + along

    angle = heading[:, None] - direction
    cos, sin = angle.cos().abs(), angle.sin().abs()
    half_length, half_width = (size / 2).unbind(-1)
    reach_along = half_length[:, None] * cos + half_width[:, None] * sin
    reach_aside = half_length[:, None] * sin + half_width[:, None] * cos
    blocks = aside.abs() < half_width[..., None] + reach_aside
    blocks = blocks & (distance > 0) & valid[:, None]
    blocks = blocks & ~torch.eye(xy.shape[1], dtype=torch.bool, device=xy.device)
    gap = torch.where(blocks, distance - half_length[..., None] - reach_along, math.inf)
    speed = rotate(velocity[:, None].expand_as(point), -direction)[..., 0]
    least, leader = gap.min(dim=-1)
    return least, speed.gather(-1, leader[..., None])[..., 0]


def _nearest_point(
    xy: Float[Tensor, "scenes agents 2"],
    route_xy: Float[Tensor, "scenes agents arc 2"],
    index: Int[Tensor, "scenes agents points"],
) -> Int[Tensor, "scenes agents agents"]:
    points = route_xy.gather(-2, index[..., None].expand(*index.shape, 2))
    x, y = (xy[:, None, :, None] - points[:, :, None]).unbind(-1)
    return (x * x + y * y).argmin(dim=-1)
