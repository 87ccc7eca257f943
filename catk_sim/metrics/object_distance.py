"""The signed distance to the nearest other agent."""

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from catk_sim.geometry.rounded_boxes import distance_radii, rounded_box_distance
from catk_sim.metrics.box_trajectory import BoxTrajectory

NO_OBJECT = 1e10
"""The distance (m) where there is no other agent, or not the agent itself. WOSAC's value."""

MAX_BOUNDED = 1 << 19
"""Pairs of boxes that are bounded together, unless one scene has more."""

MAX_MEASURED = 1 << 16
"""Pairs of boxes that are measured together. With the above this bounds the memory."""


def distance_to_nearest_object(
    boxes: BoxTrajectory, evaluated: Int[Tensor, "*scenes evaluated"], *, rounding: float = 0.7
) -> Float[Tensor, "*batch evaluated steps"]:
    """Measures how far agents are from the nearest other one (m); negative where they overlap.

    WOSAC's measure: boxes have rounded corners, see `rounded_box_distance`. Height plays no part.
    Where an agent or all others are invalid, the distance is `NO_OBJECT`. NaN in a valid box makes
    the agent's own distance NaN, and that of all to whom it may be the nearest.

    Args:
        boxes: All agents. The batch may have further dimensions before the scenarios'.
        evaluated: The agents of each scenario whose distance is wanted, as indices.
        rounding: The radius of the corners, as a fraction of half the shorter side. The 2023
            version of WOSAC has 0: sharp corners.
    """
    if not 0 <= rounding < 1:
        raise ValueError(f"wanted 0 <= rounding < 1, got {rounding}")
    batch, (num_agents, num_steps) = boxes.valid.shape[:-2], boxes.valid.shape[-2:]
    if batch[len(batch) + 1 - evaluated.ndim :] != evaluated.shape[:-1]:
        raise ValueError(
            f"wanted evaluated agents for a batch that ends in {tuple(evaluated.shape[:-1])}, "
            f"got boxes of the batch {tuple(batch)}"
        )
    num_scenes, num_evaluated = math.prod(batch), evaluated.shape[-1]
    if not num_scenes * num_evaluated * num_steps:
        return boxes.x.new_empty(*batch, num_evaluated, num_steps)
    # (5, scenes, agents, steps)
    box = torch.stack([boxes.x, boxes.y, boxes.heading, boxes.length, boxes.width])
    box = box.reshape(5, num_scenes, num_agents, num_steps)
    valid = boxes.valid.reshape(num_scenes, num_agents, num_steps)
    agents = evaluated.expand(*batch, num_evaluated).reshape(num_scenes, num_evaluated)
    chunk = max(1, MAX_BOUNDED // (num_evaluated * num_agents * num_steps))
    parts = [
        _distance_to_nearest(some_boxes, some_valid, some_agents, rounding)
        for some_boxes, some_valid, some_agents in zip(
            box.split(chunk, dim=1), valid.split(chunk), agents.split(chunk), strict=True
        )
    ]
    return torch.cat(parts).reshape(*batch, num_evaluated, num_steps)


def _distance_to_nearest(
    boxes: Float[Tensor, "5 scenes agents steps"],
    valid: Bool[Tensor, "scenes agents steps"],
    evaluated: Int[Tensor, "scenes evaluated"],
    rounding: float,
) -> Float[Tensor, "scenes evaluated steps"]:
    near = _near_pairs(boxes, valid, evaluated, rounding)
    one, other = _take(boxes, evaluated).flatten(1), boxes.flatten(1)
    shape = (*evaluated.shape, valid.shape[-1])
    result = boxes.new_full((math.prod(shape),), NO_OBJECT)
    for pairs in near.split(MAX_MEASURED, dim=1):
        first, second = pairs
        distance = rounded_box_distance(
            one.index_select(1, first), other.index_select(1, second), rounding=rounding
        )
        result.scatter_reduce_(0, first, distance, "amin")
    return result.reshape(shape)


def _near_pairs(
    boxes: Float[Tensor, "5 scenes agents steps"],
    valid: Bool[Tensor, "scenes agents steps"],
    evaluated: Int[Tensor, "scenes evaluated"],
    rounding: float,
) -> Int[Tensor, "2 pairs"]:
    """Finds the agents that may be the nearest: see `distance_radii`.

    An agent is not the nearest where the least that its distance may be is no less than the most
    that the distance of another one may be.

    Returns:
        Pairs, as an index into the evaluated boxes of all scenes and one into all boxes.
    """
    inner, outer = distance_radii(boxes, rounding=rounding)
    x, y = boxes[:2, :, None]
    own_x, own_y = _take(boxes[:2], evaluated)[:, :, :, None]
    # (scenes, evaluated, agents, steps)
    gap, across = (x - own_x).square_(), y - own_y
    gap.addcmul_(across, across).sqrt_()
    gap -= torch.where(valid, inner, -math.inf)[:, None]
    itself = evaluated[:, :, None, None].expand(-1, -1, 1, valid.shape[2])
    gap.scatter_(2, itself, math.inf)
    spread = outer - inner
    bound = gap.amin(dim=2) + _take(spread[None], evaluated)[0]
    bound = torch.where(_take(valid[None], evaluated)[0], bound, -math.inf)
    gap -= spread[:, None]
    # Not `<`, so that NaN is measured.
    near = (gap >= bound[:, :, None]).logical_not_().flatten().nonzero().squeeze(1)

    num_evaluated, num_agents, num_steps = gap.shape[1:]
    row = near.div(num_steps, rounding_mode="floor")
    step = near - row * num_steps
    one = row.div(num_agents, rounding_mode="floor")
    scene = one.div(num_evaluated, rounding_mode="floor")
    agent = row - one * num_agents
    return torch.stack([one * num_steps + step, (scene * num_agents + agent) * num_steps + step])


def _take(
    values: Shaped[Tensor, "fields scenes agents steps"], agents: Int[Tensor, "scenes taken"]
) -> Shaped[Tensor, "fields scenes taken steps"]:
    scene = torch.arange(len(agents), device=agents.device)
    return values[:, scene[:, None], agents]
