"""Egos on the straight road, and whom they meet there."""

import torch
from torch import Tensor

from catk_sim.constants import NUM_STEPS, STEP_SECONDS
from catk_sim.datatypes import AgentType, Scenario, Trajectory
from catk_sim.metrics.planning.ego import EgoScenes
from catk_sim.metrics.planning.lanes import is_in_one_lane
from tests import scenes

SECONDS = torch.arange(NUM_STEPS) * STEP_SECONDS - 1.0
"""Time of each step, the current one at 0."""


class EastwardRoute:
    """A route along lane 1 of the straight road: arc lengths are x."""

    def project(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        return xy[..., 0], xy[..., 1] + 2


def at_speed(
    x: float, y: float, speed: float, heading: float = 0.0, sideways: float = 0.0
) -> dict[str, Tensor]:
    """Someone who is at (x, y) at the current step and keeps that speed along x."""
    velocity = torch.tensor([float(speed), sideways])
    return {
        "xy": torch.tensor([x, y]) + SECONDS[:, None] * velocity,
        "heading": torch.full((NUM_STEPS,), heading),
        "velocity": velocity.expand(NUM_STEPS, 2),
    }


def road_with(
    ego: dict[str, Tensor],
    *others: dict[str, Tensor],
    types: list[AgentType] | None = None,
) -> Scenario:
    """The straight road with an ego and others on it, instead of those who are there."""
    types = [AgentType.VEHICLE] * len(others) if types is None else types
    drives = [ego, *others]
    road = scenes.straight_road()
    shape = (len(drives), NUM_STEPS)
    log = Trajectory(
        xy=torch.stack([drive["xy"] for drive in drives]),
        z=torch.zeros(shape),
        heading=torch.stack([drive["heading"] for drive in drives]),
        velocity=torch.stack([drive["velocity"] for drive in drives]),
        valid=torch.ones(shape, dtype=torch.bool),
    )
    agents = scenes.agents_of([AgentType.VEHICLE, *types])
    size = agents.size[:, None].expand(*shape, 3).contiguous()
    return road.replace(log=log, agents=agents, log_size=size)


def arranged(scenario: Scenario) -> tuple[EgoScenes, Tensor]:
    """The log as the one rollout of the one scenario, and where the ego is in one lane."""
    found = EgoScenes.of(scenario.log, scenario)
    one_lane = is_in_one_lane(found.corners[0], found.scenario.roadgraph)
    return found, one_lane[None]
