"""How good simulated drives are."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import STEP_SECONDS
from catk_sim.geometry.boxes import box_corners
from catk_sim.metrics.planning.collisions import hits_with_front, is_behind
from catk_sim.metrics.planning.comfort import (
    MAX_LATERAL_ACCELERATION,
    MAX_LONGITUDINAL_ACCELERATION,
    MAX_LONGITUDINAL_JERK,
    MAX_YAW_ACCELERATION,
    MAX_YAW_RATE,
    MIN_LONGITUDINAL_ACCELERATION,
)
from catk_sim.metrics.planning.ego import STOPPED_SPEED, Boxes
from catk_sim.metrics.planning.ego_metrics import MIN_TIME_TO_COLLISION
from catk_sim.metrics.planning.lanes import HALF_WIDTH
from catk_sim.metrics.planning.time_to_contact import contact_time
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges
from policies.planners.route_following import Drives
from policies.planners.situation import Situation

WEIGHTS = (5.0, 5.0, 2.0)
"""Of progress, time to collision and comfort."""

EDGE_STRIDE = 4
"""One of so many steps is looked at for the edges of the road."""

COLLISION, OFFROAD = 1e-6, 1e-3
"""What violations leave of a score: where none can be helped, a choice is left."""

OFFROAD_DEPTH = 0.3
"""How far off the road that falls by a factor of e (m)."""

ASIDE_COST = 0.03
"""What a metre beside the centre costs. Else the inside of each bend would be best."""

MIN_PROGRESS = 0.1
"""Where no drive gets farther, progress is no measure (m)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """How good drives are.

    Attributes:
        total: The score.
        collision_step: Step of the first collision by the ego's fault; beyond the last step where
            there is none.
    """

    total: Float[Tensor, " drives"]
    collision_step: Int[Tensor, " drives"]


def score(drives: Drives, situation: Situation, edges: RoadEdges) -> Scores:
    """Scores drives as PDM-Closed does, after nuPlan's closed-loop score.

    A drive that collides by its own fault or leaves the road loses nearly all. Else progress
    compared with the others, time to collision and comfort count. Driving direction does not: all
    drives keep to the route.
    """
    meeting = _meet(drives, situation)
    depth = _depth_offroad(drives, situation, edges)
    factor = torch.where(depth > 0, OFFROAD * (-depth / OFFROAD_DEPTH).exp(), 1.0)
    # The later a collision, the better.
    late = meeting.collision_step / drives.arc.shape[1]
    factor = factor * torch.where(meeting.collides, COLLISION * late, 1.0)
    progress = drives.arc[:, -1] - drives.arc[:, 0]
    best = (progress * factor).amax()
    progress = torch.where(best > MIN_PROGRESS, (progress / best).clamp(max=1), 1.0)
    parts = torch.stack([progress, (~meeting.is_near).float(), _is_comfortable(drives).float()])
    weights = torch.tensor(WEIGHTS)
    aside = ASIDE_COST * drives.lateral[:, -1].abs()
    total = factor * ((weights @ parts) / weights.sum() - aside).clamp(min=0)
    return Scores(total=total, collision_step=meeting.collision_step)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Meeting:
    """What becomes of drives and other agents."""

    collides: Bool[Tensor, " drives"]
    collision_step: Int[Tensor, " drives"]
    """Of the first collision; the number of steps where there is none."""
    is_near: Bool[Tensor, " drives"]
    """Whether a collision is nearer than nuPlan likes, at constant velocities."""


