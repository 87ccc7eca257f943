"""Departures from the road."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.datatypes import AgentMetadata, AgentType, Scenario, Trajectory
from catk_sim.geometry.boxes import box_corners
from catk_sim.metrics.base import MetricResult
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges

ABSENT = -1e10
"""Distance of an absent box to the road edge (m), as WOSAC has it."""


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
    value = _outermost(corners, motion.z - size[..., 2] / 2, motion.valid, edges)
    return MetricResult(value=value, valid=motion.valid)


def box_distance_to_road_edge(
    boxes: BoxTrajectory, edges: RoadEdges
) -> Float[Tensor, "*batch agents steps"]:
    """Measures how far the outermost corner of each box is off the road (m); negative: on it.

    WOSAC's `distance_to_road_edge`, if the edges were read by its rule. `ABSENT` where there is no
    box.

    Args:
        boxes: Boxes whose batch is that of the maps, or has further dimensions before it.
        edges: The road edges, in the frame of the boxes.

    Raises:
        ValueError: If a map has no road edge. WOSAC's evaluation fails on such a scenario.
    """
    bare = edges.is_empty.nonzero().tolist()
    if bare:
        which = f"map {bare[0]} of the batch" if bare[0] else "the map"
        raise ValueError(f"wanted a map with road edges, but {which} has none")
    corners = box_corners(
        torch.stack([boxes.x, boxes.y], dim=-1),
        boxes.heading,
        torch.stack([boxes.length, boxes.width], dim=-1),
    )
    value = _outermost(corners, boxes.z - boxes.height / 2, boxes.valid, edges)
    return torch.where(boxes.valid, value, ABSENT)


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


def vehicles_off_road(
    simulated: Trajectory, scenario: Scenario
) -> Bool[Tensor, "*batch agents steps"]:
    """Tells where vehicles are off the road, for pictures. Pedestrians are so by right.

    Args:
        simulated: As for `offroad_indication`.
        scenario: Whose agents and map they are.
    """
    is_vehicle = (scenario.agents.type == AgentType.VEHICLE)[..., None]
    return (offroad_indication(simulated, scenario).value > 0) & is_vehicle


def _outermost(
    corners: Float[Tensor, "*batch agents steps 4 2"],
    ground: Float[Tensor, "*batch agents steps"],
    valid: Bool[Tensor, "*batch agents steps"],
    edges: RoadEdges,
) -> Float[Tensor, "*batch agents steps"]:
    """Measures how far off the road the outermost corner is (m); minus infinity if not valid."""
    ground = ground[..., None, None].expand(*corners.shape[:-1], 1)
    xyz = torch.cat([corners, ground], dim=-1)
    distance = signed_distance_to_road_edge(xyz.flatten(-4, -3), valid.flatten(-2), edges)
    return distance.amax(dim=-1).reshape(valid.shape)
