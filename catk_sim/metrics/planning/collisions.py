"""Collisions of the ego, and whose fault they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datatypes import AgentType, TensorTree
from catk_sim.geometry.boxes import box_corners, boxes_overlap
from catk_sim.geometry.se2 import to_local
from catk_sim.metrics.planning.ego import (
    STOPPED_SPEED,
    Boxes,
    EgoScenes,
    boxes_of_pairs,
    within_reach,
)

MIN_COS_BEHIND = 0.75**0.5
"""Cosine of half the angle in which nuPlan takes an agent to be behind: 30 degrees."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EgoCollisions(TensorTree):
    """Whom the ego meets, and when.

    Attributes:
        touches: Where the ego's box overlaps that of another agent.
        has_touched: Where it does or did so, from the current step on. nuPlan judges nothing else
            about such an agent.
        at_fault: Where a collision begins that is the ego's fault.
    """

    touches: Bool[Tensor, "rollouts scenes agents steps"]
    has_touched: Bool[Tensor, "rollouts scenes agents steps"]
    at_fault: Bool[Tensor, "rollouts scenes agents steps"]


def ego_collisions(
    scenes: EgoScenes, in_one_lane: Bool[Tensor, "rollouts scenes steps"]
) -> EgoCollisions:
    """Finds the collisions of the ego, and judges them by nuPlan's rules.

    At fault is an ego that drives and hits an agent that stands; that hits a moving one with its
    front bumper; or that touches a moving one otherwise while it is not within one lane. Not at
    fault is an ego that stands, or is hit from behind. An agent collides once. Whom the ego
    overlaps at the current step it did not run into: nuPlan does not know this case.

    Caesar et al., "nuPlan: A closed-loop ML-based planning benchmark for autonomous vehicles",
    arXiv:2106.11810, and the metrics description of its devkit, "At fault Collisions".

    Args:
        scenes: What was simulated.
        in_one_lane: Where the ego is within one lane.
    """
    touches = within_reach(scenes, seconds=0.0)
    touches[touches.clone()] = _overlaps(*boxes_of_pairs(scenes, touches))
    since_start = touches.clone()
    since_start[..., :CURRENT_STEP] = False
    has_touched = since_start.cummax(dim=-1).values
    begins = torch.zeros_like(touches)
    begins[..., HISTORY_STEPS:] = (
        has_touched[..., HISTORY_STEPS:] & ~has_touched[..., CURRENT_STEP:-1]
    )
    return EgoCollisions(
        touches=touches, has_touched=has_touched, at_fault=_judged(scenes, begins, in_one_lane)
    )


def collision_score(
    at_fault: Bool[Tensor, "rollouts scenes agents steps"], type: Int[Tensor, "scenes agents"]
) -> Float[Tensor, "rollouts scenes"]:
    """Scores at-fault collisions as nuPlan does.

    0 with a vehicle, a pedestrian, a cyclist or two objects, 0.5 with one object, 1 without any.

    Args:
        at_fault: Where they begin.
        type: `AgentType` of each agent. What is none of the above is an object.
    """
    hit = at_fault.any(dim=-1)
    is_object = (type == AgentType.OTHER) | (type == AgentType.UNSET)
    harmed = (hit & ~is_object).any(dim=-1)
    num_objects = (hit & is_object).sum(dim=-1)
    return torch.where(harmed, 0.0, (1 - 0.5 * num_objects).clamp(min=0))


def is_behind(ego: Boxes, other: Boxes) -> Bool[Tensor, " pairs"]:
    """Tells whose centre is within 30 degrees of straight behind the ego's."""
    local = to_local(other.xy, ego.xy, ego.heading)
    return -local[..., 0] > MIN_COS_BEHIND * local.norm(dim=-1)


def hits_with_front(ego: Boxes, other: Boxes) -> Bool[Tensor, " pairs"]:
    """Tells whose box the ego's front bumper, the front side of its box, cuts."""
    front = box_corners(ego.xy, ego.heading, ego.size)[:, :2]
    left, right = to_local(front, other.xy[:, None], other.heading[:, None]).unbind(1)
    half = other.size[:, :2] / 2
    beside = (torch.minimum(left, right) > half) | (torch.maximum(left, right) < -half)
    along = left - right
    # The last axis of the separating axis theorem: across the bumper.
    gap = (along[:, 0] * left[:, 1] - along[:, 1] * left[:, 0]).abs()
    reach = along[:, 0].abs() * half[:, 1] + along[:, 1].abs() * half[:, 0]
    return ~beside.any(dim=-1) & (gap <= reach)


def _overlaps(ego: Boxes, other: Boxes) -> Bool[Tensor, " pairs"]:
    return boxes_overlap(ego.xy, ego.heading, ego.size, other.xy, other.heading, other.size)


def _judged(
    scenes: EgoScenes,
    begins: Bool[Tensor, "rollouts scenes agents steps"],
    in_one_lane: Bool[Tensor, "rollouts scenes steps"],
) -> Bool[Tensor, "rollouts scenes agents steps"]:
    """Tells which collisions are the ego's fault."""
    ego, other = boxes_of_pairs(scenes, begins)
    rollout, scene, _, step = begins.nonzero().unbind(-1)
    drives = ego.velocity.norm(dim=-1) > STOPPED_SPEED
    stands = other.velocity.norm(dim=-1) <= STOPPED_SPEED
    lateral = ~in_one_lane[rollout, scene, step]
    active = ~is_behind(ego, other) & (hits_with_front(ego, other) | lateral)
    at_fault = torch.zeros_like(begins)
    at_fault[begins] = drives & (stands | active)
    return at_fault
