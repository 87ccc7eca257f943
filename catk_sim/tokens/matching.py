"""Matching: which tokens tell a motion best."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from catk_sim.constants import CURRENT_STEP, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.geometry import se2
from catk_sim.geometry.boxes import box_corners
from catk_sim.tokens import cleaning
from catk_sim.tokens.distance import token_distance
from catk_sim.tokens.motion_tokens import MotionTokens, TokenizedLog
from catk_sim.tokens.sampling import sample_top_k
from catk_sim.tokens.vocabulary import MotionVocabulary

Chooser = Callable[
    [
        Float[Tensor, "*batch agents 2"],
        Float[Tensor, "*batch agents"],
        Bool[Tensor, "*batch agents"],
    ],
    Int[Tensor, "*batch agents"],
]
"""Chooses a token for each agent's move: position (m) and heading (rad) in its own frame, and
whether it matters."""

# Pairs of agent and token that are compared at a time. A processor works best within its cache, an
# accelerator when it is full; both leave memory for the model.
_CPU_PAIRS = 2**15
_ACCELERATOR_PAIRS = 2**22


def match_step(
    vocabulary: MotionVocabulary,
    agent_type: Int[Tensor, "*batch agents"],
    xy_local: Float[Tensor, "*batch agents 2"],
    heading_local: Float[Tensor, "*batch agents"],
    *,
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
    matters: Bool[Tensor, "*batch agents"] | None = None,
) -> Int[Tensor, "*batch agents"]:
    """Finds the token that ends nearest to a pose.

    Args:
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
        xy_local: The pose to reach (m), in the frame of the agent's current pose.
        heading_local: Its heading (rad) in that frame.
        box_size: Length and width (m) of each agent; by default its type's.
        matters: The agents that are asked for; by default all. The tokens of the others are
            arbitrary.
    """
    if agent_type.device.type == "cpu" and box_size is None:
        if matters is None:
            matters = torch.ones_like(agent_type, dtype=torch.bool)
        matcher = _TypeMatcher(vocabulary, agent_type)
        return matcher.nearest(matcher.corners(xy_local, heading_local), matters)
    shape = agent_type.shape
    flat = (agent_type.reshape(-1), xy_local.reshape(-1, 2), heading_local.reshape(-1))
    sizes = None if box_size is None else box_size.reshape(-1, 2)
    pairs = _CPU_PAIRS if agent_type.device.type == "cpu" else _ACCELERATOR_PAIRS
    chunk = max(1, pairs // vocabulary.num_tokens)
    nearest = [
        token_distance(
            vocabulary,
            *(part[start : start + chunk] for part in flat),
            box_size=None if sizes is None else sizes[start : start + chunk],
        ).argmin(-1)
        for start in range(0, max(1, shape.numel()), chunk)
    ]
    return torch.cat(nearest).reshape(shape)


class _TypeMatcher:
    """Finds the token that ends nearest to a pose, type by type.

    For processors, where agents of a type can be listed at no cost.

    Args:
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
    """

    def __init__(
        self, vocabulary: MotionVocabulary, agent_type: Int[Tensor, "*batch agents"]
    ) -> None:
        self._row = vocabulary.type_index(agent_type)
        self._size = vocabulary.size[self._row]
        self._ends = vocabulary.end_corners_by_axis
        self._chunk = max(1, _CPU_PAIRS // vocabulary.num_tokens)

    def corners(
        self,
        xy_local: Float[Tensor, "*batch agents 2"],
        heading_local: Float[Tensor, "*batch agents"],
    ) -> Float[Tensor, "*batch agents 4 2"]:
        """Finds the corners (m) of the types' boxes in some poses."""
        return box_corners(xy_local, heading_local, self._size.to(xy_local.dtype)).detach()

    def nearest(
        self, goal: Float[Tensor, "*batch agents 4 2"], matters: Bool[Tensor, "*batch agents"]
    ) -> Int[Tensor, "*batch agents"]:
        """Finds tokens by the corners to reach; token 0 for those that do not matter."""
        nearest = torch.zeros_like(self._row)
        for kind, (x, y) in enumerate(self._ends.to(goal.dtype)):
            chosen = ((self._row == kind) & matters).nonzero(as_tuple=True)
            found = []
            for corners in goal[chosen].split(self._chunk):
                distance = (x - corners[..., :1]).square_()
                across = y - corners[..., 1:]
                distance.addcmul_(across, across).sqrt_()
                # numpy finds the least several times faster than torch.
                found.append(distance.sum(dim=1).numpy().argmin(axis=1))
            nearest[chosen] = torch.from_numpy(np.concatenate(found))
        return nearest


