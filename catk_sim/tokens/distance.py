"""How far two motions are apart: the mean distance of the corners of a box at their ends.

The box is the type's, or the agent's own.

catk sums the corner distances when it matches and averages them when it samples. We average in
both, so that one tolerance in metres serves both; the nearest token is the same either way. It also
matches in global coordinates. We compare in the frame of the current pose, where float32 is finer.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from catk_sim.tokens.vocabulary import MotionVocabulary


def corner_distance(
    pose: Float[Tensor, "*#batch 3"],
    other: Float[Tensor, "*#batch 3"],
    box_size: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "*batch"]:
    """Measures the mean distance (m) between the corners of a box in one pose and in another.

    Args:
        pose: x (m), y (m), heading (rad).
        other: The same, in the same frame.
        box_size: Length and width (m).
    """
    return _mean_corner_distance(_placement(pose), _placement(other), box_size)


def token_distance(
    vocabulary: MotionVocabulary,
    agent_type: Int[Tensor, "*batch agents"],
    xy_local: Float[Tensor, "*batch agents 2"],
    heading_local: Float[Tensor, "*batch agents"],
    *,
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
) -> Float[Tensor, "*batch agents tokens"]:
    """Measures how far (m) each token ends from a pose.

    Args:
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
        xy_local: The pose to reach (m), in the frame of the agent's current pose.
        heading_local: Its heading (rad) in that frame.
        box_size: Length and width (m) of each agent; by default its type's.
    """
    row = vocabulary.type_index(agent_type)
    # (*batch, agents, 4, tokens): tokens last, so that the arithmetic runs along memory.
    ends = _placement(vocabulary.end_poses.to(xy_local.dtype)).transpose(-1, -2).contiguous()
    goal = _placement(torch.cat([xy_local, heading_local[..., None]], dim=-1))
    size = vocabulary.size.to(xy_local.dtype)[row] if box_size is None else box_size
    return _mean_corner_distance(
        ends[row].transpose(-1, -2), goal[..., None, :], size[..., None, :]
    )


def candidate_distance(
    vocabulary: MotionVocabulary,
    agent_type: Int[Tensor, "*batch agents"],
    candidates: Int[Tensor, "*batch agents k"],
    xy_local: Float[Tensor, "*batch agents 2"],
    heading_local: Float[Tensor, "*batch agents"],
    *,
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
) -> Float[Tensor, "*batch agents k"]:
    """Measures how far (m) some of the tokens end from a pose.

    Args:
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
        candidates: The tokens to measure.
        xy_local: The pose to reach (m), in the frame of the agent's current pose.
        heading_local: Its heading (rad) in that frame.
        box_size: Length and width (m) of each agent; by default its type's.
    """
    row = vocabulary.type_index(agent_type)
    end = vocabulary.end_poses.to(xy_local.dtype)[row[..., None], candidates]
    goal = torch.cat([xy_local, heading_local[..., None]], dim=-1)
    size = vocabulary.size.to(xy_local.dtype)[row] if box_size is None else box_size
    return corner_distance(end, goal[..., None, :], size[..., None, :])


def _placement(pose: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Tells a pose as x, y, cosine and sine."""
    x, y, heading = pose.unbind(-1)
    return torch.stack([x, y, heading.cos(), heading.sin()], dim=-1)


def _mean_corner_distance(
    placement: Float[Tensor, "*#batch 4"],
    other: Float[Tensor, "*#batch 4"],
    box_size: Float[Tensor, "*#batch 2"],
) -> Float[Tensor, "*batch"]:
    half_length, half_width = (box_size / 2).unbind(-1)
    x, y, cos, sin = (placement - other).unbind(-1)
    # The two poses differ by (x, y) at the centre, and by a turn that moves the four corners by
    # plus or minus a step along each side of the box.
    along = cos * half_length, sin * half_length
    across = -sin * half_width, cos * half_width
    front_x, front_y = x + along[0], y + along[1]
    back_x, back_y = x - along[0], y - along[1]
    left_front = torch.hypot(front_x + across[0], front_y + across[1])
    right_front = torch.hypot(front_x - across[0], front_y - across[1])
    right_back = torch.hypot(back_x - across[0], back_y - across[1])
    left_back = torch.hypot(back_x + across[0], back_y + across[1])
    return (left_front + right_front + right_back + left_back) / 4
