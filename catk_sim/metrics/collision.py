"""Collisions between agents."""

from catk_sim.datatypes import AgentMetadata, Scenario, Trajectory
from catk_sim.geometry.boxes import has_overlap
from catk_sim.metrics.base import MetricResult


def collision_indication(simulated: Trajectory, scenario: Scenario) -> MetricResult:
    """Tells where agents collide: 1 where a box overlaps that of another valid agent, else 0.

    All types of agents count, controlled or not. Boxes are sharp and have the size that the
    simulation uses; WOSAC rounds their corners. Boxes that merely touch do not collide.

    Args:
        simulated: Motion whose batch is the scenario's, or has further dimensions before it.
        scenario: Whose agents they are.
    """
    return agents_collide(simulated, scenario.agents)


def agents_collide(motion: Trajectory, agents: AgentMetadata) -> MetricResult:
    """Tells where agents collide, like `collision_indication`, for any motion of the agents."""
    size = agents.size[..., None, :, :].expand(
        *motion.valid.shape[:-2], motion.num_steps, *agents.size.shape[-2:]
    )
    hit = has_overlap(
        motion.xy.transpose(-2, -3),
        motion.heading.transpose(-1, -2),
        size,
        motion.valid.transpose(-1, -2),
    )
    return MetricResult(value=hit.transpose(-1, -2).to(motion.xy), valid=motion.valid)
