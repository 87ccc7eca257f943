"""How well the ego drove: all measures of it, scenario by scenario."""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datatypes import Scenario, TensorTree, Trajectory
from catk_sim.metrics.displacement import average_displacement_error, displacement_error
from catk_sim.metrics.offroad import distance_to_road_edge
from catk_sim.metrics.planning.collisions import collision_score, ego_collisions
from catk_sim.metrics.planning.comfort import Comfort, comfort
from catk_sim.metrics.planning.driving import (
    ProjectsOnRoute,
    progress_along_route,
    runs_red_light,
    speed_limit_score,
    wrong_way_distance,
)
from catk_sim.metrics.planning.ego import EgoScenes, points_of_scenes, steps_of_rollouts
from catk_sim.metrics.planning.lanes import is_in_one_lane, lane_at
from catk_sim.metrics.planning.time_to_contact import time_to_contact
from catk_sim.metrics.road_edges import RoadEdges

MAX_OFFROAD_DISTANCE = 0.3
"""How far off the road (m) nuPlan tolerates a corner."""

MAX_WRONG_WAY_DISTANCE = 2.0
"""How far against a lane (m) nuPlan tolerates within a second."""

LONG_WRONG_WAY_DISTANCE = 6.0
"""From which distance (m) it scores 0."""

MIN_TIME_TO_COLLISION = 0.95
"""Less (s) scores 0 with nuPlan."""

SMALL_PROGRESS = 0.1
"""Less progress (m) counts as this much with nuPlan, and less than none of it as 0."""

MIN_PROGRESS = 0.2
"""Part of the log's progress that nuPlan takes for making progress."""

