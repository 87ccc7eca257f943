import math
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.geometry import se2
from catk_sim.tokens import MotionTokens
from policies.smart.agent_decoder import Situation
from policies.smart.attention import RelationalAttention
from policies.smart.config import SMARTConfig
from policies.smart.map_tokens import MapTokens
from policies.smart.model import SMART, _even_slices
from policies.smart.nodes import AgentNodes
from tests.policies.smart.examples import (
    VOCABULARY,
    Scene,
    at,
    micro,
    random_scene,
    step_by_step,
    until,
)

MICRO = micro()
Posed = TypeVar("Posed", MotionTokens, MapTokens)
SEEDS = st.integers(0, 10_000)


def predicted(scene: Scene) -> Tensor:
    """Where logits mean something."""
    return scene[0].valid[..., 1:17]


@pytest.mark.parametrize(
    ("preset", "parameters", "fine_tuned"),
    [
        ("nano", 1_161_344, 754_240),
        ("mini", 3_433_984, 2_286_848),
        ("tiny", 7_001_024, 5_344_384),
    ],
)
def test_a_preset_has_the_published_number_of_parameters(
    preset: str, parameters: int, fine_tuned: int
) -> None:
    tokens = VOCABULARY.poses[:, :1].expand(3, 2048, 6, 3)
    model = SMART(SMARTConfig.preset(preset), VOCABULARY.replace(poses=tokens))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in model.fine_tuning_parameters()) == fine_tuned


@settings(max_examples=10)
@given(seed=SEEDS)
def test_logits_step_by_step_equal_those_of_all_marks_at_once(seed: int) -> None:
    scene = random_scene(seed, batch=(2,))
    with torch.no_grad():
        together, stepped = MICRO(*scene), step_by_step(MICRO, scene)
    valid = predicted(scene)
    torch.testing.assert_close(stepped[valid], together[valid], atol=1e-9, rtol=0)


def test_logits_step_by_step_equal_those_of_all_marks_at_once_in_float32() -> None:
    scene, model = random_scene(1, dtype=torch.float32), micro(torch.float32)
    with torch.no_grad():
        together, stepped = model(*scene), step_by_step(model, scene)
    valid = predicted(scene)
    torch.testing.assert_close(stepped[valid], together[valid], atol=1e-4, rtol=0)


