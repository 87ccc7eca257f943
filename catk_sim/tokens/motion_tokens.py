"""Motion as a sequence of tokens."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.datatypes import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class MotionTokens(TensorTree):
    """States at half-second marks, and the tokens by which agents arrived there.

    Mark j is the state at step `5 (j + 1)` of the log: mark 1 is the current step, and the moves
    to learn are the ones that leave marks 1 to 16. What a token policy reads, whether the motion
    was logged or simulated.

    Attributes:
        token: The token by which the agent arrives at the mark.
        xy: Where that leaves it (m), in the scenario's frame.
        heading: Its direction then (rad).
        valid: Whether both ends of the move are valid.
    """

    token: Int[Tensor, "*batch agents marks"]
    xy: Float[Tensor, "*batch agents marks 2"]
    heading: Float[Tensor, "*batch agents marks"]
    valid: Bool[Tensor, "*batch agents marks"]

    def slice(self, start: int, stop: int) -> "MotionTokens":
        """Returns the marks from `start` up to but not including `stop`."""
        return MotionTokens(
            token=self.token[..., start:stop],
            xy=self.xy[..., start:stop, :],
            heading=self.heading[..., start:stop],
            valid=self.valid[..., start:stop],
        )

    def at(self, mark: int) -> "MotionTokens":
        """Returns one mark, as a sequence of length one."""
        return self.slice(mark, mark + 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenizedLog(TensorTree):
    """A log as tokens, and what was really logged at the marks.

    Attributes:
        tokens: The log re-told in tokens, each matched from where the one before it ended.
        logged_xy: Logged positions at the marks (m), gaps and headings cleaned.
        logged_heading: Logged headings at the marks (rad), cleaned.
        logged_valid: Whether the log has the agent at the mark.
    """

    tokens: MotionTokens
    logged_xy: Float[Tensor, "*batch agents marks 2"]
    logged_heading: Float[Tensor, "*batch agents marks"]
    logged_valid: Bool[Tensor, "*batch agents marks"]
