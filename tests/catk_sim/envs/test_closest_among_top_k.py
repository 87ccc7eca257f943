from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.envs import ClosestAmongTopK, WaymoVectorEnv
from catk_sim.geometry.boxes import box_corners
from catk_sim.geometry.se2 import to_global
from catk_sim.tokens.matching import tokenize
from tests.catk_sim.envs import variations
from tests.catk_sim.tokens import reference
from tests.scenes import arc_vocabulary, straight_road

VOCABULARY = arc_vocabulary()
NUM_TOKENS = VOCABULARY.num_tokens


def make(k: int, scenarios: list[Scenario], **changes: Any) -> ClosestAmongTopK:
    arguments: dict[str, Any] = {
        "data": None,
        "action": "token",
        "vocabulary": VOCABULARY,
        "autoreset_mode": "Disabled",
        "output": "torch",
        "observation": "minimal",
        "report": (),
        **changes,
    }
    env = gymnasium.make_vec("CatK-Waymo-v0", num_envs=len(scenarios), **arguments)
    wrapped = ClosestAmongTopK(env, k)
    wrapped.reset(options={"scenario": collate(scenarios)})
    return wrapped


def waymo(env: ClosestAmongTopK) -> WaymoVectorEnv:
    inner = env.unwrapped
    assert isinstance(inner, WaymoVectorEnv)
    return inner


def random_logits(env: ClosestAmongTopK, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*waymo(env).state.controlled.shape, NUM_TOKENS, generator=generator)


@pytest.fixture
def scenarios() -> list[Scenario]:
    return [straight_road(), variations.crowd(6)]


def test_with_one_candidate_it_is_greedy(scenarios: list[Scenario]) -> None:
    env = make(1, scenarios)
    for step in range(16):
        logits = random_logits(env, step)
        present = waymo(env).state.current.valid[..., 0]
        *_, info = env.step(logits)
        torch.testing.assert_close(info["token"][present], logits.argmax(-1)[present])


def test_with_all_candidates_it_retells_the_log(scenarios: list[Scenario]) -> None:
    env = make(NUM_TOKENS, scenarios)
    batch = waymo(env).state.scenario
    told = tokenize(batch.log, batch.agents, VOCABULARY)
    for mark in range(16):
        *_, info = env.step(random_logits(env, mark))
        valid = info["recovery_valid"]
        torch.testing.assert_close(valid, told.tokens.valid[..., 2 + mark])
        torch.testing.assert_close(info["token"][valid], info["recovery_token"][valid])
        torch.testing.assert_close(info["token"][valid], told.tokens.token[..., 2 + mark][valid])


def test_the_choice_is_the_nearest_of_the_likely(scenarios: list[Scenario]) -> None:
    env = make(8, scenarios)
    start = waymo(env).state.current
    logits = random_logits(env)
    *_, info = env.step(logits)
    likely = logits[0, 0].topk(8).indices
    # The sdc drives east at 10 m/s, and is at (-30, -2) at the current step: 5 m on lies the log.
    goal = box_corners(torch.tensor([-25.0, -2.0]), torch.tensor(0.0), VOCABULARY.size[0])
    ends = to_global(VOCABULARY.end_corners[0], start.xy[0, 0], start.heading[0, 0])
    distance = (ends - goal).norm(dim=-1).mean(-1)
    assert info["token"][0, 0] == likely[distance[likely].argmin()]
    assert info["recovery_token"][0, 0] == distance.argmin()


def test_an_agent_without_a_next_logged_position_takes_its_most_likely_token() -> None:
    env = make(32, [variations.short(variations.crowd(6))])
    logits = random_logits(env)
    present = waymo(env).state.current.valid[..., 0]
    *_, info = env.step(logits)
    torch.testing.assert_close(info["token"][present], logits.argmax(-1)[present])
    assert not info["recovery_valid"].any()


def test_the_recovery_token_does_not_depend_on_the_policy(scenarios: list[Scenario]) -> None:
    labels = []
    for seed in (0, 1):
        env = make(3, scenarios)
        *_, info = env.step(random_logits(env, seed))
        labels.append(info["recovery_token"][info["recovery_valid"]])
    torch.testing.assert_close(*labels)


def test_recovery_is_measured_from_the_state_before_the_step() -> None:
    env = make(1, [straight_road()])
    logits = torch.zeros(1, 3, NUM_TOKENS)
    logits[..., 0] = 1  # Stand still, so that the log runs ahead of the sdc, 5 m more each time.
    tokens = []
    for _ in range(3):
        *_, info = env.step(logits)
        tokens.append(info["recovery_token"][0, 0])
    ahead = VOCABULARY.end_poses[0, torch.stack(tokens), 0]
    # The fastest token gets 7.5 m.
    torch.testing.assert_close(ahead, torch.tensor([5.0, 7.5, 7.5]), atol=0.6, rtol=0)


