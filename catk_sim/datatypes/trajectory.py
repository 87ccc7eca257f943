"""Motion of a scenario's agents."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes.tensor_tree import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class Trajectory(TensorTree):
    """Poses and velocities of agents over time, in the scenario's frame.

    Where `valid` is false the other fields hold arbitrary finite numbers: read them through the
    mask.

    Attributes:
        xy: Centres of the bounding boxes (m).
        z: Heights of the centres (m).
        heading: Directions of travel (rad), counter-clockwise from +x. As logged: WOMD's headings
            may leave [-pi, pi).
        velocity: Velocities of the centres (m/s).
        valid: Whether the agent is present at the step.
    """

    xy: Float[Tensor, "*batch agents steps 2"]
    z: Float[Tensor, "*batch agents steps"]
    heading: Float[Tensor, "*batch agents steps"]
    velocity: Float[Tensor, "*batch agents steps 2"]
    valid: Bool[Tensor, "*batch agents steps"]

    @property
    def num_agents(self) -> int:
        """Agents per scenario, padding included."""
        return self.valid.shape[-2]

    @property
    def num_steps(self) -> int:
        """Steps per agent."""
        return self.valid.shape[-1]

    def at(self, step: int) -> "Trajectory":
        """Returns one step, as a trajectory of length one. Negative steps count from the end."""
        if not -self.num_steps <= step < self.num_steps:
            raise IndexError(f"step {step} is outside a trajectory of {self.num_steps} steps")
        start = step % self.num_steps
        return self.slice(start, start + 1)

    def slice(self, start: int, stop: int) -> "Trajectory":
        """Returns the steps from `start` up to but not including `stop`."""
        return Trajectory(
            xy=self.xy[..., start:stop, :],
            z=self.z[..., start:stop],
            heading=self.heading[..., start:stop],
            velocity=self.velocity[..., start:stop, :],
            valid=self.valid[..., start:stop],
        )

    def gather(self, steps: Int[Tensor, "*batch taken"]) -> "Trajectory":
        """Returns steps chosen by each scenario for itself. Outside the trajectory: invalid."""
        index = steps.clamp(0, self.num_steps - 1)
        inside = (index == steps)[..., None, :]
        narrow = index[..., None, :].expand(*self.valid.shape[:-1], steps.shape[-1])
        wide = narrow[..., None].expand(*narrow.shape, 2)
        return Trajectory(
            xy=self.xy.gather(-2, wide),
            z=self.z.gather(-1, narrow),
            heading=self.heading.gather(-1, narrow),
            velocity=self.velocity.gather(-2, wide),
            valid=self.valid.gather(-1, narrow) & inside,
        )

    def where(self, condition: Bool[Tensor, "*#batch agents"], other: "Trajectory") -> "Trajectory":
        """Takes this trajectory for the agents where `condition` holds and `other` elsewhere."""
        narrow = condition[..., None]
        wide = narrow[..., None]
        return Trajectory(
            xy=torch.where(wide, self.xy, other.xy),
            z=torch.where(narrow, self.z, other.z),
            heading=torch.where(narrow, self.heading, other.heading),
            velocity=torch.where(wide, self.velocity, other.velocity),
            valid=torch.where(narrow, self.valid, other.valid),
        )

    @classmethod
    def join(cls, parts: Sequence["Trajectory"]) -> "Trajectory":
        """Puts trajectories of the same agents one after the other in time."""
        return Trajectory(
            xy=torch.cat([part.xy for part in parts], dim=-2),
            z=torch.cat([part.z for part in parts], dim=-1),
            heading=torch.cat([part.heading for part in parts], dim=-1),
            velocity=torch.cat([part.velocity for part in parts], dim=-2),
            valid=torch.cat([part.valid for part in parts], dim=-1),
        )
