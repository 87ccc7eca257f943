"""The motion vocabulary: half-second moves that agents choose from."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from catk_sim.datatypes import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class MotionVocabulary(TensorTree):
    """Half-second moves for each type of agent, in the frame of the pose they start from.

    Rows of the first dimension are vehicles, pedestrians, cyclists: `type_index` maps `AgentType`
    to them. Token 0 of each type stands still.

    Attributes:
        poses: x (m, forward), y (m, left), heading (rad) at 10 Hz. The first is the start, all
            zeros; the last is half a second later.
        size: Length and width (m) of the box that stands for all agents of a type when motions are
            compared.
        digest: Identifies the contents; a checkpoint names the digest it was trained with.
    """

    poses: Float[Tensor, "types tokens 6 3"]
    size: Float[Tensor, "types 2"]
    digest: str
