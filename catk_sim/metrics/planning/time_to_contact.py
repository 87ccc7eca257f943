"""Time until the ego would collide, if all kept their velocities."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.constants import HISTORY_STEPS
from catk_sim.geometry.se2 import rotate, to_local
from catk_sim.metrics.planning.collisions import is_behind
from catk_sim.metrics.planning.ego import (
    STOPPED_SPEED,
    Boxes,
    EgoScenes,
    boxes_of_pairs,
    within_reach,
)

HORIZON = 5.0
"""How far ahead is looked (s); also the time of who would not collide."""

MIN_COS_AHEAD = 0.75**0.5
"""Cosine of half the angle in which nuPlan takes an agent to be ahead: 30 degrees."""


def time_to_contact(
    scenes: EgoScenes,
    has_touched: Bool[Tensor, "rollouts scenes agents steps"],
    in_one_lane: Bool[Tensor, "rollouts scenes steps"],
) -> Float[Tensor, "rollouts scenes steps"]:
    """Measures when the ego would collide if all kept velocity and heading (s), at most `HORIZON`.

    nuPlan's time to collision, as described with its devkit: agents ahead count, and those to the
    side while the ego is not within one lane; an ego that stands collides with nobody, and who was
    hit before counts no more. `HORIZON` in the history. nuPlan looks at every tenth of a second;
    this is exact. WOSAC's `time_to_collision` is another measure.

    Args:
        scenes: What was simulated.
        has_touched: Whom the ego has met.
        in_one_lane: Where the ego is within one lane.
    """
    drives = scenes.speed > STOPPED_SPEED
    counted = within_reach(scenes, seconds=HORIZON) & ~has_touched & drives[:, :, None]
    counted[..., :HISTORY_STEPS] = False
    ego, other = boxes_of_pairs(scenes, counted)
    rollout, scene, _, step = counted.nonzero().unbind(-1)
    beside = ~is_behind(ego, other) & ~in_one_lane[rollout, scene, step]
    time = contact_time(ego, other)
    each = torch.full_like(scenes.motion.heading, HORIZON)
    # Nobody counts at the ego's own place, so that the least is no more than the horizon.
    each[counted] = torch.where(_is_ahead(ego, other) | beside, time, HORIZON)
    return each.amin(dim=2)


def contact_time(ego: Boxes, other: Boxes) -> Float[Tensor, " pairs"]:
    """Measures when boxes that keep velocity and heading begin to overlap (s); infinite if never.

    Exact, by the separating axis theorem: they overlap while they do so along each of their sides.
    0 for boxes that overlap already.
    """
    offset, velocity = other.xy - ego.xy, other.velocity - ego.velocity
    turn = other.heading - ego.heading
    cos, sin = turn.cos().abs()[:, None], turn.sin().abs()[:, None]
    half, other_half = ego.size[:, :2] / 2, other.size[:, :2] / 2
    reach = torch.cat(
        [
            half + other_half * cos + other_half.flip(-1) * sin,
            other_half + half * cos + half.flip(-1) * sin,
        ],
        dim=-1,
    )
    # (pairs, the four axes)
    offset, velocity = (
        torch.cat([rotate(vector, -ego.heading), rotate(vector, -other.heading)], dim=-1)
        for vector in (offset, velocity)
    )
    # Whoever does not move along an axis is divided by zero: overlaps there always, from minus
    # infinity on, or never, which is infinite at both ends or NaN.
    times = torch.stack([(-reach - offset) / velocity, (reach - offset) / velocity])
    start, end = times.amin(dim=0).amax(dim=-1), times.amax(dim=0).amin(dim=-1)
    return torch.where((start < end) & (end > 0), start.clamp(min=0), math.inf)


def _is_ahead(ego: Boxes, other: Boxes) -> Bool[Tensor, " pairs"]:
    """Tells whose centre is within 30 degrees of straight ahead of the ego's."""
    local = to_local(other.xy, ego.xy, ego.heading)
    return local[..., 0] > MIN_COS_AHEAD * local.norm(dim=-1)