def _meet(drives: Drives, situation: Situation) -> _Meeting:
    """Applies nuPlan's rules for collisions and time to collision."""
    others, size = situation.others, situation.ego.size
    direction = torch.stack([drives.heading.cos(), drives.heading.sin()], dim=-1)
    velocity = drives.speed[..., None] * direction
    # (drives, agents, steps)
    offset = (others.xy - drives.xy[:, None]).norm(dim=-1)
    closing = (others.velocity[:, None] - velocity[:, None]).norm(dim=-1)
    reach = (others.size[:, :2].norm(dim=-1) + size[:2].norm()) / 2
    near = offset <= reach[:, None] + MIN_TIME_TO_COLLISION * closing
    drive, agent, step = near.nonzero().unbind(-1)
    ego = Boxes(
        xy=drives.xy[drive, step],
        heading=drives.heading[drive, step],
        size=size.expand(len(drive), 3),
        velocity=velocity[drive, step],
    )
    other = Boxes(
        xy=others.xy[agent, step],
        heading=others.heading[agent],
        size=others.size[agent],
        velocity=others.velocity[agent],
    )
    time = contact_time(ego, other)
    moves = drives.speed[drive, step] > STOPPED_SPEED
    beside = ~is_behind(ego, other) & ~_keeps_lane(drives, situation)[drive, step]
    stands = other.velocity.norm(dim=-1) <= STOPPED_SPEED
    front = ~is_behind(ego, other) & hits_with_front(ego, other)

    def everywhere(values: Bool[Tensor, " pairs"]) -> Bool[Tensor, "drives agents steps"]:
        whole = torch.zeros_like(near)
        whole[near] = values
        return whole

    has_touched = everywhere(time == 0).cummax(dim=-1).values
    begins = has_touched[..., 1:] & ~has_touched[..., :-1]
    at_fault = everywhere(moves & (stands | front | beside))[..., 1:] & begins
    ahead = is_behind(replace(ego, heading=ego.heading + math.pi), other)
    is_near = everywhere(moves & (ahead | beside) & (time < MIN_TIME_TO_COLLISION)) & ~has_touched
    hit = at_fault.any(dim=1)
    num_steps = hit.shape[-1]
    steps = torch.where(hit, torch.arange(num_steps), num_steps)
    return _Meeting(
        collides=hit.any(dim=-1),
        collision_step=steps.amin(dim=-1) + 1,
        is_near=is_near[..., 1:].any(dim=-1).any(dim=-1),
    )


def _keeps_lane(drives: Drives, situation: Situation) -> Bool[Tensor, "drives steps"]:
    """Tells where all corners of the ego are in the lane that the route follows."""
    length, width = situation.ego.size[:2].tolist()
    sin, cos = drives.angle.sin().abs(), drives.angle.cos().abs()
    reach = drives.lateral.abs() + (length * sin + width * cos) / 2
    lane_id = situation.road.route.lane_id
    has_lane = lane_id[drives.arc.long().clamp(0, len(lane_id) - 1)] >= 0
    return has_lane & (reach <= HALF_WIDTH)


def _depth_offroad(
    drives: Drives, situation: Situation, edges: RoadEdges
) -> Float[Tensor, " drives"]:
    """Measures how far beyond a road edge drives take a corner of the ego, more than it is (m)."""
    xy, heading, arc = (part[:, ::EDGE_STRIDE] for part in (drives.xy, drives.heading, drives.arc))
    corners = box_corners(xy, heading, situation.ego.size.expand(*heading.shape, 3))
    height = torch.tensor(situation.road.height).to(arc)
    height = height[arc.long().clamp(0, len(height) - 1)]
    xyz = torch.cat([corners, height[..., None, None].expand(*corners.shape[:-1], 1)], dim=-1)
    clusters = xyz.flatten(0, 1)
    valid = torch.ones(len(clusters), dtype=torch.bool)
    distance = signed_distance_to_road_edge(clusters, valid, edges).amax(dim=-1)
    distance = distance.reshape(heading.shape)
    return (distance[:, 1:].amax(dim=1) - distance[:, 0].clamp(min=0)).clamp(min=0)


def _is_comfortable(drives: Drives) -> Bool[Tensor, " drives"]:
    """Tells which drives are within nuPlan's bounds."""
    acceleration, speed = drives.acceleration[:, 1:], drives.speed[:, 1:]
    yaw_rate = speed * drives.curvature[:, 1:]
    jerk = drives.acceleration.diff(dim=1).abs() / STEP_SECONDS
    yaw_acceleration = yaw_rate.diff(dim=1).abs() / STEP_SECONDS
    return (
        (acceleration.amin(dim=1) > MIN_LONGITUDINAL_ACCELERATION)
        & (acceleration.amax(dim=1) < MAX_LONGITUDINAL_ACCELERATION)
        & ((yaw_rate * speed).abs().amax(dim=1) < MAX_LATERAL_ACCELERATION)
        & (jerk.amax(dim=1) < MAX_LONGITUDINAL_JERK)
        & (yaw_rate.abs().amax(dim=1) < MAX_YAW_RATE)
        & (yaw_acceleration.amax(dim=1) < MAX_YAW_ACCELERATION)
    )
