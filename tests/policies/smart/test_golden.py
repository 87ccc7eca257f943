"""SMART-nano with the reference's random weights gives the reference's numbers."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from catk_sim.constants import NUM_MARKS
from catk_sim.datatypes import AgentMetadata
from catk_sim.geometry.se2 import to_local
from catk_sim.tokens import MotionTokens, closest_to_pose_among_top_k, token_end
from policies.smart.agent_decoder import AgentDecoder
from policies.smart.config import SMARTConfig
from policies.smart.graph import Poses, radius_edges
from policies.smart.map_tokens import MapTokens
from policies.smart.memory import MapMemory
from policies.smart.model import SMART
from policies.smart.nodes import AgentNodes
from tests.policies.smart import reference

TOLERANCE = 1e-3


@cache
def outputs() -> dict[str, np.ndarray]:
    return reference.arrays(f"nano_random_outputs_{reference.WEIGHTS_SCENE}")


@cache
def nano() -> SMART:
    return reference.nano()


def leaked_motion(tokens: MotionTokens) -> Tensor:
    """The reference takes a position that is not valid for the origin, far away."""
    moved = tokens.xy.diff(dim=1)
    return torch.cat([torch.zeros_like(tokens.xy[:, :1]), moved], dim=1)


@cache
def open_loop() -> tuple[MotionTokens, Tensor]:
    tokens, agents, map_tokens = reference.scene(reference.WEIGHTS_SCENE)
    with torch.no_grad():
        logits = nano()(tokens, agents, map_tokens, motion=leaked_motion(tokens))
    return tokens, logits


def test_map_features_equal_the_reference() -> None:
    *_, map_tokens = reference.scene(reference.WEIGHTS_SCENE)
    with torch.no_grad():
        features = nano().map_encoder(map_tokens.map(lambda tensor: tensor[None]))[0]
    expected = torch.from_numpy(outputs()["map_feature"])
    torch.testing.assert_close(features, expected, atol=TOLERANCE, rtol=0)


def test_open_loop_logits_equal_the_reference() -> None:
    tokens, logits = open_loop()
    valid = tokens.valid[:, 1 : NUM_MARKS - 1]
    expected = torch.from_numpy(outputs()["open_logits_16"])
    torch.testing.assert_close(logits[..., ::16][valid], expected[valid], atol=TOLERANCE, rtol=0)
    total = torch.from_numpy(outputs()["open_logits_lse"])
    torch.testing.assert_close(logits.logsumexp(-1)[valid], total[valid], atol=TOLERANCE, rtol=0)
    likeliest = torch.from_numpy(outputs()["open_logits_argmax"])
    assert (logits.argmax(-1) == likeliest)[valid].all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_open_loop_loss_equals_the_reference(smoothing: float) -> None:
    tokens, logits = open_loop()
    valid = tokens.valid[:, 1 : NUM_MARKS - 1] & tokens.valid[:, 2:]
    loss = functional.cross_entropy(
        logits[valid], tokens.token[:, 2:][valid], label_smoothing=smoothing
    )
    assert loss.item() == pytest.approx(outputs()[f"open_loss_smooth{smoothing}"], abs=TOLERANCE)


def drive(k: int) -> tuple[Tensor, Tensor]:
    """Drives the scene with CAT-K; returns tokens and log-sum-exps of the logits."""
    tokens, agents, map_tokens = reference.scene(reference.WEIGHTS_SCENE)
    motion, vocabulary = leaked_motion(tokens), reference.vocabulary()
    golden = reference.arrays(f"tok_{reference.WEIGHTS_SCENE}_eval")
    logged = torch.cat(
        [
            torch.from_numpy(golden["gt_pos_raw"]),
            torch.from_numpy(golden["gt_head_raw"])[..., None],
        ],
        dim=-1,
    )
    has_log = torch.from_numpy(golden["gt_valid_raw"])
    model = nano()
    memory = model.remember(agents, map_tokens)
    _, memory = model.step(at(tokens, 0), agents, memory, motion=motion[:, :1])
    now, motion = at(tokens, 1), motion[:, 1:2]
    chosen, totals = [], []
    for mark in range(1, NUM_MARKS - 1):
        logits, memory = model.step(now, agents, memory, motion=motion)
        pose = torch.cat([now.xy, now.heading[..., None]], dim=-1)[:, 0]
        following = logged[:, mark + 1]
        token = closest_to_pose_among_top_k(
            logits,
            vocabulary,
            agents.type,
            to_local(following[:, :2], pose[:, :2], pose[:, 2]),
            following[:, 2] - pose[:, 2],
            k,
            has_log=has_log[:, mark + 1],
        )
        reached = token_end(vocabulary, agents.type, token, pose)
        motion = (reached - pose)[:, None, :2]
        now = MotionTokens(
            token=token[:, None],
            xy=reached[:, None, :2],
            heading=reached[:, None, 2],
            valid=now.valid,
        )
        chosen.append(token)
        totals.append(logits.logsumexp(-1))
    return torch.stack(chosen, dim=1), torch.stack(totals, dim=1)


def at(tokens: MotionTokens, mark: int) -> MotionTokens:
    return tokens.map(lambda tensor: tensor[:, mark : mark + 1])


@pytest.mark.parametrize(
    ("name", "k"), [("greedy", 1), ("cat5", 5), ("cat32", 32), ("cat2048", 2048)]
)
def test_rollouts_equal_the_reference(name: str, k: int) -> None:
    with torch.no_grad():
        chosen, totals = drive(k)
    valid = torch.from_numpy(outputs()[f"{name}_pred_valid"])[:, 1]
    same = chosen == torch.from_numpy(outputs()[f"{name}_pred_idx"])[:, 2:]
    if k < 2048:
        assert same[valid].all()
    # Among all tokens there are near ties, which float32 kilometres out decides by chance.
    assert same[valid].float().mean() > 0.95
    expected = torch.from_numpy(outputs()[f"{name}_logits_lse"])[valid]
    # Positions of kilometres have errors of 0.2 mm in float32, and they add up.
    torch.testing.assert_close(totals[valid], expected, atol=1e-2, rtol=0)


def test_the_dense_scene_has_as_many_relations_as_the_reference_counts() -> None:
    """The counts are those of the reference's table of costs."""
    tokens, agents, map_tokens = reference.scene(reference.DENSE_SCENE)
    assert relations_of_map(map_tokens) == 63_912
    nano, tiny = SMARTConfig.preset("nano"), SMARTConfig.preset("tiny")
    scene = (tokens, agents, map_tokens)
    assert relations_of_agents(nano, *scene) == (2_275, 68_004, 2_874)
    assert relations_of_agents(tiny, *scene) == (3_142, 139_282, 13_658)


