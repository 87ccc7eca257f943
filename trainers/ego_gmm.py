"""What the ego policy learns: the logged next pose, from logged or from visited states.

Zhang et al., "Closed-Loop Supervised Fine-Tuning of Tokenized Traffic Models", CVPR 2025,
arXiv:2412.05334, the ego policy. Everybody else replays the log, told in tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.constants import HISTORY_MARKS, NUM_MARKS
from catk_sim.geometry import se2
from catk_sim.tokens import MotionTokens, match_step
from policies.ego_gmm.model import EgoGMM, of_sdc
from policies.smart.agent_decoder import Situation
from policies.smart.config import SMARTConfig
from policies.smart.map_tokens import MapTokens
from policies.smart.model import motion_since_last_mark
from trainers.scenes import Scene

DEVIATION = 10.0
"""How far (m) a CAT-K rollout may leave the log for what it leaves out to be out of reach."""


def ego_cloning_loss(model: EgoGMM, scene: Scene) -> tuple[Tensor, dict[str, float]]:
    """Scores the logged next poses under the policy that reads the logged tokens.

    Args:
        model: The policy.
        scene: A batch of scenes.

    Returns:
        The loss, the distance of the most likely mode to the log (m), and the number of moves that
        both are means over.
    """
    scene = within_reach(scene, model.config)
    tokens, agents = scene.tokenized.tokens, scene.scenario.agents
    moves = slice(HISTORY_MARKS - 1, NUM_MARKS - 1)
    features = of_sdc(model.encoder.features(tokens, agents, scene.map_tokens), agents)
    pose, has_log = next_logged_poses(scene)
    now = torch.cat([tokens.xy, tokens.heading[..., None]], dim=-1)
    now = of_sdc(now, agents)[..., moves, :]
    moved = of_sdc(motion_since_last_mark(tokens), agents)[..., moves, :]
    learned = has_log & of_sdc(tokens.valid, agents)[..., moves]
    return score_poses(
        model,
        features[..., moves, :][learned],
        moved[learned],
        now[learned],
        pose[learned],
    )


def ego_catk_loss(
    model: EgoGMM, scene: Scene, k: int, *, max_deviation: float | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Rolls the policy out, then scores the logged next poses from the states that it visited.

    All states are scored in one parallel pass; see `catk_loss`.

    Args:
        model: The policy.
        scene: A batch of scenes.
        k: Modes that the rollout may choose from.
        max_deviation: See `drive_ego`.
    """
    scene = within_reach(scene, model.config, margin=DEVIATION)
    visited = drive_ego(model, scene, k, max_deviation=max_deviation)
    features, nodes = model.encoder.features_of(visited.record, visited.map_features)
    pose, has_log = next_logged_poses(scene)
    move = nodes.mark - (HISTORY_MARKS - 1)
    sdc = scene.scenario.agents.is_sdc[nodes.entry, nodes.agent]
    learned = sdc & (move >= 0) & has_log[nodes.entry, move.clamp(min=0)]
    now = torch.cat([nodes.poses.xy, nodes.poses.heading[:, None]], dim=-1)[learned]
    then = pose[nodes.entry[learned], move[learned]]
    return score_poses(model, features[learned], nodes.motion[learned], now, then)


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
        features: What the encoder makes of the sdc.
        moved: Its change of position since the mark before (m).
        now: Its pose.
        then: The logged pose half a second later.
    """
    mixture, count = model.mixture(features, moved, now[:, 2]), max(1, then.shape[0])
    pose = relative_pose(then, now)
    likelihood = mixture.negative_log_likelihood(pose, model.mixture_config.assignment)
    loss = likelihood.sum() / count
    likeliest = mixture.mean_of(mixture.logits.argmax(-1))
    error = (likeliest - pose)[:, :2].norm(dim=-1).sum() / count
    return loss, {"pose_error": error.item(), "moves": float(pose.shape[0])}


def next_logged_poses(
    scene: Scene,
) -> tuple[Float[Tensor, "*batch moves 3"], Bool[Tensor, "*batch moves"]]:
    """Returns the sdc's logged pose half a second after each state from the current one on.

    Also, whether there is one.
    """
    log, agents = scene.tokenized, scene.scenario.agents
    pose = torch.cat([log.logged_xy, log.logged_heading[..., None]], dim=-1)
    pose, valid = of_sdc(pose, agents), of_sdc(log.logged_valid, agents)
    valid = valid & agents.is_sdc.any(-1)[..., None]
    return pose[..., HISTORY_MARKS:, :], valid[..., HISTORY_MARKS:]


def relative_pose(
    pose: Float[Tensor, "*batch 3"], origin: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """Expresses a pose in the frame of another."""
    xy = se2.to_local(pose[..., :2], origin[..., :2], origin[..., 2])
    turn = se2.wrap_angle(pose[..., 2] - origin[..., 2])
    return torch.cat([xy, turn[..., None]], dim=-1)


def within_reach(scene: Scene, config: SMARTConfig, *, margin: float = 0.0) -> Scene:
    """Hides agents and map tokens that the sdc's features cannot depend on.

    Each block of the decoder lets an agent know of those near it, at any mark, and each layer of
    the map encoder a map token of those near it. What is further away than all of them carry is
    work for nothing.

    Args:
        scene: A batch of scenes.
        config: Ranges of the encoder, and how many layers it has.
        margin: How far (m) the sdc may be from where it was logged.
    """
    tokens, agents = scene.tokenized.tokens, scene.scenario.agents
    slack = margin * agents.is_sdc
    # (*batch, marks, agents, agents)
    xy, present = tokens.xy.transpose(-2, -3), tokens.valid.transpose(-1, -2)
    radius = config.agent_radius + slack[..., None, :, None] + slack[..., None, None, :]
    meet = (torch.cdist(xy, xy) <= radius) & present[..., :, None] & present[..., None, :]
    meet = meet.any(-3)
    reached = agents.is_sdc
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
        record: What the encoder observed, mark by mark: the sdc where it drove, the others where
            the log has them.
        map_features: What it made of the map.
    """

    record: list[Situation]
    map_features: Float[Tensor, "*batch map_tokens hidden"]


