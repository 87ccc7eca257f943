"""Closed-loop figures of many rollouts, by type of agent."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datatypes import AgentType, Scenario, TensorTree, Trajectory
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.displacement import (
    average_displacement_error,
    scene_min_average_displacement_error,
)
from catk_sim.metrics.offroad import offroad_indication

GROUPS = {
    "all": tuple(AgentType),
    "vehicle": (AgentType.VEHICLE,),
    "pedestrian": (AgentType.PEDESTRIAN,),
    "cyclist": (AgentType.CYCLIST,),
    "other": (AgentType.OTHER, AgentType.UNSET),
}
"""Agents that figures are given for, and their types."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RolloutSummary(TensorTree):
    """Sums and counts per scenario and group of agents, from which `table` makes figures.

    Summaries of several batches merge exactly: `RolloutSummary.cat(summaries)`. All are float64.
    Counts of agents are averaged over rollouts.

    Attributes:
        num_agents: Agents that count.
        num_on_road: Those that are on the road at the current step.
        num_logged: Those that the log has after the current step, so that they have an error.
        displacement: Sum of their average displacement errors, averaged over rollouts (m).
        agent_min_displacement: Sum of each one's least average displacement error (m).
        scene_min_displacement: Least mean of theirs in a joint rollout (m); 0 if there are none.
        num_collided: Agents that collide at some step.
        num_offroad: Agents that are off the road at some step.
        num_departed: Those of them that were on the road at the current step.
    """

    num_agents: Float[Tensor, "*batch groups"]
    num_on_road: Float[Tensor, "*batch groups"]
    num_logged: Float[Tensor, "*batch groups"]
    displacement: Float[Tensor, "*batch groups"]
    agent_min_displacement: Float[Tensor, "*batch groups"]
    scene_min_displacement: Float[Tensor, "*batch groups"]
    num_collided: Float[Tensor, "*batch groups"]
    num_offroad: Float[Tensor, "*batch groups"]
    num_departed: Float[Tensor, "*batch groups"]

    def table(self) -> dict[str, dict[str, float]]:
        """Makes figures over all scenarios, for each of `GROUPS`. NaN where there is nothing.

        `ade` and `agent_min_ade` are means over agents (m), `min_ade` is one over scenarios (m).
        `collision_rate` and `offroad_rate` are the shares of agents with at least one such step, as
        in WOSAC, whether or not they started so. `departure_rate` is the share of those on the road
        at the current step that leave it. Pedestrians are off the road by right: read `vehicle`.
        """
        total = self.map(lambda tensor: tensor.reshape(-1, len(GROUPS)).sum(dim=0))
        num_scenes = (self.num_logged > 0).reshape(-1, len(GROUPS)).sum(dim=0)
        figures = {
            "ade": total.displacement / total.num_logged,
            "min_ade": total.scene_min_displacement / num_scenes,
            "agent_min_ade": total.agent_min_displacement / total.num_logged,
            "collision_rate": total.num_collided / total.num_agents,
            "offroad_rate": total.num_offroad / total.num_agents,
            "departure_rate": total.num_departed / total.num_on_road,
            "num_agents": total.num_agents,
        }
        return {
            group: {name: figure[index].item() for name, figure in figures.items()}
            for index, group in enumerate(GROUPS)
        }


def summarize_rollouts(
    simulated: Trajectory,
    scenario: Scenario,
    controlled: Bool[Tensor, "*batch agents"] | None = None,
) -> RolloutSummary:
    """Compares rollouts with the log and the map, scenario by scenario.

    Agents count if they are valid at the current step and controlled; the others are obstacles. The
    steps after the current one count.

    Args:
        simulated: `Rollout.simulated`: rollouts along the first dimension, then the scenario's.
        scenario: What was logged.
        controlled: Agents whom the policy drives; by default all.

    Example:
        >>> import torch
        >>> from catk_sim.datasets import open_scenarios
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> replayed = scenario.log.repeat(2)  # Two rollouts that do what was logged.
        >>> summarize_rollouts(replayed, scenario).table()["vehicle"]["ade"]
        0.0
    """
    counted = scenario.agents.valid & scenario.log.valid[..., CURRENT_STEP]
    if controlled is not None:
        counted = counted & controlled
    members = _members(counted, scenario)

    def total(value: Shaped[Tensor, "rollouts *batch agents"]) -> Float[Tensor, "*batch groups"]:
        return (value.double()[..., None, :] * members).sum(dim=-1).mean(dim=0)

    future = simulated.slice(HISTORY_STEPS, simulated.num_steps)
    log = _logged(scenario, HISTORY_STEPS, simulated.num_steps)
    error = average_displacement_error(future, log)
    has_error = ~error.isnan()
    least = [
        scene_min_average_displacement_error(future, log, group) for group in members.unbind(dim=-2)
    ]
    collides = collision_indication(simulated, scenario).value > 0
    offroad = offroad_indication(simulated, scenario).value > 0
    starts_on_road = ~offroad[..., CURRENT_STEP]
    leaves = offroad[..., HISTORY_STEPS:].any(dim=-1)
    return RolloutSummary(
        num_agents=total(counted.expand_as(error)),
        num_on_road=total(starts_on_road),
        num_logged=total(has_error),
        displacement=total(error.nan_to_num(0.0)),
        agent_min_displacement=total(error.amin(dim=0, keepdim=True).nan_to_num(0.0)),
        scene_min_displacement=torch.stack(least, dim=-1).double().nan_to_num(0.0),
        num_collided=total(collides[..., HISTORY_STEPS:].any(dim=-1)),
        num_offroad=total(leaves),
        num_departed=total(leaves & starts_on_road),
    )


def _members(
    counted: Bool[Tensor, "*batch agents"], scenario: Scenario
) -> Bool[Tensor, "*batch groups agents"]:
    kind = scenario.agents.type[..., None, :]
    of_group = [
        (kind == torch.tensor(types, device=kind.device)[:, None]).any(dim=-2)
        for types in GROUPS.values()
    ]
    return torch.stack(of_group, dim=-2) & counted[..., None, :]


def _logged(scenario: Scenario, start: int, stop: int) -> Trajectory:
    """Takes steps of the log. Those that it does not have are invalid."""
    steps = torch.arange(start, stop, device=scenario.log.valid.device)
    return scenario.log.gather(steps.expand(*scenario.log.valid.shape[:-2], -1))