def relations_of_map(map_tokens: MapTokens) -> int:
    scene = torch.zeros_like(map_tokens.token)
    poses = Poses(xy=map_tokens.xy, heading=map_tokens.heading, group=scene)
    return len(radius_edges(poses, poses, 10.0)[0])


def relations_of_agents(
    config: SMARTConfig, tokens: MotionTokens, agents: AgentMetadata, map_tokens: MapTokens
) -> tuple[int, ...]:
    # The table counts all 18 marks; the last leads nowhere and is not read by `SMART.forward`.
    motion, scene = torch.zeros_like(tokens.xy), torch.zeros(1, dtype=torch.int64)
    nodes = AgentNodes.from_padded(tokens, agents, motion, scene)
    assert nodes.count == 692
    maps = MapMemory(
        xy=map_tokens.xy[None],
        heading=map_tokens.heading[None],
        valid=map_tokens.valid[None],
        features=torch.zeros(1, len(map_tokens.token), 1),
        keys_values=torch.zeros(1, len(map_tokens.token), 1, 1),
    )
    decoder = AgentDecoder(config, reference.vocabulary().end_corners).eval()
    seen = decoder.observe(nodes, maps)
    relations = (decoder.relate_to_past(nodes), seen.to_map, seen.to_agents)
    return tuple(relation.neighbors.num_edges for relation in relations)
