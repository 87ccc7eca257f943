"""What the ego policy learns: the logged next pose, from logged or from visited states.

Zhang et al., "Closed-Loop Supervised Fine-Tuning of Tokenized Traffic Models", CVPR 2025,
arXiv:2412.05334, the ego policy. In the paper the sdc learns; a scene has far more to learn from if
every vehicle does. Everybody else replays the log, told in tokens.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_MARKS, NUM_MARKS, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentType
from catk_sim.geometry import se2
from catk_sim.tokens import MotionTokens, match_step
from policies.ego_gmm.model import EgoGMM, last_move
from policies.smart.agent_decoder import Situation
from policies.smart.config import SMARTConfig
from policies.smart.graph import Poses
from policies.smart.map_tokens import MapTokens
from policies.smart.model import motion_since_last_mark
from trainers.recovery import along_the_log
from trainers.scenes import Scene

Learners = Literal["sdc", "vehicles"]
"""Whose driving is learnt."""

Recovery = Literal["pose", "way"]
"""What a state beside the log teaches."""

STANDING = 2.0
"""Vehicles that never get farther than this (m) from where they are do not drive."""

DEVIATION = 10.0
"""How far (m) a CAT-K rollout may leave the log for what it leaves out to be out of reach."""


def ego_cloning_loss(
    model: EgoGMM, scene: Scene, whom: Learners = "sdc"
) -> tuple[Tensor, dict[str, float]]:
    """Scores the logged next poses under the policy that reads the logged tokens.

    Args:
        model: The policy.
        scene: A batch of scenes.
        whom: Whose poses.

    Returns:
        The loss, the distance of the most likely mode to the log (m), and the number of moves that
        both are means over.
    """
    learners = who_is_learnt_from(scene, whom)
    scene = within_reach(scene, learners, model.config)
    tokens = scene.tokenized.tokens
    moves = slice(HISTORY_MARKS - 1, NUM_MARKS - 1)
    features = model.encoder.features(tokens, scene.scenario.agents, scene.map_tokens)
    then, has_log = next_logged_poses(scene)
    counts = learners[..., None] & has_log & tokens.valid[..., moves]
    moved = motion_since_last_mark(tokens)
    return score_poses(
        model,
        features[..., moves, :][counts],
        moved[..., moves, :][counts],
        poses_of(tokens)[..., moves, :][counts],
        then[counts],
    )


def ego_catk_loss(
    model: EgoGMM,
    scene: Scene,
    k: int,
    *,
    whom: Learners = "sdc",
    recovery: Recovery = "pose",
    max_deviation: float | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Rolls the policy out, then scores the logged next poses from the states that it visited.

    All states are scored in one parallel pass; see `catk_loss`.

    Args:
        model: The policy.
        scene: A batch of scenes.
        k: Modes that the rollout may choose from.
        whom: Who drives, and learns.
        recovery: What is learnt: to get to the log's next `pose`, as in the paper, or on its `way`.
            See `along_the_log`.
        max_deviation: States farther from the log (m) are not learnt from. By default all are.
    """
    learners = who_is_learnt_from(scene, whom)
    scene = within_reach(scene, learners, model.config, margin=DEVIATION)
    visited = drive_egos(model, scene, learners, k)
    features, nodes = model.encoder.features_of(visited.record, visited.map_features)
    then, has_log = next_logged_poses(scene)
    move = nodes.mark - (HISTORY_MARKS - 1)
    at = (nodes.entry, nodes.agent, move.clamp(min=0))
    counts = (learners[..., None] & has_log)[at] & (move >= 0)
    now = poses_of(nodes.poses)
    if max_deviation is not None:
        logged = scene.tokenized.logged_xy[nodes.entry, nodes.agent, nodes.mark]
        counts = counts & ((now[:, :2] - logged).norm(dim=-1) <= max_deviation)
    if recovery == "pose":
        target = then[at][counts]
    else:
        log = scene.scenario.log.map(lambda value: value[nodes.entry, nodes.agent][counts])
        step = STEPS_PER_TOKEN * (nodes.mark[counts] + 1)
        target = along_the_log(now[counts], log, step)
    return score_poses(model, features[counts], nodes.motion[counts], now[counts], target)