@pytest.mark.parametrize("copied", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_that_has_driven_can_be_copied(copied: Callable[[SMART], SMART]) -> None:
    scene = random_scene(1, dtype=torch.float32)
    model = SMART(SMARTConfig.preset("nano"), VOCABULARY.map(torch.Tensor.float)).eval()
    with torch.no_grad():
        driven = step_by_step(model, scene)
        assert torch.equal(step_by_step(copied(model), scene), driven)


@pytest.mark.parametrize(("num_agents", "num_map_tokens"), [(1, 30), (4, 0), (1, 0), (1, 1)])
def test_small_scenes_score_alike_step_by_step(num_agents: int, num_map_tokens: int) -> None:
    scene = random_scene(2, num_agents=num_agents, num_map_tokens=num_map_tokens)
    with torch.no_grad():
        together, stepped = MICRO(*scene), step_by_step(MICRO, scene)
    valid = predicted(scene)
    assert valid.any()
    torch.testing.assert_close(stepped[valid], together[valid], atol=1e-9, rtol=0)


def test_a_scene_without_agents_scores_nothing() -> None:
    tokens, agents, map_tokens = random_scene(0)
    absent = tokens.replace(valid=torch.zeros_like(tokens.valid))
    with torch.no_grad():
        assert MICRO(absent, agents, map_tokens).isfinite().all()
        logits, _ = MICRO.step(at(absent, 0), agents, MICRO.remember(agents, map_tokens))
    assert logits.shape == (5, VOCABULARY.num_tokens)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_a_batch_acts_as_its_members(seed: int) -> None:
    scene = random_scene(seed, batch=(3,))
    with torch.no_grad():
        together = MICRO(*scene)
        alone = torch.stack([MICRO(*(part.select(i) for part in scene)) for i in range(3)])
    valid = predicted(scene)
    torch.testing.assert_close(together[valid], alone[valid], atol=1e-9, rtol=0)


def test_rollouts_act_as_scenes_of_their_own() -> None:
    tokens, agents, map_tokens = random_scene(3, batch=(2,))
    twice = tokens.repeat(3)
    # The rollouts part at mark 2.
    moved = twice.xy.clone()
    moved[1, ..., 2:, :] += 1
    rollouts = twice.replace(xy=moved)
    with torch.no_grad():
        shared = MICRO(rollouts, agents.repeat(3), map_tokens.repeat(3))
        alone = torch.stack([MICRO(rollouts.select(i), agents, map_tokens) for i in range(3)])
        memory = MICRO.remember(agents, map_tokens).repeat(3)
        stepped = []
        for mark in range(17):
            logits, memory = MICRO.step(at(rollouts, mark), agents.repeat(3), memory)
            stepped.append(logits)
    valid = rollouts.valid[..., 1:17]
    assert (shared[0] != shared[1]).any()
    torch.testing.assert_close(shared[valid], alone[valid], atol=1e-9, rtol=0)
    stepwise = torch.stack(stepped[1:], dim=-2)
    torch.testing.assert_close(stepwise[valid], alone[valid], atol=1e-9, rtol=0)


def test_rollouts_share_one_encoding_of_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, agents, map_tokens = random_scene(3, batch=(2,))
    model, encoded = micro(), []
    encode = model.map_encoder.forward
    monkeypatch.setattr(
        model.map_encoder, "forward", lambda maps: encoded.append(maps.xy.shape) or encode(maps)
    )
    with torch.no_grad():
        model(tokens.repeat(3), agents.repeat(3), map_tokens.repeat(3))
        memory = model.remember(agents, map_tokens)
        repeated = memory.repeat(3)
        _, later = model.step(at(tokens.repeat(3), 0), agents.repeat(3), repeated)
    assert encoded == [(2, 30, 2)] * 2
    keys_values = memory.map_memory.keys_values
    assert later.map_memory.keys_values.data_ptr() == keys_values.data_ptr()


@settings(max_examples=10)
@given(seed=SEEDS, angle=st.floats(-3, 3), east=st.floats(-1000, 1000))
def test_moving_and_turning_a_scene_changes_no_logits(seed: int, angle: float, east: float) -> None:
    tokens, agents, map_tokens = random_scene(seed)
    turn, shift = torch.tensor(angle, dtype=torch.float64), torch.tensor([east, -5.0]).double()

    def moved(record: Posed) -> Posed:
        xy = se2.rotate(record.xy, turn.expand(record.heading.shape)) + shift
        return record.replace(xy=xy, heading=se2.wrap_angle(record.heading + turn))

    with torch.no_grad():
        before = MICRO(tokens, agents, map_tokens)
        after = MICRO(moved(tokens), agents, moved(map_tokens))
    valid = tokens.valid[..., 1:17]
    torch.testing.assert_close(after[valid], before[valid], atol=1e-7, rtol=0)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_permuting_agents_permutes_logits(seed: int) -> None:
    tokens, agents, map_tokens = random_scene(seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        before = MICRO(tokens, agents, map_tokens)[order]
        after = MICRO(
            tokens.map(lambda tensor: tensor[order]),
            agents.map(lambda tensor: tensor[order]),
            map_tokens,
        )
    valid = tokens.valid[order][..., 1:17]
    torch.testing.assert_close(after[valid], before[valid], atol=1e-9, rtol=0)


@settings(max_examples=6)
@given(seed=SEEDS)
def test_what_is_not_valid_changes_nothing(seed: int) -> None:
    tokens, agents, map_tokens = random_scene(seed)
    elsewhere = tokens.replace(
        xy=tokens.xy.where(tokens.valid[..., None], 7.0),
        heading=tokens.heading.where(tokens.valid, 1.0),
        token=tokens.token.where(tokens.valid, 3),
    )
    other_map = map_tokens.replace(
        xy=map_tokens.xy.where(map_tokens.valid[..., None], 2.0),
        token=map_tokens.token.where(map_tokens.valid, 5),
    )
    with torch.no_grad():
        before = MICRO(tokens, agents, map_tokens)
        after = MICRO(elsewhere, agents, other_map)
        stepped = step_by_step(MICRO, (elsewhere, agents, other_map))
    valid = tokens.valid[..., 1:17]
    torch.testing.assert_close(after[valid], before[valid], atol=1e-9, rtol=0)
    torch.testing.assert_close(stepped[valid], before[valid], atol=1e-9, rtol=0)


def test_logits_depend_on_the_past_only() -> None:
    tokens, agents, map_tokens = random_scene(4)
    with torch.no_grad():
        whole = MICRO(tokens, agents, map_tokens)
        begun = MICRO(until(tokens, 8), agents, map_tokens)
    assert begun.shape[-2] == 7
    valid = tokens.valid[..., 1:8]
    torch.testing.assert_close(begun[valid], whole[..., :7, :][valid], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["token", "heading", "xy"])
def test_logits_depend_on_every_part_of_a_state(name: str) -> None:
    tokens, agents, map_tokens = random_scene(5)
    changed = getattr(tokens, name).clone()
    changed[0, 5] += 1
    with torch.no_grad():
        before = MICRO(tokens, agents, map_tokens)
        after = MICRO(tokens.replace(**{name: changed}), agents, map_tokens)
    assert (before[0, 4] != after[0, 4]).any()


def test_an_agent_of_another_type_is_simulated_as_a_vehicle() -> None:
    tokens, agents, map_tokens = random_scene(6)
    with torch.no_grad():
        vehicle, other, unset, cyclist = (
            MICRO(tokens, agents.replace(type=torch.full((5,), kind)), map_tokens)
            for kind in (1, 4, 0, 3)
        )
    valid = tokens.valid[..., 1:17]
    assert torch.equal(vehicle[valid], other[valid])
    assert torch.equal(vehicle[valid], unset[valid])
    assert not torch.equal(vehicle[valid], cyclist[valid])


def test_every_parameter_learns() -> None:
    scene = random_scene(7, batch=(2,), num_agents=8)
    model = micro().train()
    model(*scene)[predicted(scene)].square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_fine_tuning_leaves_the_rest_alone() -> None:
    model = micro()
    trained = {id(parameter) for parameter in model.fine_tuning_parameters()}
    frozen = [name for name, p in model.named_parameters() if id(p) not in trained]
    assert {name.split(".")[0] for name in frozen} == {"map_encoder", "decoder"}
    assert not any(".blocks." in name for name in frozen)


def test_dropout_acts_in_training_only() -> None:
    scene, model = random_scene(8), micro()
    with torch.no_grad():
        assert torch.equal(model(*scene), model(*scene))
        model.train()
        assert not torch.equal(model(*scene), model(*scene))


def test_history_is_dropped_in_training_only() -> None:
    scene, model = random_scene(8), micro()
    for module in model.modules():
        if isinstance(module, RelationalAttention):
            module.dropout = 0.0
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        calm = model(*scene)
        model.train()
        assert not torch.equal(model(*scene), calm)
        model.decoder.history_dropout = 0.0
        torch.testing.assert_close(model(*scene), calm)


def test_a_dropped_mark_neither_sees_its_past_nor_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens, agents, _ = random_scene(8, num_agents=1)
    everywhere = tokens.replace(valid=torch.ones_like(tokens.valid))
    maps = torch.zeros(1, dtype=torch.int64)
    nodes = AgentNodes.from_padded(everywhere, agents, torch.zeros_like(tokens.xy), maps)
    model = micro()
    monkeypatch.setattr(model.decoder, "_keep", lambda valid: valid & (nodes.mark != 3))
    neighbors = model.decoder._relate_in_time(nodes).neighbors
    real = ~neighbors.is_padding
    pairs = set(
        zip(neighbors.slot_destination[real].tolist(), neighbors.source[real].tolist(), strict=True)
    )
    assert pairs == {
        (mark, mark - back)
        for mark in range(18)
        for back in range(1, 5)
        if mark >= back and 3 not in (mark, mark - back)
    }


def test_bfloat16_is_finite_and_close() -> None:
    scene, model = random_scene(9, dtype=torch.float32), micro(torch.float32)
    with torch.no_grad():
        exact = model(*scene)
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(*scene)[predicted(scene)].float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(*scene)
    valid = predicted(scene)
    # bfloat16 keeps three digits; logits are of the size of 1.
    torch.testing.assert_close(rough[valid].float(), exact[valid], atol=0.15, rtol=0)


def test_the_last_mark_is_not_read() -> None:
    tokens, agents, map_tokens = random_scene(10)
    with torch.no_grad():
        whole = MICRO(tokens, agents, map_tokens)
        without = MICRO(until(tokens, 17), agents, map_tokens)
    assert whole.shape[-2] == 16
    assert torch.equal(whole, without)


def test_a_move_from_where_the_agent_was_not_valid_counts_as_none() -> None:
    tokens, agents, map_tokens = random_scene(11)
    valid = torch.ones_like(tokens.valid)
    valid[0, 0] = False
    late = tokens.replace(valid=valid)
    motion = torch.cat([torch.zeros(5, 1, 2), tokens.xy.diff(dim=-2)], dim=-2).double()
    motion[0, 1] = 0
    with torch.no_grad():
        default = MICRO(late, agents, map_tokens)
        told = MICRO(late, agents, map_tokens, motion=motion)
        motion[0, 1] = math.pi
        otherwise = MICRO(late, agents, map_tokens, motion=motion)
    assert torch.equal(default, told)
    assert not torch.equal(default, otherwise)


def drive_record(model: SMART, scene: Scene) -> list[Situation]:
    """Goes through marks 0 to 16, and keeps what is observed."""
    tokens, agents, map_tokens = scene
    record: list[Situation] = []
    with torch.no_grad():
        memory = model.remember(agents, map_tokens)
        for mark in range(17):
            _, memory = model.step(at(tokens, mark), agents, memory, record=record)
    return record


@settings(max_examples=5)
@given(seed=SEEDS)
def test_what_a_rollout_observed_need_not_be_computed_again(seed: int) -> None:
    """Loss and gradients of what is fine-tuned are those of the plain parallel pass."""
    scene, model = random_scene(seed, batch=(2,)), micro()
    trained = model.fine_tuning_parameters()
    record = drive_record(model, scene)
    map_features = model.remember_map(scene[2]).features.detach()
    features, nodes = model.features_of(record, map_features)
    plain = model.features(*(scene[0].map(lambda tensor: tensor[:, :, :17]), *scene[1:]))
    wanted = plain[nodes.entry, nodes.agent, nodes.mark]
    assert nodes.count == scene[0].valid[..., :17].sum()
    torch.testing.assert_close(features, wanted, atol=1e-9, rtol=0)
    direction = torch.rand(nodes.count, VOCABULARY.num_tokens, dtype=torch.float64)
    ours, expected = (
        torch.autograd.grad((model.head(found) * direction).sum(), trained, allow_unused=True)
        for found in (features, wanted)
    )
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("at_once", [1, 2, 5, None])
def test_logits_do_not_depend_on_how_many_are_worked_on_at_once(at_once: int | None) -> None:
    tokens, agents, map_tokens = random_scene(3, batch=(2,))
    shift = torch.arange(5.0)[:, None, None, None, None].double()
    rollouts = tokens.repeat(5).replace(xy=tokens.xy + shift)
    with torch.no_grad():
        memory, logits = MICRO.remember(agents, map_tokens).repeat(5), []
        for mark in range(4):
            scores, memory = MICRO.step(
                at(rollouts, mark), agents.repeat(5), memory, at_once=at_once
            )
            logits.append(scores)
        alone = step_by_step(MICRO, (rollouts.select(4), agents, map_tokens))
    valid = tokens.valid[..., 1:4]
    found = torch.stack(logits[1:], dim=-2)[4]
    torch.testing.assert_close(found[valid], alone[..., :3, :][valid], atol=1e-9, rtol=0)
    assert memory.past.keys_values.shape[0] == 5


def test_large_scenes_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked on at a time takes little memory."""
    model = SMART(SMARTConfig.preset("tiny"), VOCABULARY)
    tokens, agents, map_tokens = random_scene(0, num_agents=50, num_map_tokens=2100)
    everywhere = tokens.replace(valid=torch.ones_like(tokens.valid))
    monkeypatch.setattr(
        model.map_encoder, "forward", lambda maps: torch.zeros(*maps.valid.shape, 128)
    )
    memory = model.remember(agents, map_tokens.map(lambda tensor: tensor[None])).repeat(32)
    assert 1 <= model._at_once(at(everywhere.repeat(32), 0), memory) <= 16


@pytest.mark.parametrize(
    ("count", "size", "parts"),
    [(32, 13, [10, 11, 11]), (5, 5, [5]), (5, 1, [1] * 5), (5, 4, [2, 3]), (0, 3, [0])],
)
def test_parts_are_about_equally_large(count: int, size: int, parts: list[int]) -> None:
    slices = _even_slices(count, size)
    assert [part.stop - part.start for part in slices] == parts
    assert [part.start for part in slices[1:]] == [part.stop for part in slices[:-1]]
    assert (slices[0].start, slices[-1].stop) == (0, count)