class _Standstill:
    """Tells who is surely nearest to token 0, at less cost than that of a look at all tokens.

    It is whoever is less than half as far from it as any other token is.

    Args:
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
        dtype: In what numbers to compare.
    """

    def __init__(
        self,
        vocabulary: MotionVocabulary,
        agent_type: Int[Tensor, "*batch agents"],
        dtype: torch.dtype,
    ) -> None:
        ends, row = vocabulary.end_corners_by_axis.to(dtype), vocabulary.type_index(agent_type)
        apart = (ends - ends[..., :1]).square_().sum(dim=1).sqrt_().sum(dim=1)  # (types, tokens)
        apart[:, 0] = math.inf
        # Half of it, less what rounding can do.
        self._radius = 0.49 * apart.amin(dim=1)[row]
        self._corners = ends[row, :, :, 0].mT

    def includes(
        self, corners: Float[Tensor, "*batch agents 4 2"]
    ) -> Bool[Tensor, "*batch agents"]:
        """Tells which agents have their corners (m) about where token 0 leaves them."""
        return (corners - self._corners).norm(dim=-1).sum(dim=-1) < self._radius


def recovery_token(
    vocabulary: MotionVocabulary,
    agent_type: Int[Tensor, "*batch agents"],
    now: Float[Tensor, "*batch agents 3"],
    logged_next: Float[Tensor, "*batch agents 3"],
    *,
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
) -> Int[Tensor, "*batch agents"]:
    """Finds the token that best leads from a visited pose to the next logged one.

    The label of CAT-K (arXiv:2412.05334): it does not depend on the policy.

    Args:
        vocabulary: The tokens.
        agent_type: `AgentType` of each agent.
        now: The visited pose: x (m), y (m), heading (rad).
        logged_next: The logged pose half a second later, in the same frame.
        box_size: Length and width (m) of each agent; by default its type's.
    """
    xy_local = se2.to_local(logged_next[..., :2], now[..., :2], now[..., 2])
    turn = logged_next[..., 2] - now[..., 2]
    return match_step(vocabulary, agent_type, xy_local, turn, box_size=box_size)


def token_end(
    vocabulary: MotionVocabulary,
    agent_type: Int[Tensor, "*batch agents"],
    token: Int[Tensor, "*batch agents"],
    now: Float[Tensor, "*batch agents 3"],
) -> Float[Tensor, "*batch agents 3"]:
    """Tells the pose (m, m, rad) that a token leads to from another. Headings are wrapped."""
    return _arrival(
        now, vocabulary.end_poses.to(now.dtype)[vocabulary.type_index(agent_type), token]
    )


def _arrival(
    now: Float[Tensor, "*batch agents 3"], end: Float[Tensor, "*batch agents 3"]
) -> Float[Tensor, "*batch agents 3"]:
    xy = se2.to_global(end[..., :2], now[..., :2], now[..., 2])
    heading = se2.wrap_angle(now[..., 2] + end[..., 2])
    return torch.cat([xy, heading[..., None]], dim=-1)


def match_trajectory(
    log: Trajectory,
    agents: AgentMetadata,
    vocabulary: MotionVocabulary,
    *,
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
) -> TokenizedLog:
    """Tells a motion in tokens, each matched from where the one before it ended.

    So errors do not add up: each is that of one match. After a mark whose move is not valid at
    both ends, matching starts again from the log.

    Args:
        log: The motion, cleaned.
        agents: Types of the agents.
        vocabulary: The tokens.
        box_size: Length and width (m) of each agent; by default its type's.
    """
    if log.valid.device.type == "cpu" and box_size is None:
        matcher = _TypeMatcher(vocabulary, agents.type)
        standstill = _Standstill(vocabulary, agents.type, log.xy.dtype)

        def nearest_by_type(
            xy_local: Float[Tensor, "*batch agents 2"],
            heading_local: Float[Tensor, "*batch agents"],
            matters: Bool[Tensor, "*batch agents"],
        ) -> Int[Tensor, "*batch agents"]:
            corners = matcher.corners(xy_local, heading_local)
            return matcher.nearest(corners, matters & ~standstill.includes(corners))

        return _retell(log, agents, vocabulary, nearest_by_type)

    def nearest(
        xy_local: Float[Tensor, "*batch agents 2"],
        heading_local: Float[Tensor, "*batch agents"],
        matters: Bool[Tensor, "*batch agents"],
    ) -> Int[Tensor, "*batch agents"]:
        return match_step(vocabulary, agents.type, xy_local, heading_local, box_size=box_size)

    return _retell(log, agents, vocabulary, nearest)