def who_is_learnt_from(scene: Scene, whom: Learners) -> Bool[Tensor, "*batch agents"]:
    """Tells whose driving is learnt."""
    agents, log = scene.scenario.agents, scene.scenario.log
    if whom == "sdc":
        return agents.is_sdc
    first, last = log.xy[..., CURRENT_STEP, None, :], log.xy
    went = ((last - first).norm(dim=-1) > STANDING) & log.valid
    return scene.learned & (agents.type == AgentType.VEHICLE) & went.any(-1)


def score_poses(
    model: EgoGMM,
    features: Float[Tensor, "moves hidden"],
    moved: Float[Tensor, "moves 2"],
    now: Float[Tensor, "moves 3"],
    then: Float[Tensor, "moves 3"],
) -> tuple[Tensor, dict[str, float]]:
    """Scores poses under the policy; see `ego_cloning_loss`. Without poses, the loss is 0.

    Args:
        model: The policy.
        features: What the encoder makes of agents.
        moved: Their change of position since the mark before (m).
        now: Their poses.
        then: The logged poses half a second later.
    """
    mixture, count = model.mixture(features, moved, now[:, 2]), max(1, then.shape[0])
    pose = relative_pose(then, now)
    likelihood = mixture.negative_log_likelihood(pose, model.mixture_config.assignment)
    loss = likelihood.sum() / count
    likeliest = mixture.mean_of(mixture.logits.argmax(-1))
    error = (likeliest - pose)[:, :2].norm(dim=-1).sum() / count
    return loss, {"pose_error": error.item(), "moves": float(pose.shape[0])}


def poses_of(placed: MotionTokens | Poses) -> Float[Tensor, "*batch 3"]:
    """Returns x, y (m) and heading (rad) of what has a place."""
    return torch.cat([placed.xy, placed.heading[..., None]], dim=-1)


def next_logged_poses(
    scene: Scene,
) -> tuple[Float[Tensor, "*batch agents moves 3"], Bool[Tensor, "*batch agents moves"]]:
    """Returns logged poses half a second after each state from the current one on.

    Also, whether there is one.
    """
    log = scene.tokenized
    pose = torch.cat([log.logged_xy, log.logged_heading[..., None]], dim=-1)
    return pose[..., HISTORY_MARKS:, :], log.logged_valid[..., HISTORY_MARKS:]


