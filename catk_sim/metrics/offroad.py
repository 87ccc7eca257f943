"""Departures from the road."""

import torch

from catk_sim.datatypes import AgentMetadata, Scenario, Trajectory
from catk_sim.geometry.boxes import box_corners
from catk_sim.metrics.base import MetricResult
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges


def distance_to_road_edge(
    motion: Trajectory, agents: AgentMetadata, edges: RoadEdges
) -> MetricResult:
    """Measures how far the outermost corner of each agent is off the road (m); negative: on it.

    Defined wherever the agent is valid. Minus infinity on a map without road edges.

    Args:
        motion: Motion whose batch is that of the map, or has further dimensions before it.
        agents: Sizes of the agents.
        edges: The road edges, from `RoadEdges.from_roadgraph`.
    """
    size = agents.size[..., :, None, :].expand(*motion.valid.shape, 3)
    corners = box_corners(motion.xy, motion.heading, size)
    ground = (motion.z - size[..., 2] / 2)[..., None, None].expand(*corners.shape[:-1], 1)
    xyz, valid = torch.cat([corners, ground], dim=-1), motion.valid
    # Dimensions that the map lacks become further clusters of the same map.
    extra = valid.dim() - 2 - (edges.radius.dim() - 1)
    moved = tuple(range(valid.dim() - 2 - extra, valid.dim() - 2))
    leading = tuple(range(extra))
    valid = valid.movedim(leading, moved)
    distance = signed_distance_to_road_edge(
        xyz.movedim(leading, moved).flatten(-extra - 4, -3),
        valid.flatten(-extra - 2),
        edges,
    )
    value = distance.amax(dim=-1).reshape(valid.shape).movedim(moved, leading)
    return MetricResult(value=value, valid=motion.valid)


def offroad_indication(
    simulated: Trajectory, scenario: Scenario, edges: RoadEdges | None = None
) -> MetricResult:
    """Tells where agents are off the road: 1 where a corner of the box is beyond it, else 0.

    Like WOSAC's, it counts every type of agent, and those that start off the road too.

    Args:
        simulated: Motion whose batch is the scenario's, or has further dimensions before it.
        scenario: Whose agents and map they are.
        edges: The map's road edges, if they are at hand; else they are picked out.
    """
    if edges is None:
        edges = RoadEdges.from_roadgraph(scenario.roadgraph)
    distance = distance_to_road_edge(simulated, scenario.agents, edges)
    return MetricResult(value=(distance.value > 0).to(simulated.xy), valid=distance.valid)
