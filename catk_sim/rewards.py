"""What agents are rewarded for.

A reward is any function from a `Transition` to one number per agent. A world's reward is the mean
over its controlled agents, 0 where there are none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datatypes import SimState, TensorTree, Trajectory

GOAL_RADIUS = 2.0
"""How near to its goal an agent has reached it (m)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Transition(TensorTree):
    """One step of an environment, as a reward sees it.

    Attributes:
        before: The state that the action was chosen in.
        after: The state that it led to.
        collision: Which agents overlapped another one on the way; None if it was not measured.
        offroad: Which agents left the road on the way; None if it was not measured. Where agents
            learn one by one (`envs.episodes`), only controlled ones are looked at.
    """

    before: SimState
    after: SimState
    collision: Bool[Tensor, "*batch agents"] | None
    offroad: Bool[Tensor, "*batch agents"] | None


Reward = Callable[[Transition], Float[Tensor, "*batch agents"]]


def log_imitation(transition: Transition) -> Float[Tensor, "*batch agents"]:
    """Rewards being where the log is: minus the distance to it (m), 0 where it has no position."""
    after = transition.after
    current = after.current
    log = after.scenario.log.gather(after.step[..., None])
    distance = (current.xy - log.xy).norm(dim=-1)[..., 0]
    valid = (current.valid & log.valid)[..., 0]
    return torch.where(valid, -distance, torch.zeros_like(distance))


def progress(transition: Transition) -> Float[Tensor, "*batch agents"]:
    """Rewards the distance gained along the agent's logged path (m), whatever the pace.

    A position counts as the nearest point of the path. Nothing is gained beside a path that stands
    still, nor beyond either end.
    """
    before, after = transition.before.current, transition.after.current
    xy = torch.cat([before.xy, after.xy], dim=-2)
    travelled = _distance_along(transition.after.scenario.log, xy)
    gained = travelled[..., 1] - travelled[..., 0]
    valid = (before.valid & after.valid)[..., 0]
    return torch.where(valid, gained, torch.zeros_like(gained))


@dataclass(frozen=True, kw_only=True)
class SafeDriving:
    """Rewards progress along the logged path, and punishes collisions and leaving the road.

    Each step in which an agent collides or is off the road costs the penalty again.
    """

    collision_penalty: float = 10.0
    """Metres of progress that a collision undoes."""
    offroad_penalty: float = 5.0
    """Metres of progress that leaving the road undoes."""

    def __call__(self, transition: Transition) -> Float[Tensor, "*batch agents"]:
        """Scores a step (m)."""
        if transition.collision is None or transition.offroad is None:
            raise ValueError("safe_driving needs report=('collision', 'offroad')")
        gained = progress(transition)
        return (
            gained
            - self.collision_penalty * transition.collision
            - self.offroad_penalty * transition.offroad
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Goals(TensorTree):
    """Where agents are to go: where the log has them last.

    Attributes:
        xy: Positions (m).
        step: Index of that step in the log's time.
        valid: False for agents that the log does not have after the current step.
    """

    xy: Float[Tensor, "*batch agents 2"]
    step: Int[Tensor, "*batch agents"]
    valid: Bool[Tensor, "*batch agents"]

    @classmethod
    def from_log(cls, log: Trajectory) -> "Goals":
        """Finds the goals of all agents."""
        step = torch.where(log.valid, torch.arange(log.num_steps, device=log.valid.device), 0)
        last = step.amax(-1)
        xy = torch.take_along_dim(log.xy, last[..., None, None], dim=-2)[..., 0, :]
        return cls(xy=xy, step=last, valid=last > CURRENT_STEP)


def reached_goal(transition: Transition) -> Bool[Tensor, "*batch agents"]:
    """Tells which agents came within `GOAL_RADIUS` of their goals on the way.

    GPUDrive's rule (Kazemkhani et al., arXiv:2408.01584).
    """
    after = transition.after
    goals = Goals.from_log(after.scenario.log)
    distance = (after.history.xy - goals.xy[..., None, :]).norm(dim=-1)
    age = torch.arange(HISTORY_STEPS - 1, -1, -1, device=distance.device)
    is_new = age < (after.step - transition.before.step)[..., None]
    near = (distance <= GOAL_RADIUS) & after.history.valid & is_new[..., None, :]
    return near.any(-1) & goals.valid


@dataclass(frozen=True, kw_only=True)
class ReachGoal:
    """Rewards the way to the goal and arriving there, and punishes collisions and leaving the road.

    The reward is paid for each step. Where an agent's episode ends with what it is paid for, as in
    `catk_sim.envs.episodes`, each is paid once. Arriving is paid to whoever was farther away
    before.
    """

    progress: float = 0.02
    """Reward of a metre along the logged path."""
    goal: float = 1.0
    """Reward of reaching the goal."""
    collision: float = 1.0
    """Cost of a collision."""
    offroad: float = 1.0
    """Cost of leaving the road."""

    def __call__(self, transition: Transition) -> Float[Tensor, "*batch agents"]:
        """Scores a step."""
        if transition.collision is None or transition.offroad is None:
            raise ValueError("reach_goal needs report=('collision', 'offroad')")
        before = transition.before
        goals = Goals.from_log(before.scenario.log)
        was_far = (before.current.xy[..., 0, :] - goals.xy).norm(dim=-1) > GOAL_RADIUS
        return (
            self.progress * progress(transition)
            + self.goal * (reached_goal(transition) & was_far)
            - self.collision * transition.collision
            - self.offroad * transition.offroad
        )


REWARDS: Mapping[str, Reward] = {
    "log_imitation": log_imitation,
    "progress": progress,
    "safe_driving": SafeDriving(),
    "reach_goal": ReachGoal(),
}
"""The rewards that have names."""


def _distance_along(
    path: Trajectory, xy: Float[Tensor, "*batch agents points 2"]
) -> Float[Tensor, "*batch agents points"]:
    # Positions are measured against every segment of the agent's own path.
    start, move = path.xy[..., :-1, :], path.xy.diff(dim=-2)
    usable = path.valid[..., 1:] & path.valid[..., :-1]
    length = torch.where(usable, move.norm(dim=-1), torch.zeros_like(path.z[..., 1:]))
    travelled = length.cumsum(-1) - length
    offset = xy[..., :, None, :] - start[..., None, :, :]
    squared = length.square().clamp(min=1e-12)[..., None, :]
    share = ((offset * move[..., None, :, :]).sum(-1) / squared).clamp(0, 1)
    distance = (offset - share[..., None] * move[..., None, :, :]).norm(dim=-1)
    distance = distance.masked_fill(~usable[..., None, :], torch.inf)
    nearest = distance.argmin(-1, keepdim=True)
    along = travelled[..., None, :] + share * length[..., None, :]
    return along.gather(-1, nearest)[..., 0]
