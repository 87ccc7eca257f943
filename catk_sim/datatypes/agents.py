"""What is known of an agent for the whole scenario."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes.tensor_tree import TensorTree


class AgentType(IntEnum):
    """Kinds of agents, with WOMD's `Track.ObjectType` numbers."""

    UNSET = 0
    VEHICLE = 1
    PEDESTRIAN = 2
    CYCLIST = 3
    OTHER = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class AgentMetadata(TensorTree):
    """Identity, kind and size of each agent.

    Attributes:
        agent_id: WOMD's track id.
        type: `AgentType` of each agent.
        size: Length, width, height (m) that simulation and policies use: the logged size at the
            current step, or at the nearest valid step for agents that are absent then. (catk gives
            its model the mean over all valid steps, which knows the future.)
        is_sdc: Whether the agent is the logged self-driving car.
        to_predict: Whether the agent is in WOMD's `tracks_to_predict`.
        difficulty: WOMD's prediction difficulty (0 unset, 1, 2) of the agents to predict.
        of_interest: Whether the agent is in WOMD's `objects_of_interest`.
        valid: False for padding.
    """

    agent_id: Int[Tensor, "*batch agents"]
    type: Int[Tensor, "*batch agents"]
    size: Float[Tensor, "*batch agents 3"]
    is_sdc: Bool[Tensor, "*batch agents"]
    to_predict: Bool[Tensor, "*batch agents"]
    difficulty: Int[Tensor, "*batch agents"]
    of_interest: Bool[Tensor, "*batch agents"]
    valid: Bool[Tensor, "*batch agents"]

    @property
    def sdc_index(self) -> Int[Tensor, "*batch"]:
        """Position of the sdc among the agents; 0 where there is none."""
        return self.is_sdc.to(torch.uint8).argmax(dim=-1)