def test_labels_of_an_episode_at_once_are_those_of_its_steps(scenarios: list[Scenario]) -> None:
    env, silent = make(4, scenarios), make(4, scenarios)
    silent.labels = False
    visited, labels, valid = [], [], []
    for step in range(16):
        visited.append(waymo(silent).state.current)
        *_, info = env.step(random_logits(env, step))
        *_, unlabelled = silent.step(random_logits(silent, step))
        assert "recovery_token" not in unlabelled
        torch.testing.assert_close(info["recovery_valid"], unlabelled["recovery_valid"])
        labels.append(info["recovery_token"])
        valid.append(info["recovery_valid"])
    matters = torch.stack(valid, dim=-1)
    found = silent.recovery_tokens(Trajectory.join(visited), matters)
    torch.testing.assert_close(found[matters], torch.stack(labels, dim=-1)[matters])
    assert matters.any()


def test_agents_that_are_not_controlled_have_no_recovery(scenarios: list[Scenario]) -> None:
    env = make(4, scenarios, controlled=lambda scenario: scenario.agents.is_sdc)
    *_, info = env.step(random_logits(env))
    torch.testing.assert_close(info["recovery_valid"], waymo(env).state.scenario.agents.is_sdc)


def test_the_log_follows_a_world_that_is_reset(scenarios: list[Scenario]) -> None:
    given: dict[str, Any] = {"data": scenarios, "output": "numpy", "max_agents": 6}
    env = make(NUM_TOKENS, scenarios, **given)
    fresh = make(NUM_TOKENS, scenarios, **given)
    logits = np.zeros((2, 6, NUM_TOKENS), dtype=np.float32)
    env.step(logits)
    swapped = {"scenario_index": [1, 1], "reset_mask": np.array([True, False])}
    env.reset(options=swapped)
    fresh.reset(options={"scenario_index": [1, 1]})
    *_, info = env.step(logits)
    *_, expected = fresh.step(logits)
    np.testing.assert_array_equal(info["token"][0], expected["token"][0])
    assert info["_token"].all()


def test_worlds_that_restart_have_no_recovery(scenarios: list[Scenario]) -> None:
    env = make(4, scenarios, data=scenarios, horizon=5, autoreset_mode="NextStep", output="numpy")
    logits = random_logits(env).numpy()
    *_, first = env.step(logits)
    assert first["recovery_valid"].any()
    *_, second = env.step(logits)
    assert not second["recovery_valid"].any()
    assert not second["_token"].any()


def test_infos_have_a_row_for_every_row_of_logits(scenarios: list[Scenario]) -> None:
    env, exact = make(4, scenarios, max_agents=9), make(4, scenarios)
    logits = random_logits(env)
    num_agents = logits.shape[1]
    wide = torch.nn.functional.pad(logits, (0, 0, 0, 9 - num_agents))
    *_, info = env.step(wide)
    *_, expected = exact.step(logits)
    for name in ("token", "recovery_token", "recovery_valid"):
        assert info[name].shape == (2, 9)
        assert torch.equal(info[name][:, :num_agents], expected[name])
    assert not info["recovery_valid"][:, num_agents:].any()


def test_it_refuses_an_environment_without_tokens_for_every_agent() -> None:
    for changes in ({"action": "delta"}, {"controlled": "sdc"}):
        with pytest.raises(ValueError, match="one action per agent"):
            make(4, [straight_road()], **changes)
    with pytest.raises(ValueError, match="k must be"):
        make(NUM_TOKENS + 1, [straight_road()])


def test_a_step_never_waits_for_the_device(scenarios: list[Scenario]) -> None:
    # Tensors on the meta device have no values, so whoever asks for one fails.
    env = make(4, scenarios, device="meta")
    env.step(random_logits(env))
    _, reward, terminated, truncated, info = env.step(random_logits(env))
    assert reward.is_meta
    assert terminated.is_meta
    assert truncated.is_meta
    assert info["token"].shape == (2, 6)
    assert all(value.is_meta for value in info.values())


@pytest.mark.parametrize("k", [1, 32])
def test_it_rolls_out_as_the_reference_does(k: int) -> None:
    golden = reference.arrays(f"fixed_logits_rollout_{reference.PROTO_SCENARIO}")
    log, agents = (
        reference.log(reference.PROTO_SCENARIO),
        reference.agents(reference.PROTO_SCENARIO),
    )
    scenario = straight_road().replace(
        log=log, agents=agents, log_size=agents.size[:, None].expand(-1, 91, -1)
    )
    env = make(k, [scenario], vocabulary=reference.vocabulary(), dtype=torch.float64)
    agreed = controlled = waymo(env).state.controlled[0]
    assert torch.equal(controlled, golden[f"K{k}_pred_valid"][:, 1])
    labelled = same_labels = 0
    for decision, logits in enumerate(golden["logits"]):
        *_, info = env.step(logits[None].double())
        # Labels are compared where both have come the same way.
        valid = info["recovery_valid"][0]
        assert torch.equal(valid, golden[f"K{k}_target_valid"][:, decision])
        same = info["recovery_token"][0] == golden[f"K{k}_target_idx"][:, decision]
        labelled += int((valid & agreed).sum())
        same_labels += int((same & valid & agreed).sum())
        agreed = agreed & (info["token"][0] == golden[f"K{k}_pred_idx"][:, 2 + decision])
    # The reference measures in float32, kilometres out: where many tokens nearly tie a choice may
    # flip, and then the rollouts part.
    assert agreed.sum() >= (0.7 if k > 5 else 1.0) * controlled.sum()
    assert same_labels >= 0.97 * labelled
