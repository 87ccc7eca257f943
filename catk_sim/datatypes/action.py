"""What agents do."""

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from catk_sim.datatypes.tensor_tree import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class Action(TensorTree):
    """One action per agent. What it means is the dynamics model's to say.

    Attributes:
        data: Token ids, of shape (*batch, agents), or controls, of shape (*batch, agents, ...).
        valid: Which agents act. The others follow the log.
    """

    data: Tensor
    valid: Bool[Tensor, "*batch agents"]