def relative_pose(
    pose: Float[Tensor, "*batch 3"], origin: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Expresses a pose in the frame of another."""
    xy = se2.to_local(pose[..., :2], origin[..., :2], origin[..., 2])
    turn = se2.wrap_angle(pose[..., 2] - origin[..., 2])
    return torch.cat([xy, turn[..., None]], dim=-1)


def within_reach(
    scene: Scene,
    learners: Bool[Tensor, "*batch agents"],
    config: SMARTConfig,
    *,
    margin: float = 0.0,
) -> Scene:
    """Hides agents and map tokens that the features of those who learn cannot depend on.

    Each block of the decoder lets an agent know of those near it, at any mark, and each layer of
    the map encoder a map token of those near it. What is further away than all of them carry is
    work for nothing.

    Args:
        scene: A batch of scenes.
        learners: Who they are.
        config: Ranges of the encoder, and how many layers it has.
        margin: How far (m) they may be from where they were logged.
    """
    tokens = scene.tokenized.tokens
    slack = margin * learners
    # (*batch, marks, agents, agents)
    xy, present = tokens.xy.transpose(-2, -3), tokens.valid.transpose(-1, -2)
    radius = config.agent_radius + slack[..., None, :, None] + slack[..., None, None, :]
    meet = (torch.cdist(xy, xy) <= radius) & present[..., :, None] & present[..., None, :]
    meet = meet.any(-3)
    reached = learners
    for _ in range(config.num_agent_layers):
        reached = reached | (meet & reached[..., None, :]).any(-1)
    valid = tokens.valid & reached[..., None]
    return scene.replace(
        tokenized=scene.tokenized.replace(tokens=tokens.replace(valid=valid)),
        map_tokens=_near(scene.map_tokens, tokens.xy, valid, _map_reach(config) + margin),
    )


def _map_reach(config: SMARTConfig) -> float:
    return config.map_agent_radius + config.num_map_layers * config.map_radius


def _near(
    map_tokens: MapTokens,
    xy: Float[Tensor, "scenes agents marks 2"],
    valid: Bool[Tensor, "scenes agents marks"],
    radius: float,
) -> MapTokens:
    """Hides the map tokens that no agent comes near."""
    kept = torch.zeros_like(map_tokens.valid)
    # Scene by scene, since the padded product of all agents and map tokens is large.
    for row, there in enumerate(map_tokens.valid):
        distance = torch.cdist(map_tokens.xy[row, there], xy[row][valid[row]])
        kept[row, there] = (distance <= radius).any(-1)
    return map_tokens.replace(valid=kept)


@dataclass(frozen=True, eq=False, kw_only=True)
class VisitedByEgo:
    """What a rollout leaves behind.

    Attributes:
        record: What the encoder observed, mark by mark: who learns where it drove, the others where
            the log has them.
        map_features: What it made of the map.
    """

    record: list[Situation]
    map_features: Float[Tensor, "*batch map_tokens hidden"]


@torch.no_grad()
def drive_egos(
    model: EgoGMM,
    scene: Scene,
    learners: Bool[Tensor, "*batch agents"],
    k: int,
) -> VisitedByEgo:
    """Drives to the end of the log by CAT-K, without gradient.

    At each mark who learns goes to the mean of one of its `k` most likely modes: the one nearest to
    the log. The policy is in evaluation mode, unlike in catk: without dropout it makes of a state
    what the parallel pass makes of it that learns.

    Args:
        model: The policy.
        scene: A batch of scenes.
        learners: Who drives. The others replay the log, told in tokens.
        k: Modes that may be chosen from. 1 is greedy.
    """
    was_training = model.training
    model.eval()
    agents, log = scene.scenario.agents, scene.tokenized.tokens
    memory = model.encoder.remember(agents, scene.map_tokens)
    record: list[Situation] = []
    logged, has_log = next_logged_poses(scene)
    vocabulary = model.vocabulary.to(agents.type.device)
    box_size = vocabulary.size[vocabulary.type_index(agents.type)].to(logged.dtype)
    now = log.at(0)
    for mark in range(NUM_MARKS - 1):
        features, memory = model.encoder.step(now, agents, memory, record=record)
        now, before = log.at(mark + 1), now
        move = mark - (HISTORY_MARKS - 1)
        if move < 0:
            continue
        start = poses_of(before)[..., 0, :]
        there, is_logged = relative_pose(logged[..., move, :], start), has_log[..., move]
        mixture = model.mixture(features, *last_move(memory.past))
        pose = mixture.closest_among_top_k(there, k, has_log=is_logged, box_size=box_size)
        token = match_step(vocabulary, agents.type, pose[..., :2], pose[..., 2], matters=learners)
        now = _with_learners(now, before, learners, start, pose, token)
    model.train(was_training)
    return VisitedByEgo(record=record, map_features=memory.map_memory.features)


def _with_learners(
    replayed: MotionTokens,
    before: MotionTokens,
    learners: Bool[Tensor, "*batch agents"],
    start: Float[Tensor, "*batch agents 3"],
    pose: Float[Tensor, "*batch agents 3"],
    token: Int[Tensor, "*batch agents"],
) -> MotionTokens:
    """Puts who learns where it drove. Once there, it stays valid."""
    xy = se2.to_global(pose[..., :2], start[..., :2], start[..., 2])
    heading = se2.wrap_angle(start[..., 2] + pose[..., 2])
    mine = learners[..., None]
    return MotionTokens(
        token=torch.where(mine, token[..., None], replayed.token),
        xy=torch.where(mine[..., None], xy[..., None, :], replayed.xy),
        heading=torch.where(mine, heading[..., None], replayed.heading),
        valid=torch.where(mine, before.valid, replayed.valid),
    )
