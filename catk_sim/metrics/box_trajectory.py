"""Boxes over time: what WOSAC's measures read."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from catk_sim.datatypes import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class BoxTrajectory(TensorTree):
    """The boxes of agents over time, in the frame of the scenario's file.

    WOSAC computes in float32 on the coordinates of the file, which reach kilometres, so that its
    figures carry that rounding. Its measures therefore read this record, not a `Trajectory`: every
    coordinate by itself, since that is what they compute with, and a size for every step. A size
    that does not change may be an expanded view.

    Attributes:
        x: Centres (m).
        y: Centres (m).
        z: Centres (m).
        heading: Directions (rad), as logged or simulated: not wrapped.
        length: Along the heading (m).
        width: Across it (m).
        height: Vertical (m).
        valid: Whether the box is there. Where it is not, the numbers may count all the same: WOSAC
            takes them as the file has them, which is mostly zeros.
    """

    x: Float[Tensor, "*batch agents steps"]
    y: Float[Tensor, "*batch agents steps"]
    z: Float[Tensor, "*batch agents steps"]
    heading: Float[Tensor, "*batch agents steps"]
    length: Float[Tensor, "*batch agents steps"]
    width: Float[Tensor, "*batch agents steps"]
    height: Float[Tensor, "*batch agents steps"]
    valid: Bool[Tensor, "*batch agents steps"]

    def slice(self, start: int, stop: int | None = None) -> "BoxTrajectory":
        """Returns the steps from `start` up to but not including `stop`; by default all others."""
        return self.map(lambda tensor: tensor[..., start:stop])

    def take(self, agents: Int[Tensor, "*scenes taken"]) -> "BoxTrajectory":
        """Returns chosen agents of each scenario.

        Args:
            agents: Their indices. The batch may have further dimensions before the scenarios'.
        """
        return self.map(lambda tensor: take_agents(tensor, agents))


def take_agents(
    values: Shaped[Tensor, "*batch agents steps"], agents: Int[Tensor, "*scenes taken"]
) -> Shaped[Tensor, "*batch taken steps"]:
    """Returns what chosen agents of each scenario have. See `BoxTrajectory.take`."""
    *batch, _, num_steps = values.shape
    index = agents[..., None].expand(*batch, agents.shape[-1], num_steps)
    return values.gather(-2, index)
