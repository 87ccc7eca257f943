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
    # Axes come first below, so that whatever broadcasts must have as many dimensions.
    rank = max(pose.dim(), other.dim(), box_size.dim())
    pose, other, box_size = (one[(None,) * (rank - one.dim())] for one in (pose, other, box_size))
    return _mean_corner_distance(
        _placement(pose[..., :2], pose[..., 2]),
        _placement(other[..., :2], other[..., 2]),
        _corners(box_size),
    )


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
    row = vocabulary.row_of_type[agent_type]
    poses = vocabulary.end_poses.to(xy_local.dtype)
    ends = _placement(poses[..., :2], poses[..., 2])
    goal = _placement(xy_local, heading_local)
    corners = _corners_of(vocabulary, row, box_size, xy_local.dtype)
    # One corner after the other: there are many tokens.
    ends, goal, total = ends[:, row], goal[..., None], goal.new_zeros(())
    for corner in corners[..., None].split(1, dim=1):
        total = total + _mean_corner_distance(ends, goal, corner)
    return total / 4


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
    row = vocabulary.row_of_type[agent_type]
    place = (row * vocabulary.num_tokens)[..., None] + candidates
    ends = vocabulary.end_placements.to(xy_local.dtype).flatten(1)
    end = ends.index_select(1, place.flatten()).unflatten(1, place.shape)
    goal = _placement(xy_local, heading_local)
    corners = _corners_of(vocabulary, row, box_size, xy_local.dtype)
    return _mean_corner_distance(end, goal[..., None], corners[..., None])


def _placement(
    xy: Float[Tensor, "*shape 2"], heading: Float[Tensor, "*shape"]
) -> Float[Tensor, "axes=4 *shape"]:
    """Tells a pose as x, y, cosine and sine."""
    return torch.stack([*xy.unbind(-1), heading.cos(), heading.sin()])


def _corners(box_size: Float[Tensor, "*shape 2"]) -> Float[Tensor, "2 corners=4 *shape"]:
    """Tells where the corners of boxes are, as `MotionVocabulary.box_corners` does."""
    length, width = (box_size / 2).unbind(-1)
    ahead = torch.stack([length, length, -length, -length])
    left = torch.stack([width, -width, -width, width])
    return torch.stack([ahead, left])


def _corners_of(
    vocabulary: MotionVocabulary,
    row: Int[Tensor, "*shape"],
    box_size: Float[Tensor, "*shape 2"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "2 corners=4 *shape"]:
    """Tells where the corners of agents' boxes are; by default those of their types."""
    return vocabulary.box_corners.to(dtype)[..., row] if box_size is None else _corners(box_size)


def _mean_corner_distance(
    placement: Float[Tensor, "axes=4 *#batch"],
    other: Float[Tensor, "axes=4 *#batch"],
    corners: Float[Tensor, "2 corners *#batch"],
) -> Float[Tensor, "*batch"]:
    # The two poses differ by (x, y) at the centre, and by a turn that moves the corners besides.
    x, y, cos, sin = (placement - other).unbind()
    ahead, left = corners
    x = x + cos * ahead - sin * left
    y = y + sin * ahead + cos * left
    return torch.hypot(x, y).mean(0)
