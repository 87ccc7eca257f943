"""Mending a log before it is told in tokens: gaps, headings, late entries, range.

As SMART and CAT-K do (arXiv:2405.15677, arXiv:2412.05334). Every function returns a new trajectory.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, STEP_SECONDS, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.geometry import se2


def fill_gaps(log: Trajectory) -> Trajectory:
    """Interpolates between an agent's valid steps, so that each agent has one unbroken run.

    Position, height and velocity are linear in time, the heading turns the short way. Headings may
    leave [-pi, pi).
    """
    step = torch.arange(log.num_steps, device=log.valid.device).expand(log.valid.shape)
    before = torch.where(log.valid, step, -1).cummax(-1).values
    after = torch.where(log.valid, step, log.num_steps).flip(-1).cummin(-1).values.flip(-1)
    inside = (before >= 0) & (after < log.num_steps)
    first, last = before.clamp_min(0), after.clamp_max(log.num_steps - 1)
    weight = (step - first).to(log.heading.dtype) / (last - first).clamp_min(1)
    start, end = _pick(log, first), _pick(log, last)
    turn = se2.wrap_angle(end.heading - start.heading)
    filled = Trajectory(
        xy=torch.lerp(start.xy, end.xy, weight[..., None]),
        z=torch.lerp(start.z, end.z, weight),
        heading=start.heading + weight * turn,
        velocity=torch.lerp(start.velocity, end.velocity, weight[..., None]),
        valid=inside,
    )
    return _overwrite(log, inside & ~log.valid, filled)


def clean_headings(log: Trajectory, *, max_turn: float = 1.5) -> Trajectory:
    """Holds a heading that flips between two steps, until the log comes back to it.

    Args:
        log: The motion to mend.
        max_turn: The largest change in one step (rad) that is believed.
    """
    both = log.valid[..., :-1] & log.valid[..., 1:]
    turns = (se2.wrap_angle(log.heading.diff(dim=-1)).abs() > max_turn) & both
    if turns.device.type == "cpu" and not turns.any():
        # Nothing is held where nothing flips. An accelerator would have to be waited for.
        return log
    headings = list(log.heading.unbind(-1))
    for step in range(log.num_steps - 1):
        now, then = headings[step], headings[step + 1]
        flips = se2.wrap_angle(then - now).abs() > max_turn
        flips = flips & log.valid[..., step] & log.valid[..., step + 1]
        headings[step + 1] = torch.where(flips, now, then)
    return log.replace(heading=torch.stack(headings, dim=-1))


def extrapolate_backward(log: Trajectory) -> Trajectory:
    """Extends each agent's first valid step backwards, at constant velocity, to a token's start.

    An agent that enters at step 8 is moved back to step 5. One that enters exactly at the current
    step is moved back by one token, so that whoever is present then has a token that leads there.
    """
    num_steps = log.num_steps
    step = torch.arange(num_steps, device=log.valid.device)
    entry = torch.where(log.valid, step, num_steps).amin(-1, keepdim=True)
    extension = entry % STEPS_PER_TOKEN + STEPS_PER_TOKEN * (entry == CURRENT_STEP)
    extended = (step < entry) & (step >= entry - extension) & (entry < num_steps)
    origin = _pick(log, entry.clamp_max(num_steps - 1))
    elapsed = STEP_SECONDS * (step - entry).to(log.xy.dtype)
    shape = log.valid.shape
    earlier = Trajectory(
        xy=origin.xy + elapsed[..., None] * origin.velocity,
        z=origin.z.expand(shape),
        heading=origin.heading.expand(shape),
        velocity=origin.velocity.expand(*shape, 2),
        valid=extended,
    )
    return _overwrite(log, extended, earlier)


def limit_to_sdc(log: Trajectory, agents: AgentMetadata, *, radius: float = 150.0) -> Trajectory:
    """Hides agents while they are far from the sdc, as training does.

    Args:
        log: Motion without gaps.
        agents: Which agent is the sdc.
        radius: Distance in space (m) from which on agents are hidden.
    """
    return log.replace(valid=log.valid & (distance_to_sdc(log, agents) < radius))


def train_mask(
    log: Trajectory,
    agents: AgentMetadata,
    *,
    max_agents: int = 32,
    radius: float = 100.0,
    min_future_steps: int = 5,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "*batch agents"]:
    """Chooses the agents whose motion is learned: those with a role, and some near the sdc.

    The sdc, the agents to predict and those of interest are always chosen, however many they are.

    Args:
        log: Motion without gaps, after `limit_to_sdc`.
        agents: Roles of the agents.
        max_agents: The number of agents up to which others are drawn at random.
        radius: Greatest distance to the sdc (m) at the current step.
        min_future_steps: Valid steps after the current one that an agent needs.
        generator: Source of randomness, on the device of the log.
    """
    has_role = agents.valid & (agents.is_sdc | agents.to_predict | agents.of_interest)
    near = distance_to_sdc(log, agents)[..., CURRENT_STEP] < radius
    lasting = log.valid[..., CURRENT_STEP + 1 :].sum(-1) >= min_future_steps
    present = agents.valid & log.valid[..., CURRENT_STEP]
    eligible = present & (has_role | (near & lasting))
    draw = torch.rand(has_role.shape, generator=generator, device=has_role.device)
    # Roles rank before the others, who rank by lot, and the ineligible come last.
    order = torch.where(eligible, torch.where(has_role, -1.0, draw), 2.0)
    rank = order.argsort(dim=-1).argsort(dim=-1)
    return eligible & (has_role | (rank < max_agents))


def distance_to_sdc(log: Trajectory, agents: AgentMetadata) -> Float[Tensor, "*batch agents steps"]:
    """Measures the distance in space (m) of every agent to the sdc, step by step."""
    xyz = torch.cat([log.xy, log.z[..., None]], dim=-1)
    is_sdc = agents.is_sdc[..., None, None].to(xyz.dtype)
    # Exactly one term of the sum is not zero.
    sdc = (xyz * is_sdc).sum(-3, keepdim=True)
    return torch.linalg.vector_norm(xyz - sdc, dim=-1)


def _pick(log: Trajectory, steps: Int[Tensor, "*batch agents taken"]) -> Trajectory:
    wide = steps[..., None]
    return Trajectory(
        xy=torch.take_along_dim(log.xy, wide, dim=-2),
        z=torch.take_along_dim(log.z, steps, dim=-1),
        heading=torch.take_along_dim(log.heading, steps, dim=-1),
        velocity=torch.take_along_dim(log.velocity, wide, dim=-2),
        valid=torch.take_along_dim(log.valid, steps, dim=-1),
    )


def _overwrite(
    log: Trajectory, places: Bool[Tensor, "*batch agents steps"], other: Trajectory
) -> Trajectory:
    wide = places[..., None]
    return Trajectory(
        xy=torch.where(wide, other.xy, log.xy),
        z=torch.where(places, other.z, log.z),
        heading=torch.where(places, other.heading, log.heading),
        velocity=torch.where(wide, other.velocity, log.velocity),
        valid=log.valid | (places & other.valid),
    )
