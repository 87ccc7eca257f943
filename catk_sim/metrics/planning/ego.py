"""The ego among the agents of its scenarios."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from catk_sim.constants import HISTORY_STEPS
from catk_sim.datatypes import AgentMetadata, Scenario, TensorTree, Trajectory
from catk_sim.geometry.boxes import box_corners

STOPPED_SPEED = 0.05
"""Who is no faster than this stands (m/s). nuPlan's value."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EgoScenes(TensorTree):
    """Rollouts of scenarios, with one dimension for the rollouts and one for the scenarios.

    Attributes:
        scenario: The scenarios.
        motion: What everybody did.
        index: Which agent of each scenario is the ego.
        ego: What the ego did: the motion of one agent.
        ego_agent: Its size and type.
    """

    scenario: Scenario
    motion: Trajectory
    index: Int[Tensor, " scenes"]
    ego: Trajectory
    ego_agent: AgentMetadata

    @classmethod
    def of(cls, simulated: Trajectory, scenario: Scenario) -> "EgoScenes":
        """Arranges rollouts. Arguments and errors as for `evaluate_ego`."""
        _check(simulated, scenario)
        batch = scenario.agents.is_sdc.shape[:-1]
        num_scenes = math.prod(batch)
        flat = scenario.map(lambda tensor: tensor.reshape(num_scenes, *tensor.shape[len(batch) :]))
        inner = simulated.valid.dim() - 2
        motion = simulated.map(lambda tensor: tensor.reshape(-1, num_scenes, *tensor.shape[inner:]))
        index = flat.agents.sdc_index
        return cls(
            scenario=flat,
            motion=motion,
            index=index,
            ego=motion.map(lambda tensor: _taken(tensor, index, dim=2)),
            ego_agent=flat.agents.map(lambda tensor: _taken(tensor, index, dim=1)),
        )

    @property
    def log(self) -> Trajectory:
        """What the ego did in the log, at the steps that were simulated."""
        log = self.scenario.log.map(lambda tensor: _taken(tensor, self.index, dim=1))
        steps = torch.arange(self.motion.num_steps, device=self.index.device)
        return log.gather(steps.expand(len(self.index), -1))

    @property
    def valid(self) -> Bool[Tensor, "rollouts scenes steps"]:
        """Where the ego is there."""
        return self.ego.valid[:, :, 0]

    @property
    def speed(self) -> Float[Tensor, "rollouts scenes steps"]:
        """How fast the ego is (m/s)."""
        return self.ego.velocity[:, :, 0].norm(dim=-1)

    @property
    def corners(self) -> Float[Tensor, "rollouts scenes steps 4 2"]:
        """Corners of the ego's box (m): left-front, right-front, right-back, left-back."""
        size = self.ego_agent.size.expand(*self.valid.shape, 3)
        return box_corners(self.ego.xy[:, :, 0], self.ego.heading[:, :, 0], size)


@dataclass(frozen=True, eq=False, kw_only=True)
class Boxes(TensorTree):
    """Boxes that move.

    Attributes:
        xy: Centres (m).
        heading: Directions (rad).
        size: Length, width and height (m).
        velocity: Velocities (m/s).
    """

    xy: Float[Tensor, "pairs 2"]
    heading: Float[Tensor, " pairs"]
    size: Float[Tensor, "pairs 3"]
    velocity: Float[Tensor, "pairs 2"]


def boxes_of_pairs(
    scenes: EgoScenes, chosen: Bool[Tensor, "rollouts scenes agents steps"]
) -> tuple[Boxes, Boxes]:
    """Returns the boxes of the ego and of the other agent, for each agent and step that counts."""
    rollout, scene, agent, step = chosen.nonzero().unbind(-1)

    def boxes(of: Int[Tensor, " pairs"]) -> Boxes:
        motion = scenes.motion
        return Boxes(
            xy=motion.xy[rollout, scene, of, step],
            heading=motion.heading[rollout, scene, of, step],
            size=scenes.scenario.agents.size[scene, of],
            velocity=motion.velocity[rollout, scene, of, step],
        )

    return boxes(scenes.index[scene]), boxes(agent)


def within_reach(scenes: EgoScenes, seconds: float) -> Bool[Tensor, "rollouts scenes agents steps"]:
    """Tells which other agents may meet the ego at constant velocities, at least those that do.

    That is where circles around the boxes meet. The margin covers what is rounded.

    Args:
        scenes: What was simulated.
        seconds: How soon (s).
    """
    motion, ego = scenes.motion, scenes.ego
    radius = scenes.scenario.agents.size[..., :2].norm(dim=-1) / 2
    reach = radius + radius.gather(1, scenes.index[:, None]) + 1e-3
    offset = (motion.xy - ego.xy).norm(dim=-1)
    closing = (motion.velocity - ego.velocity).norm(dim=-1)
    near = offset <= reach[..., None] + seconds * closing
    agent = torch.arange(motion.num_agents, device=near.device)
    other = agent != scenes.index[:, None]
    return near & motion.valid & ego.valid & other[..., None]


def points_of_scenes(
    values: Shaped[Tensor, "rollouts scenes steps *rest"],
) -> Shaped[Tensor, "scenes points *rest"]:
    """Makes one list of all steps of all rollouts of a scenario."""
    return values.transpose(0, 1).flatten(1, 2)


def steps_of_rollouts(
    values: Shaped[Tensor, "scenes points *rest"], num_rollouts: int
) -> Shaped[Tensor, "rollouts scenes steps *rest"]:
    """Takes such a list apart again."""
    return values.unflatten(1, (num_rollouts, -1)).transpose(0, 1)


def _taken(values: Tensor, index: Int[Tensor, " scenes"], dim: int) -> Tensor:
    """Takes one agent of each scene. The scenes are the dimension before the agents."""
    shape = [1] * values.dim()
    shape[dim - 1] = len(index)
    return torch.take_along_dim(values, index.reshape(shape), dim=dim)


def _check(simulated: Trajectory, scenario: Scenario) -> None:
    batch, of_scenario = simulated.valid.shape[:-1], scenario.agents.is_sdc.shape
    if batch[max(0, len(batch) - len(of_scenario)) :] != of_scenario:
        raise ValueError(
            f"wanted motion whose batch and agents end in the scenario's {tuple(of_scenario)}, "
            f"got {tuple(batch)}"
        )
    if simulated.num_steps <= HISTORY_STEPS:
        raise ValueError(
            f"wanted more than the {HISTORY_STEPS} steps of the history, got {simulated.num_steps}"
        )
    count = scenario.agents.is_sdc.sum(dim=-1)
    for scenario_id, num in zip(scenario.scenario_id, count.flatten().tolist(), strict=True):
        if num != 1:
            raise ValueError(f"wanted one sdc in scenario {scenario_id}, got {num}")
