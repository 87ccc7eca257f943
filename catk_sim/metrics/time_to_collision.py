"""Time to collision with the agent ahead."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.metrics.box_trajectory import BoxTrajectory, take_agents

MAX_TIME = 5.0
"""The longest time that is told apart (s); also that of who follows nobody."""

MAX_HEADING_DIFFERENCE = math.radians(75)
"""How far the headings of a follower and the followed may differ (rad)."""

MAX_HEADING_DIFFERENCE_OF_SMALL_OVERLAP = math.radians(10)
"""The same where they overlap by no more than `SMALL_OVERLAP` across the follower's heading."""

SMALL_OVERLAP = 0.5
"""An overlap (m) that alone does not make somebody followed."""


def time_to_collision(
    boxes: BoxTrajectory,
    speed: Float[Tensor, "*batch agents steps"],
    evaluated: Int[Tensor, "*scenes evaluated"],
) -> Float[Tensor, "*batch evaluated steps"]:
    """Measures when agents would hit whom they follow, if both kept their speed (s).

    An agent follows the nearest valid one ahead that is in its way and heads about where it does,
    see the constants. As defined for WOSAC by Montali et al., arXiv:2305.12032, and to the letter:
    headings are taken as they are, so that who has turned full circle follows nobody, and nothing
    asks whether the follower is valid, or the steps that its speed was told from.

    It takes about 30 bytes for each evaluated agent, agent, step and entry of the batch.

    Args:
        boxes: Boxes at the steps to measure.
        speed: Speed in the plane (m/s). Where it is NaN, nobody is about to hit.
        evaluated: Indices of the agents to measure. The batch may have further dimensions before
            the scenarios'.
    """
    ego, ego_speed = boxes.take(evaluated), take_agents(speed, evaluated)
    gap, followed = _gaps(ego, boxes).min(dim=-2)
    closing = ego_speed - speed.gather(-2, followed)
    return torch.where(closing > 0, gap / closing, MAX_TIME).clamp(max=MAX_TIME)


def _gaps(
    ego: BoxTrajectory, others: BoxTrajectory
) -> Float[Tensor, "*batch evaluated agents steps"]:
    """Measures the gaps to followed agents (m); infinite to all others."""
    ahead, left = _centers_local(ego, others)
    gaps = torch.full_like(ahead, math.inf)
    pair = _near_pairs(ego, others, ahead, left).flatten().nonzero()[:, 0]
    one, other = _ends(pair, ahead.shape)

    turn = (_pick(others.heading, other) - _pick(ego.heading, one)).abs()
    cos, sin = turn.cos().abs(), turn.sin().abs()
    half_length, half_width = _pick(others.length, other) / 2, _pick(others.width, other) / 2
    gap = _pick(ahead, pair) - _pick(ego.length, one) / 2 - (half_length * cos + half_width * sin)
    side = _pick(left, pair).abs() - _pick(ego.width, one) / 2
    side = side - (half_length * sin + half_width * cos)
    aligned = (side < -SMALL_OVERLAP) | (turn <= MAX_HEADING_DIFFERENCE_OF_SMALL_OVERLAP)
    followed = (gap > 0) & (side < 0) & aligned
    gaps.view(-1)[pair] = torch.where(followed, gap, math.inf)
    return gaps


def _centers_local(
    ego: BoxTrajectory, others: BoxTrajectory
) -> tuple[
    Float[Tensor, "*batch evaluated agents steps"], Float[Tensor, "*batch evaluated agents steps"]
]:
    """Expresses the centres of all agents in the frame of each ego (m)."""
    x = others.x[..., None, :, :] - ego.x[..., None, :]
    y = others.y[..., None, :, :] - ego.y[..., None, :]
    cos, sin = ego.heading.cos()[..., None, :], ego.heading.sin()[..., None, :]
    return cos * x + sin * y, cos * y - sin * x


def _near_pairs(
    ego: BoxTrajectory,
    others: BoxTrajectory,
    ahead: Float[Tensor, "*batch evaluated agents steps"],
    left: Float[Tensor, "*batch evaluated agents steps"],
) -> Bool[Tensor, "*batch evaluated agents steps"]:
    """Tells who might be followed: at least those who are.

    Exactly so, in spite of rounding: rounded sums and products keep the order of their operands,
    the reach of a box along an axis is not negative, and to a side it is at most half its length
    plus half its width.
    """
    turn = (others.heading[..., None, :, :] - ego.heading[..., None, :]).abs()
    reach = (others.length / 2 + others.width / 2)[..., None, :, :]
    beside = left.abs() - (ego.width / 2)[..., None, :] < reach
    front = ahead > (ego.length / 2)[..., None, :]
    return beside & front & (turn <= MAX_HEADING_DIFFERENCE) & others.valid[..., None, :, :]


def _ends(
    pair: Int[Tensor, " pairs"], shape: torch.Size
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Returns where a flat (batch, evaluated, agents, steps) stands in those without one of both.

    That is in (batch, evaluated, steps) and in (batch, agents, steps).
    """
    *_, evaluated, agents, steps = shape
    row = agents * steps
    return pair // row * steps + pair % steps, pair // (evaluated * row) * row + pair % row


def _pick(values: Float[Tensor, "*shape"], index: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    return values.reshape(-1)[index]
