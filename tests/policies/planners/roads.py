"""Straight and bent roads for planners, and how they drive them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from catk_sim.constants import NUM_STEPS
from catk_sim.datatypes import AgentType, MapFeatureType, RoadGraph, Scenario, Trajectory
from catk_sim.planning.drivers import PlannerDriver
from catk_sim.planning.planner import Planner
from catk_sim.planning.simulation import drive
from catk_sim.planning.tracking import Tracker
from tests import scenes
from tests.catk_sim.lane_scenes import lane_map

CAR, WALKER = AgentType.VEHICLE, AgentType.PEDESTRIAN

LIMIT = 25 * 0.44704
"""The speed limit of all roads (m/s)."""

Agent = tuple[AgentType, float, float, float, float]
"""Type, x, y (m), heading (rad) and speed (m/s)."""


def logged(roadgraph: RoadGraph, *agents: Agent, red_at: float | None = None) -> Scenario:
    """Agents that keep their velocities for the whole log. At the current step they are there.

    The first is the sdc.
    """
    start = torch.tensor([[x, y] for _, x, y, _, _ in agents])
    heading = torch.tensor([heading for *_, heading, _ in agents])
    speed = torch.tensor([speed for *_, speed in agents])
    velocity = speed[:, None] * torch.stack([heading.cos(), heading.sin()], dim=-1)
    seconds = 0.1 * (torch.arange(NUM_STEPS) - 10.0)
    shape = (len(agents), NUM_STEPS)
    scenario = scenes.straight_road()
    metadata = scenes.agents_of([kind for kind, *_ in agents])
    lights = scenario.traffic_lights
    stop = torch.tensor([1e3 if red_at is None else red_at, 0.0, 0.0])
    return scenario.replace(
        log=Trajectory(
            xy=start[:, None] + seconds[:, None] * velocity[:, None],
            z=torch.full(shape, 0.75),
            heading=heading[:, None].expand(shape).contiguous(),
            velocity=velocity[:, None].expand(*shape, 2).contiguous(),
            valid=torch.ones(shape, dtype=torch.bool),
        ),
        log_size=metadata.size[:, None].expand(*shape, 3).contiguous(),
        agents=metadata,
        roadgraph=roadgraph,
        traffic_lights=lights.replace(
            state=torch.full_like(lights.state, 4),
            stop_xyz=stop.expand_as(lights.stop_xyz).contiguous(),
        ),
    )


def straight(*, left: float = 6.0, right: float = -3.0) -> RoadGraph:
    """Lane 1 along y = 0, from x = -100 to x = 400, between road edges at given y."""
    x = [-100.0 + 4 * i for i in range(126)]
    lanes = {
        1: [(a, 0.0) for a in x],
        2: [(a, right) for a in x],
        3: [(a, left) for a in reversed(x)],
    }
    return _with_edges(lane_map(lanes, []))


def bend(radius: float) -> RoadGraph:
    """Lane 1 along y = 0 to x = 30, then a left turn, then north; no edges."""
    turn = torch.linspace(0, math.pi / 2, 33).tolist()
    way = [(-100.0 + 2 * i, 0.0) for i in range(65)]
    way += [(30 + radius * math.sin(a), radius - radius * math.cos(a)) for a in turn]
    way += [(30 + radius, radius + 2.0 * i) for i in range(1, 100)]
    return lane_map({1: way}, [])


def _with_edges(roadgraph: RoadGraph) -> RoadGraph:
    kind = roadgraph.feature_type.clone()
    kind[1:] = int(MapFeatureType.ROAD_EDGE_BOUNDARY)
    return roadgraph.replace(feature_type=kind)


def without_future(scenario: Scenario) -> Scenario:
    """The same, but nothing is known of where the sdc will go."""
    valid = scenario.log.valid.clone()
    valid[0, 11:] = False
    return scenario.replace(log=scenario.log.replace(valid=valid))


@dataclass(frozen=True)
class Drive:
    """What the ego did, from the current step on."""

    xy: Tensor
    heading: Tensor
    velocity: Tensor


def driven(
    planner: Planner, scenario: Scenario, *, num_steps: int = 80, tracker: Tracker | None = None
) -> Drive:
    result = drive(PlannerDriver(lambda: planner, tracker=tracker), [scenario], num_steps=num_steps)
    assert not result.failures, result.failures
    motion = result.rollout.simulated.slice(10, 11 + num_steps)
    return Drive(motion.xy[0, 0], motion.heading[0, 0], motion.velocity[0, 0])