WEIGHTS = {"time_to_collision": 5.0, "progress": 5.0, "speed_limit": 4.0, "comfort": 2.0}
"""Of the measures that nuPlan averages."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EgoMetrics(TensorTree):
    """Measures of the ego over the simulated steps. NaN where a measure is not defined.

    Flags are 1 (it happened) or 0. What ends in `_score` is nuPlan's: 1 is best, 0 worst.

    Attributes:
        scenario_id: WOMD's id of each scenario of the batch.
        collision: Flag: the box of the ego overlaps that of another agent at some step.
        at_fault_collision: Flag: it does so by its own fault, by nuPlan's rules.
        offroad: Flag: a corner of the ego is beyond a road edge at some step. NaN on a map without
            road edges.
        red_light_violation: Flag: it runs a red light. NaN on a map without lights.
        wrong_way_distance: Most that the ego moved against its lane within a second (m).
        progress: How far it went along the route (m).
        time_to_collision: Least time to a collision at constant velocities (s), at most 5.
        ade: Average displacement from the log (m). NaN if the log does not have the sdc.
        fde: Displacement from the log at the last step (m), likewise.
        comfort: Extremes of acceleration, jerk and turning.
        collision_score: 0 for an at-fault collision with a vehicle, a pedestrian or a cyclist or
            two with objects, 0.5 for one with an object, else 1.
        drivable_area_score: 0 if a corner is more than 0.3 m off the road, else 1. NaN on a map
            without road edges.
        driving_direction_score: 0 for a `wrong_way_distance` from 6 m on, 0.5 from 2 m, else 1.
        making_progress_score: 1 if `progress_score` is at least 0.2, else 0.
        time_to_collision_score: 1 if `time_to_collision` is at least 0.95 s, else 0.
        progress_score: `progress` as a part of the log's, at most 1.
        speed_limit_score: 1 without speeding, 0 for 2.23 m/s too much on average. NaN where no
            lane's limit is known.
        comfort_score: 1 if all of `comfort` is within bounds, else 0. NaN for an ego that is absent
            at some step.
        score: nuPlan's closed-loop score: the product of the first four scores and the weighted
            mean of the last four (5, 5, 4 and 2). What is NaN does not count.
        collision_step: Step of the first collision. Arbitrary where there is none.
        collision_agent: Id of an agent that the ego then overlaps, likewise.
        offroad_step: First step off the road, likewise.
    """

    scenario_id: tuple[str, ...]
    collision: Float[Tensor, "*batch"]
    at_fault_collision: Float[Tensor, "*batch"]
    offroad: Float[Tensor, "*batch"]
    red_light_violation: Float[Tensor, "*batch"]
    wrong_way_distance: Float[Tensor, "*batch"]
    progress: Float[Tensor, "*batch"]
    time_to_collision: Float[Tensor, "*batch"]
    ade: Float[Tensor, "*batch"]
    fde: Float[Tensor, "*batch"]
    comfort: Comfort
    collision_score: Float[Tensor, "*batch"]
    drivable_area_score: Float[Tensor, "*batch"]
    driving_direction_score: Float[Tensor, "*batch"]
    making_progress_score: Float[Tensor, "*batch"]
    time_to_collision_score: Float[Tensor, "*batch"]
    progress_score: Float[Tensor, "*batch"]
    speed_limit_score: Float[Tensor, "*batch"]
    comfort_score: Float[Tensor, "*batch"]
    score: Float[Tensor, "*batch"]
    collision_step: Int[Tensor, "*batch"]
    collision_agent: Int[Tensor, "*batch"]
    offroad_step: Int[Tensor, "*batch"]

    def scenario_records(self) -> list[dict[str, str | float]]:
        """Lists a record for each scenario, in the order in which they first appear.

        Measures are averaged over the rollouts of a scenario, those that share its id. `min_ade` is
        the least `ade` of them (m), `num_rollouts` tells how many there are. Steps and agents are
        left out: they are a rollout's.
        """
        rows: dict[str, list[int]] = {}
        for row, scenario_id in enumerate(self.scenario_id):
            rows.setdefault(scenario_id, []).append(row)
        columns = self._columns()
        records = []
        for scenario_id, members in rows.items():
            records.append(
                {"scenario_id": scenario_id, "num_rollouts": float(len(members))}
                | {name: column[members].mean().item() for name, column in columns.items()}
                | {"min_ade": columns["ade"][members].amin().item()}
            )
        return records

    def _columns(self) -> dict[str, Float[Tensor, " rows"]]:
        columns = {}
        for record in (self, self.comfort):
            values = ((field.name, getattr(record, field.name)) for field in fields(record))
            columns |= {
                name: value.flatten().double()
                for name, value in values
                if isinstance(value, Tensor) and value.is_floating_point()
            }
        return columns


def evaluate_ego(simulated: Trajectory, scenario: Scenario, route: ProjectsOnRoute) -> EgoMetrics:
    """Measures how the sdc drove.

    The steps after the current one count; the history gives comfort its start. Of nuPlan: Caesar
    et al., "nuPlan: A closed-loop ML-based planning benchmark for autonomous vehicles",
    arXiv:2106.11810, and the metrics description that comes with its devkit.

    Args:
        simulated: `Rollout.simulated`, whose batch is the scenario's or has further dimensions,
            such as rollouts, before it.
        scenario: What was logged, in float32.
        route: Where the ego was to go.

    Raises:
        ValueError: A scenario does not have exactly one sdc, nothing was simulated, or the motion
            is that of other agents.

    Example:
        >>> import torch
        >>> from catk_sim.datasets import open_scenarios
        >>> from catk_sim.planning.route import Route
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> metrics = evaluate_ego(scenario.log, scenario, Route.from_scenario(scenario))
        >>> float(metrics.score) > 0.9  # The log itself.
        True
    """
    batch = scenario.agents.is_sdc.shape[:-1]
    scenes = EgoScenes.of(simulated, scenario)
    measured = (
        _met(scenes)
        | _offroad(scenes)
        | _rules(scenes)
        | _progress(scenes, route, batch)
        | _displacement(scenes)
    )
    shape = simulated.valid.shape[:-2]
    measured = {name: value.reshape(shape) for name, value in measured.items()}
    extremes = comfort(scenes.ego.xy[:, :, 0], scenes.ego.heading[:, :, 0], scenes.valid)
    extremes = extremes.map(lambda tensor: tensor.reshape(shape))
    measured["comfort_score"] = extremes.score
    return EgoMetrics(
        scenario_id=scenario.scenario_id * scenes.motion.batch_size,
        comfort=extremes,
        score=_closed_loop_score(measured),
        **measured,
    )


Measures = dict[str, Shaped[Tensor, "*batch"]]
"""Some fields of `EgoMetrics`, by name."""


def _met(scenes: EgoScenes) -> Measures:
    """Measures what the ego has to do with other agents."""
    corners, num_rollouts = scenes.corners, scenes.motion.batch_size
    in_one_lane = is_in_one_lane(points_of_scenes(corners), scenes.scenario.roadgraph)
    in_one_lane = steps_of_rollouts(in_one_lane, num_rollouts)
    collisions = ego_collisions(scenes, in_one_lane)
    touches = collisions.touches[..., HISTORY_STEPS:]
    time = time_to_contact(scenes, collisions.has_touched, in_one_lane).amin(dim=-1)
    first = touches.any(dim=2).to(torch.uint8).argmax(dim=-1)
    at_first = torch.take_along_dim(touches, first[..., None, None], dim=-1)[..., 0]
    agent = at_first.to(torch.uint8).argmax(dim=-1)
    agents = scenes.scenario.agents
    return {
        "collision": _flag(touches.any(dim=-1).any(dim=-1), time),
        "at_fault_collision": _flag(collisions.at_fault.any(dim=-1).any(dim=-1), time),
        "collision_score": collision_score(collisions.at_fault, agents.type),
        "collision_step": first + HISTORY_STEPS,
        "collision_agent": agents.agent_id.gather(1, agent.T).T,
        "time_to_collision": time,
        "time_to_collision_score": _flag(time >= MIN_TIME_TO_COLLISION, time),
    }


def _offroad(scenes: EgoScenes) -> Measures:
    edges = RoadEdges.from_roadgraph(scenes.scenario.roadgraph)
    distance = distance_to_road_edge(scenes.ego, scenes.ego_agent, edges)
    value = torch.where(distance.valid, distance.value, -math.inf)[:, :, 0, HISTORY_STEPS:]
    worst = value.amax(dim=-1)
    nowhere = torch.where(edges.is_empty, math.nan, 0.0)
    return {
        "offroad": _flag(worst > 0, worst) + nowhere,
        "drivable_area_score": _flag(worst <= MAX_OFFROAD_DISTANCE, worst) + nowhere,
        "offroad_step": (value > 0).to(torch.uint8).argmax(dim=-1) + HISTORY_STEPS,
    }


def _rules(scenes: EgoScenes) -> Measures:
    """Measures how the ego follows the rules of the road."""
    xy, heading = (points_of_scenes(x[:, :, 0]) for x in (scenes.ego.xy, scenes.ego.heading))
    lane = lane_at(xy, heading, scenes.scenario.roadgraph)
    lane = lane.map(lambda tensor: steps_of_rollouts(tensor, scenes.motion.batch_size))
    against = wrong_way_distance(scenes, lane)
    half = _flag(against < MAX_WRONG_WAY_DISTANCE, against)
    return {
        "red_light_violation": runs_red_light(scenes),
        "wrong_way_distance": against,
        "driving_direction_score": (half + _flag(against < LONG_WRONG_WAY_DISTANCE, against)) / 2,
        "speed_limit_score": speed_limit_score(scenes, lane),
    }


def _progress(scenes: EgoScenes, route: ProjectsOnRoute, batch: torch.Size) -> Measures:
    progress = progress_along_route(scenes.ego, route, batch)
    of_log = progress_along_route(scenes.log.repeat(1), route, batch)
    ratio = progress.clamp(min=SMALL_PROGRESS) / of_log.clamp(min=SMALL_PROGRESS)
    score = torch.where(progress < -SMALL_PROGRESS, 0.0, ratio.clamp(max=1))
    return {
        "progress": progress,
        "progress_score": score,
        "making_progress_score": _flag(score >= MIN_PROGRESS, score),
    }


def _displacement(scenes: EgoScenes) -> Measures:
    future = scenes.ego.slice(HISTORY_STEPS, scenes.motion.num_steps)
    log = scenes.log.slice(HISTORY_STEPS, scenes.motion.num_steps)
    error = displacement_error(future, log)
    last = torch.where(error.valid, error.value, math.nan)[:, :, 0, -1]
    return {"ade": average_displacement_error(future, log)[:, :, 0], "fde": last}


def _closed_loop_score(measured: Measures) -> Float[Tensor, "*batch"]:
    """Multiplies and averages as nuPlan does. What is NaN does not count."""
    factors = ("collision", "drivable_area", "driving_direction", "making_progress")
    product = torch.stack([measured[f"{name}_score"] for name in factors]).nan_to_num(1.0)
    averaged = torch.stack([measured[f"{name}_score"] for name in WEIGHTS])
    weight = averaged.new_tensor(list(WEIGHTS.values()))
    weight = weight.reshape(-1, *[1] * (averaged.dim() - 1)) * ~averaged.isnan()
    mean = (weight * averaged.nan_to_num(0.0)).sum(dim=0) / weight.sum(dim=0)
    return product.prod(dim=0) * mean


def _flag(
    happens: Bool[Tensor, "*batch"], like: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    return happens.to(like)
