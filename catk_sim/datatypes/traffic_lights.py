"""Traffic lights of a scenario."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes.tensor_tree import TensorTree


class TrafficLightState(IntEnum):
    """States of a light, with WOMD's `TrafficSignalLaneState.State` numbers."""

    UNKNOWN = 0
    ARROW_STOP = 1
    ARROW_CAUTION = 2
    ARROW_GO = 3
    STOP = 4
    CAUTION = 5
    GO = 6
    FLASHING_STOP = 7
    FLASHING_CAUTION = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class TrafficLights(TensorTree):
    """The light of each signalled lane over time, in the scenario's frame.

    Attributes:
        lane_id: WOMD's id of the lane that each light controls. A lane that is listed twice at a
            step has two rows.
        state: `TrafficLightState` at each step.
        stop_xyz: Where traffic stops (m).
        valid: Whether the light was observed at the step.
    """

    lane_id: Int[Tensor, "*batch lights"]
    state: Int[Tensor, "*batch lights steps"]
    stop_xyz: Float[Tensor, "*batch lights steps 3"]
    valid: Bool[Tensor, "*batch lights steps"]

    def at(self, step: Int[Tensor, "*batch"]) -> "TrafficLights":
        """Returns a step, chosen by each scenario for itself, as lights of one step.

        Beyond the log, lights stay as they are at its end.
        """
        index = step.clamp(max=self.valid.shape[-1] - 1)[..., None, None]
        return TrafficLights(
            lane_id=self.lane_id,
            state=torch.take_along_dim(self.state, index, dim=-1),
            stop_xyz=torch.take_along_dim(self.stop_xyz, index[..., None], dim=-2),
            valid=torch.take_along_dim(self.valid, index, dim=-1),
        )