@torch.no_grad()
def drive_ego(
    model: EgoGMM, scene: Scene, k: int, *, max_deviation: float | None = None
) -> VisitedByEgo:
    """Drives the sdc to the end of the log by CAT-K, without gradient.

    At each mark it goes to the mean of one of its `k` most likely modes: the one nearest to the
    log. The policy is in evaluation mode, unlike in catk: without dropout it makes of a state what
    the parallel pass makes of it that learns.

    Args:
        model: The policy.
        scene: A batch of scenes.
        k: Modes that may be chosen from. 1 is greedy.
        max_deviation: Where even the nearest of them is farther from the log than this (m), the sdc
            goes on from the log. With 0 the rollout is the log; by default it is CAT-K's.
    """
    was_training = model.training
    model.eval()
    agents, log = scene.scenario.agents, scene.tokenized.tokens
    memory = model.encoder.remember(agents, scene.map_tokens)
    record: list[Situation] = []
    logged, has_log = next_logged_poses(scene)
    kind = of_sdc(agents.type, agents)
    vocabulary = model.vocabulary.to(kind.device)
    box_size = vocabulary.size[vocabulary.type_index(kind)].to(logged.dtype)
    now = log.at(0)
    for mark in range(NUM_MARKS - 1):
        features, memory = model.encoder.step(now, agents, memory, record=record)
        now, before = log.at(mark + 1), now
        move = mark - (HISTORY_MARKS - 1)
        if move < 0:
            continue
        start = of_sdc(torch.cat([before.xy, before.heading[..., None]], dim=-1), agents)[..., 0, :]
        there, is_logged = relative_pose(logged[..., move, :], start), has_log[..., move]
        mixture = model.mixture_now(features, memory.past, agents)
        pose = mixture.closest_among_top_k(there, k, has_log=is_logged, box_size=box_size)
        if max_deviation is not None:
            away = (pose - there)[..., :2].norm(dim=-1) > max_deviation
            pose = torch.where((away & is_logged)[..., None], there, pose)
        token = match_step(vocabulary, kind, pose[..., :2], pose[..., 2])
        now = _with_sdc(now, before, scene, start, pose, token)
    model.train(was_training)
    return VisitedByEgo(record=record, map_features=memory.map_memory.features)


def _with_sdc(
    replayed: MotionTokens,
    before: MotionTokens,
    scene: Scene,
    start: Float[Tensor, "*batch 3"],
    pose: Float[Tensor, "*batch 3"],
    token: Int[Tensor, "*batch"],
) -> MotionTokens:
    """Puts the sdc where it drove. Once there, it stays valid."""
    sdc = scene.scenario.agents.is_sdc[..., None]
    xy = se2.to_global(pose[..., :2], start[..., :2], start[..., 2])
    heading = se2.wrap_angle(start[..., 2] + pose[..., 2])
    return MotionTokens(
        token=torch.where(sdc, token[..., None, None], replayed.token),
        xy=torch.where(sdc[..., None], xy[..., None, None, :], replayed.xy),
        heading=torch.where(sdc, heading[..., None, None], replayed.heading),
        valid=torch.where(sdc, before.valid, replayed.valid),
    )
