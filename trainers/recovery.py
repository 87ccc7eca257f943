"""Where a vehicle that is beside its log is to go next."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from catk_sim.constants import STEPS_PER_TOKEN
from catk_sim.datatypes import TensorTree, Trajectory
from catk_sim.geometry import se2

SIDEWAYS = 0.5
"""How far (m) sideways a vehicle moves onto its way within half a second, at most."""

STRAIGHT_ON = 100.0
"""How far (m) the way goes straight on after the log, and before."""


def along_the_log(
    now: Float[Tensor, "moves 3"], log: Trajectory, step: Int[Tensor, " moves"]
) -> Float[Tensor, "moves 3"]:
    """Puts a vehicle on the way of its log, ahead by as much as the log moves next.

    Not in the paper, whose ego policy learns the log's next pose wherever it is. How far it is
    ahead of the log or behind it cannot see, so that making up for it is noise to learn from. How
    far it is beside its way it can.

    Args:
        now: Where it is: x, y (m) and heading (rad).
        log: Its log, one for each, valid at some step.
        step: The step of the log that it is at.

    Returns:
        Where it is to be half a second later. On the log, that is the log's next pose.
    """
    way = Way.of(log)
    arc, beside = way.project(now[:, :2], step)
    then, back = way.pose_at(arc + way.advance(step, step + STEPS_PER_TOKEN))
    left = beside - beside.clamp(-SIDEWAYS, SIDEWAYS)
    aside = torch.stack([-back.sin(), back.cos()], dim=-1)
    return torch.cat([then + left[:, None] * aside, back[:, None]], dim=-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Way(TensorTree):
    """Logs as lines, which go straight on before their first pose and after their last.

    Attributes:
        xy: Where agents were at each step (m); where that is not known, at the one before that is.
        heading: Their heading there (rad).
        arc: How far along the line that is (m).
    """

    xy: Float[Tensor, "moves points 2"]
    heading: Float[Tensor, "moves points"]
    arc: Float[Tensor, "moves points"]

    @classmethod
    def of(cls, log: Trajectory) -> "Way":
        """Draws the lines of logs, each valid at some step."""
        step = torch.arange(log.num_steps, device=log.valid.device)
        known = torch.where(log.valid, step, -1).cummax(-1).values
        known = known.where(known >= 0, log.valid.int().argmax(-1, keepdim=True))
        xy = torch.take_along_dim(log.xy, known[..., None], dim=-2)
        heading = log.heading.gather(-1, known)
        heading = torch.cat([heading[:, :1], heading, heading[:, -1:]], dim=-1)
        on = STRAIGHT_ON * torch.stack([heading.cos(), heading.sin()], dim=-1)
        xy = torch.cat([xy[:, :1] - on[:, :1], xy, xy[:, -1:] + on[:, -1:]], dim=-2)
        arc = torch.nn.functional.pad(xy.diff(dim=-2).norm(dim=-1).cumsum(-1), (1, 0))
        return cls(xy=xy, heading=heading, arc=arc)

    def advance(self, step: Int[Tensor, " moves"], then: Int[Tensor, " moves"]) -> Tensor:
        """Tells how far the logs go from one step to another (m)."""
        # A point comes before that of step 0.
        start, end = (self.arc.gather(-1, at[:, None] + 1) for at in (step, then))
        return (end - start)[:, 0]

    def project(
        self, xy: Float[Tensor, "moves 2"], step: Int[Tensor, " moves"]
    ) -> tuple[Float[Tensor, " moves"], Float[Tensor, " moves"]]:
        """Tells how far along the line a point is, and how far to its left (m).

        Args:
            xy: The point (m).
            step: Of places that are as near, that of the nearest step counts.
        """
        legs, offset = self.xy.diff(dim=-2), xy[:, None] - self.xy[:, :-1]
        square = legs.square().sum(-1).clamp(min=1e-6)
        share = ((offset * legs).sum(-1) / square).clamp(0, 1)
        distance = (offset - share[..., None] * legs).norm(dim=-1)
        index = torch.arange(legs.shape[1], device=step.device)
        distance = distance + 1e-3 * (index - (step[:, None] + 1)).abs()
        nearest = distance.argmin(-1, keepdim=True)
        along = share * self.arc.diff(dim=-1)
        arc = (self.arc.gather(-1, nearest) + along.gather(-1, nearest))[:, 0]
        foot, heading = self.pose_at(arc)
        return arc, se2.to_local(xy, foot, heading)[:, 1]

    def pose_at(
        self, arc: Float[Tensor, " moves"]
    ) -> tuple[Float[Tensor, "moves 2"], Float[Tensor, " moves"]]:
        """Tells position (m) and heading (rad) so far along the line (m)."""
        leg = torch.searchsorted(self.arc, arc[:, None], right=True) - 1
        leg = leg.clamp(0, self.arc.shape[-1] - 2)
        start, end = self.arc.gather(-1, leg), self.arc.gather(-1, leg + 1)
        share = (arc[:, None] - start) / (end - start).clamp(min=1e-6)
        wide = leg[..., None].expand(-1, -1, 2)
        xy = self.xy.gather(-2, wide).lerp(self.xy.gather(-2, wide + 1), share[..., None])
        turn = se2.wrap_angle(self.heading.gather(-1, leg + 1) - self.heading.gather(-1, leg))
        heading = self.heading.gather(-1, leg) + share * turn
        return xy[:, 0], se2.wrap_angle(heading[:, 0])
