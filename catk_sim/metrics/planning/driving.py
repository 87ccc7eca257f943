"""Whether the ego gets on, and follows the rules of the road."""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, STEP_SECONDS
from catk_sim.datatypes import Trajectory
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.planning.ego import EgoScenes, points_of_scenes, steps_of_rollouts
from catk_sim.metrics.planning.lanes import LaneAt
from catk_sim.metrics.sim_agents.scene import file_coordinates, in_file_frame
from catk_sim.metrics.traffic_lights import SignalledLanes, traffic_light_violation

DIRECTION_STEPS = round(1 / STEP_SECONDS)
"""Steps within which movement against a lane adds up: those of a second."""

MAX_LATERAL = 10.0
"""How far from the route's centre line the ego still gets on along it (m). nuPlan asks for the
roadblocks of the route, which are all lanes of its direction side by side."""

MAX_SPEEDING = 2.23
"""Average speeding (m/s) that scores 0: 5 mph. nuPlan's value."""


@runtime_checkable
class ProjectsOnRoute(Protocol):
    """Where the ego is to go, as far as measures read it. Its batch is that of the scenarios."""

    def project(
        self, xy: Float[Tensor, "*batch points 2"]
    ) -> tuple[Float[Tensor, "*batch points"], Float[Tensor, "*batch points"]]:
        """Tells how far along the route points are, and how far to its left (m)."""
        ...


def wrong_way_distance(scenes: EgoScenes, lane: LaneAt) -> Float[Tensor, "rollouts scenes"]:
    """Measures how far the ego moves against its lane within a second, at most (m).

    On no lane there is no wrong way. Movement along the lane within the same second makes up.

    Args:
        scenes: What was simulated.
        lane: The lane at each step: its batch is (rollouts, scenes).
    """
    xy, valid = scenes.ego.xy[:, :, 0], scenes.valid
    along = (xy.diff(dim=-2) * lane.direction[..., 1:, :]).sum(dim=-1)
    counted = valid[..., 1:] & valid[..., :-1] & lane.valid[..., 1:]
    along = torch.where(counted, along, 0.0)[..., CURRENT_STEP:]
    total = pad(along.cumsum(dim=-1), (DIRECTION_STEPS, 0))
    within = total[..., DIRECTION_STEPS:] - total[..., :-DIRECTION_STEPS]
    return (-within.amin(dim=-1)).clamp(min=0)


def speed_limit_score(scenes: EgoScenes, lane: LaneAt) -> Float[Tensor, "rollouts scenes"]:
    """Scores speeding as nuPlan does: 1 without any, 0 for 5 mph on average over all steps.

    NaN where no limit of a lane is known. Where it is unknown nobody speeds.

    Args:
        scenes: What was simulated.
        lane: The lane at each step: its batch is (rollouts, scenes).
    """
    known = (lane.valid & scenes.valid & (lane.speed_limit > 0))[..., HISTORY_STEPS:]
    excess = (scenes.speed - lane.speed_limit)[..., HISTORY_STEPS:].clamp(min=0)
    mean = torch.where(known, excess, 0.0).mean(dim=-1)
    return torch.where(known.any(dim=-1), (1 - mean / MAX_SPEEDING).clamp(min=0), math.nan)


def progress_along_route(
    motion: Trajectory, route: ProjectsOnRoute, batch: torch.Size
) -> Float[Tensor, "rollouts scenes"]:
    """Measures how far an ego gets along its route after the current step (m).

    Steps more than `MAX_LATERAL` beside it, and those without the ego, add nothing.

    Args:
        motion: What it did: its batch is (rollouts, scenes), and it is the only agent.
        route: Where it was to go.
        batch: The batch of the route, which has as many members as there are scenes.
    """
    num_rollouts = motion.xy.shape[0]
    xy = points_of_scenes(motion.xy[:, :, 0, CURRENT_STEP:])
    arc, lateral = route.project(xy.reshape(*batch, *xy.shape[1:]))
    arc, lateral = (
        steps_of_rollouts(values.reshape(xy.shape[:2]), num_rollouts) for values in (arc, lateral)
    )
    on_route = motion.valid[:, :, 0, CURRENT_STEP:] & (lateral.abs() <= MAX_LATERAL)
    counted = on_route[..., 1:] & on_route[..., :-1]
    return torch.where(counted, arc.diff(dim=-1), 0.0).sum(dim=-1)


def runs_red_light(scenes: EgoScenes) -> Float[Tensor, "rollouts scenes"]:
    """Tells whether the ego runs a red light, as WOSAC does: 1 or 0. NaN on a map without lights.

    See `traffic_light_violation`. Steps after the log's end do not count: no light is known.
    """
    scenario, ego = scenes.scenario, scenes.ego
    placed = in_file_frame(scenario)
    lanes = SignalledLanes.from_map(placed.roadgraph, placed.traffic_lights)
    num_steps = min(scenes.motion.num_steps, lanes.is_red.shape[-1])
    origin = scenario.origin[:, None, None, :]
    size = scenes.ego_agent.size[..., None, :].expand(*ego.xy.shape[:-1], 3)
    boxes = BoxTrajectory(
        x=file_coordinates(ego.xy[..., 0], origin[..., 0]),
        y=file_coordinates(ego.xy[..., 1], origin[..., 1]),
        z=file_coordinates(ego.z, origin[..., 2]),
        heading=ego.heading,
        length=size[..., 0],
        width=size[..., 1],
        height=size[..., 2],
        valid=ego.valid,
    )
    first = torch.zeros_like(scenes.index)[:, None]
    steps = slice(CURRENT_STEP, num_steps)
    violation = traffic_light_violation(
        boxes.slice(steps.start, steps.stop), lanes.slice(steps.start, steps.stop), first
    )[:, :, 0]
    has_lights = _has_lights(scenes)
    return torch.where(has_lights, violation.any(dim=-1).to(ego.xy), math.nan)


def _has_lights(scenes: EgoScenes) -> Bool[Tensor, " scenes"]:
    return scenes.scenario.traffic_lights.valid.flatten(1).any(dim=-1)