def tokenize(
    log: Trajectory,
    agents: AgentMetadata,
    vocabulary: MotionVocabulary,
    *,
    sdc_radius: float | None = None,
    box_size: Float[Tensor, "*batch agents 2"] | None = None,
) -> TokenizedLog:
    """Tells a raw log in tokens: `prepare`, then `match_trajectory`.

    Args:
        log: The motion as logged. Eleven steps give the two marks of the history.
        agents: Identity and types of the agents.
        vocabulary: The tokens.
        sdc_radius: If given, agents are hidden while they are at least this far (m) from the sdc.
        box_size: Length and width (m) of each agent; by default its type's.

    Example:
        >>> import torch
        >>> from catk_sim.datasets import open_scenarios
        >>> scenario = next(iter(open_scenarios("synthetic"))).to(torch.float32)
        >>> tokenized = tokenize(scenario.log, scenario.agents, MotionVocabulary.default())
        >>> tokenized.tokens.token.shape  # Agents, half seconds.
        torch.Size([40, 18])
    """
    prepared = prepare(log, agents, sdc_radius=sdc_radius)
    return match_trajectory(prepared, agents, vocabulary, box_size=box_size)


def noisy_tokenize(
    log: Trajectory,
    agents: AgentMetadata,
    vocabulary: MotionVocabulary,
    *,
    k: int,
    temperature: float = 1.0,
    generator: Generator | None = None,
    sdc_radius: float | None = None,
) -> TokenizedLog:
    """Tells a raw log in tokens drawn from the `k` nearest, each from where the last one ended.

    Philion et al., "Trajeglish: Traffic Modeling as Next-Token Prediction", arXiv:2312.04535. The
    error that a draw leaves is seen, and corrected, by the next.

    Args:
        log: The motion as logged.
        agents: Identity and types of the agents.
        vocabulary: The tokens.
        k: How many tokens are drawn from. With 1 there is no noise.
        temperature: Distance (m) over which a token becomes e times less likely.
        generator: Source of randomness, on the device of the log.
        sdc_radius: If given, agents are hidden while they are at least this far (m) from the sdc.
    """

    def drawn(
        xy_local: Float[Tensor, "*batch agents 2"],
        heading_local: Float[Tensor, "*batch agents"],
        matters: Bool[Tensor, "*batch agents"],
    ) -> Int[Tensor, "*batch agents"]:
        distance = token_distance(vocabulary, agents.type, xy_local, heading_local)
        return sample_top_k(-distance, k, temperature=temperature, generator=generator)

    prepared = prepare(log, agents, sdc_radius=sdc_radius)
    return _retell(prepared, agents, vocabulary, drawn)


def prepare(
    log: Trajectory, agents: AgentMetadata, *, sdc_radius: float | None = None
) -> Trajectory:
    """Makes a raw log ready for matching: gaps, range, headings, late entries, in this order.

    Only agents that the log has at the current step remain valid, since no others are simulated.
    """
    present = agents.valid & log.valid[..., CURRENT_STEP]
    mended = cleaning.fill_gaps(log.replace(valid=log.valid & present[..., None]))
    if sdc_radius is not None:
        mended = cleaning.limit_to_sdc(mended, agents, radius=sdc_radius)
    return cleaning.extrapolate_backward(cleaning.clean_headings(mended))


def _retell(
    log: Trajectory, agents: AgentMetadata, vocabulary: MotionVocabulary, choose: Chooser
) -> TokenizedLog:
    if log.num_steps <= STEPS_PER_TOKEN:
        raise ValueError(f"a log of {log.num_steps} steps is shorter than a token")
    # Step 0 and the marks: (*batch, agents, 1 + marks, ...).
    logged = torch.cat([log.xy, log.heading[..., None]], dim=-1)[..., ::STEPS_PER_TOKEN, :]
    present = log.valid[..., ::STEPS_PER_TOKEN]
    valid = present[..., :-1] & present[..., 1:]
    ends, row = vocabulary.end_poses.to(logged.dtype), vocabulary.type_index(agents.type)
    now = logged[..., 0, :]
    tokens, poses = [], []
    for mark, then in enumerate(logged[..., 1:, :].unbind(-2)):
        xy_local = se2.to_local(then[..., :2], now[..., :2], now[..., 2])
        token = choose(xy_local, then[..., 2] - now[..., 2], valid[..., mark])
        now = torch.where(valid[..., mark, None], _arrival(now, ends[row, token]), then)
        tokens.append(token)
        poses.append(now)
    pose = torch.stack(poses, dim=-2)
    return TokenizedLog(
        tokens=MotionTokens(
            token=torch.stack(tokens, dim=-1), xy=pose[..., :2], heading=pose[..., 2], valid=valid
        ),
        logged_xy=logged[..., 1:, :2],
        logged_heading=logged[..., 1:, 2],
        logged_valid=present[..., 1:],
    )
