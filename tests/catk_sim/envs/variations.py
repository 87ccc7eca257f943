"""The straight road, with more or fewer things on it."""

import torch
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_STEPS, STEP_SECONDS
from catk_sim.datatypes import AgentType, RoadGraph, Scenario, Trajectory
from tests.scenes import agents_of, straight_road


def crowd(num_agents: int, seed: int = 0) -> Scenario:
    """A straight road full of cars, pedestrians and cyclists that go straight on at any speed.

    The first is the sdc, at the origin at the current step. Some enter late or leave early.
    """
    generator = torch.Generator().manual_seed(seed)
    road = straight_road()
    kinds = [AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST]
    agents = agents_of([kinds[index % 3] for index in range(num_agents)])
    start = 160 * torch.rand(num_agents, 2, generator=generator) - 80
    start[0] = 0
    heading = 6 * torch.rand(num_agents, generator=generator) - 3
    speed = 12 * torch.rand(num_agents, generator=generator)
    velocity = speed[:, None] * torch.stack([heading.cos(), heading.sin()], dim=-1)
    time = STEP_SECONDS * (torch.arange(NUM_STEPS) - CURRENT_STEP)
    shape = (num_agents, NUM_STEPS)
    entry = torch.randint(-40, 30, (num_agents, 1), generator=generator)
    exit_ = torch.randint(40, 200, (num_agents, 1), generator=generator)
    entry[0], exit_[0] = 0, NUM_STEPS
    step = torch.arange(NUM_STEPS)
    log = Trajectory(
        xy=start[:, None] + velocity[:, None] * time[:, None],
        z=torch.zeros(shape),
        heading=heading[:, None].expand(shape).contiguous(),
        velocity=velocity[:, None].expand(*shape, 2).contiguous(),
        valid=(step >= entry) & (step <= exit_),
    )
    size = agents.size[:, None].expand(num_agents, NUM_STEPS, 3).contiguous()
    return road.replace(scenario_id=(f"crowd_{seed}",), log=log, log_size=size, agents=agents)


def short(scenario: Scenario) -> Scenario:
    """The history alone, as in files of the test split."""
    lights = scenario.traffic_lights
    return scenario.replace(
        scenario_id=("short",),
        timestamps=scenario.timestamps[:HISTORY_STEPS],
        log=scenario.log.slice(0, HISTORY_STEPS),
        log_size=scenario.log_size[:, :HISTORY_STEPS],
        traffic_lights=lights.replace(
            state=lights.state[:, :HISTORY_STEPS],
            stop_xyz=lights.stop_xyz[:, :HISTORY_STEPS],
            valid=lights.valid[:, :HISTORY_STEPS],
        ),
    )


def without_map(scenario: Scenario) -> Scenario:
    """No map and no lights."""
    roadgraph: RoadGraph = scenario.roadgraph
    lights = scenario.traffic_lights
    return scenario.replace(
        scenario_id=("without_map",),
        roadgraph=roadgraph.replace(
            xyz=roadgraph.xyz[:0],
            feature=roadgraph.feature[:0],
            point_valid=roadgraph.point_valid[:0],
            feature_id=roadgraph.feature_id[:0],
            feature_type=roadgraph.feature_type[:0],
            speed_limit=roadgraph.speed_limit[:0],
            interpolating=roadgraph.interpolating[:0],
            feature_valid=roadgraph.feature_valid[:0],
        ),
        traffic_lights=lights.map(lambda tensor: tensor[:0]),
    )


def with_more_edges(scenario: Scenario) -> Scenario:
    """Another pair of road edges, far out, and the map again."""
    roadgraph = scenario.roadgraph
    xyz = roadgraph.xyz * torch.tensor([1.0, 3.0, 1.0])

    def twice(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor])

    doubled = roadgraph.map(twice).replace(
        xyz=torch.cat([roadgraph.xyz, xyz]),
        feature=torch.cat([roadgraph.feature, roadgraph.feature + 4]),
        links=roadgraph.links,
    )
    return scenario.replace(scenario_id=("more_edges",), roadgraph=doubled)


def moved(scenario: Scenario, metres: float) -> Scenario:
    """All agents far from the road."""
    log = scenario.log
    return scenario.replace(scenario_id=("moved",), log=log.replace(xy=log.xy + metres))


def with_present(scenario: Scenario, present: list[int]) -> Scenario:
    """Only some agents are valid at the current step."""
    valid = scenario.log.valid.clone()
    absent = torch.ones(valid.shape[0], dtype=torch.bool)
    absent[present] = False
    valid[absent, CURRENT_STEP] = False
    return scenario.replace(
        scenario_id=(f"present_{present}",), log=scenario.log.replace(valid=valid)
    )


def hit_at(step: int) -> Scenario:
    """C stands where the sdc is at the current step, but only from some step on."""
    road = straight_road()
    log = road.log.replace(xy=road.log.xy.clone(), valid=torch.ones_like(road.log.valid))
    log.xy[2, step:] = log.xy[0, CURRENT_STEP]
    return road.replace(scenario_id=(f"hit_at_{step}",), log=log)
