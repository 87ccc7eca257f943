"""The reference implementation's numbers, where its material is at hand."""

import pytest
import torch
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_MARKS, STEPS_PER_TOKEN
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import AgentMetadata, Trajectory
from catk_sim.dynamics import TokenDynamics
from catk_sim.geometry import se2
from catk_sim.tokens import (
    MotionVocabulary,
    cleaning,
    closest_among_top_k,
    closest_to_pose_among_top_k,
    recovery_token,
    token_distance,
    token_end,
    tokenize,
)
from catk_sim.tokens.matching import prepare
from tests.catk_sim.tokens import reference
from tests.shared import shared_path


@pytest.fixture(scope="module")
def vocabulary() -> MotionVocabulary:
    return reference.vocabulary()


def test_corners_of_the_tokens(vocabulary: MotionVocabulary) -> None:
    file = reference.arrays("reference_vocabularies")
    contours = torch.stack([file[f"agent_{kind}"] for kind in ("veh", "ped", "cyc")])
    # float32 at 60 m.
    torch.testing.assert_close(vocabulary.end_corners, contours[:, :, -1], atol=1e-5, rtol=0)


def test_filling_gaps() -> None:
    golden = reference.arrays(f"tok_{reference.PROTO_SCENARIO}_eval")
    folder = shared_path("data/womd_scenario_proto")
    [scenario] = open_scenarios(folder / "motion_data_one_scenario.tfrecord")
    present = scenario.log.valid[:, CURRENT_STEP]
    assert torch.equal(scenario.agents.agent_id[present], golden["raw_id"])
    filled = cleaning.fill_gaps(scenario.log)
    valid = golden["raw_valid_mask"]
    assert torch.equal(filled.valid[present], valid)
    xyz = torch.cat([filled.xy, filled.z[..., None]], dim=-1)[present] + scenario.origin
    # Theirs are float32 kilometres out.
    torch.testing.assert_close(
        xyz[valid], golden["raw_position"][valid].double(), atol=2e-3, rtol=0
    )
    velocity = golden["raw_velocity"][valid].double()
    torch.testing.assert_close(filled.velocity[present][valid], velocity, atol=1e-5, rtol=0)
    turn = se2.wrap_angle(filled.heading[present] - golden["raw_heading"].double())[valid]
    torch.testing.assert_close(turn, torch.zeros_like(turn), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scenario_id", reference.SCENARIOS)
def test_cleaning(scenario_id: str) -> None:
    golden = reference.arrays(f"tok_{scenario_id}_eval")
    log, agents = reference.log(scenario_id), reference.agents(scenario_id)
    assert torch.equal(cleaning.clean_headings(log).heading, golden["clean_heading_only"])
    prepared = prepare(log, agents)
    assert torch.equal(prepared.valid, golden["post_valid_mask_10hz"])
    assert torch.equal(
        prepared.heading[prepared.valid], golden["post_heading_10hz"][prepared.valid]
    )


@pytest.mark.parametrize("scenario_id", reference.SCENARIOS)
def test_tokenization(scenario_id: str, vocabulary: MotionVocabulary) -> None:
    golden = reference.arrays(f"tok_{scenario_id}_eval")
    centred = reference.arrays(f"tok_{scenario_id}_eval_centred")
    log, agents = reference.log(scenario_id), reference.agents(scenario_id)
    told = tokenize(log, agents, vocabulary)
    tokens = told.tokens
    assert torch.equal(tokens.valid, centred["valid_mask"])
    assert torch.equal(told.logged_valid, golden["gt_valid_raw"])
    assert torch.equal(told.logged_xy[told.logged_valid], centred["gt_pos_raw"][told.logged_valid])
    valid = tokens.valid
    # Near ties may differ and, after them, what follows; in these two scenarios none does.
    assert torch.equal(tokens.token[valid], centred["gt_idx"][valid])
    # The reference works in the scenario's frame, where float32 loses 0.01 mm a step.
    torch.testing.assert_close(tokens.xy[valid], centred["gt_pos"][valid], atol=1e-3, rtol=0)
    turn = se2.wrap_angle(tokens.heading - centred["gt_heading"])[valid]
    torch.testing.assert_close(turn, torch.zeros_like(turn), atol=1e-4, rtol=0)


def test_training_hides_what_is_far_from_the_sdc(vocabulary: MotionVocabulary) -> None:
    golden = reference.arrays(f"tok_{reference.PROTO_SCENARIO}_train")
    log = reference.log(reference.PROTO_SCENARIO)
    agents = reference.agents(reference.PROTO_SCENARIO)
    near = cleaning.limit_to_sdc(cleaning.fill_gaps(log), agents, radius=150.0)
    assert torch.equal(near.valid, golden["raw_valid_mask_150m"])
    told = tokenize(log, agents, vocabulary, sdc_radius=150.0)
    assert torch.equal(told.tokens.valid, golden["valid_mask"])
    # Made in global float32 coordinates, where 2.5 to 6.9 % of the choices flip at near ties.
    agrees = (told.tokens.token == golden["gt_idx"])[told.tokens.valid]
    assert agrees.float().mean() > 0.93


def test_training_takes_those_with_a_role_and_fills_up_by_lot(generator: torch.Generator) -> None:
    golden = reference.arrays(f"tok_{reference.PROTO_SCENARIO}_train")["train_mask_seed0"]
    log = reference.log(reference.PROTO_SCENARIO)
    agents = reference.agents(reference.PROTO_SCENARIO)
    near = cleaning.limit_to_sdc(cleaning.fill_gaps(log), agents)
    eligible = cleaning.train_mask(near, agents, max_agents=1000, generator=generator)
    drawn = cleaning.train_mask(near, agents, generator=generator)
    role = agents.is_sdc | agents.to_predict | agents.of_interest
    assert not (golden & ~eligible).any()
    assert not (drawn & ~eligible).any()
    assert (role & ~drawn).sum() == 0
    assert drawn.sum() == golden.sum()


@pytest.mark.parametrize("k", [1, 5, 32, 2048])
def test_first_choice_of_catk(k: int, vocabulary: MotionVocabulary) -> None:
    golden = reference.arrays(f"catk_first_step_{reference.PROTO_SCENARIO}")
    agent_type = golden["type"].to(torch.int64) + 1
    now = _pose(golden["pos_now"], golden["head_now"])
    then = _pose(golden["pos_next_gt"], golden["head_next_gt"])
    xy_local = se2.to_local(then[..., :2], now[..., :2], now[..., 2])
    turn = then[..., 2] - now[..., 2]
    has_log = golden["valid_next_gt"]
    logits = golden["logits"]
    distance = token_distance(vocabulary, agent_type, xy_local, turn)
    from_all = closest_among_top_k(logits, distance, k, has_log=has_log)
    from_few = closest_to_pose_among_top_k(
        logits, vocabulary, agent_type, xy_local, turn, k, has_log=has_log
    )
    assert torch.equal(from_all, golden[f"idx_K{k}"])
    assert torch.equal(from_few, golden[f"idx_K{k}"])
    reached = token_end(vocabulary, agent_type, from_all, now)
    # The reference's own coordinates are float32 kilometres out.
    expected = golden[f"next_pose_K{k}"].double()
    torch.testing.assert_close(reached[..., :2], expected[..., :2], atol=2e-3, rtol=0)
    assert se2.wrap_angle(reached[..., 2] - expected[..., 2]).abs().max() < 1e-3


@pytest.mark.parametrize("k", [1, 5, 32, 2048])
def test_catk_rollout_on_fixed_logits(k: int, vocabulary: MotionVocabulary) -> None:
    golden = reference.arrays(f"fixed_logits_rollout_{reference.PROTO_SCENARIO}")
    agents = reference.agents(reference.PROTO_SCENARIO)
    visited = _pose(golden[f"K{k}_pred_pos"], golden[f"K{k}_pred_head"])
    simulated = golden[f"K{k}_pred_valid"][:, HISTORY_MARKS - 1]
    logged, logged_valid = _logged_marks()
    state = _start(visited[:, HISTORY_MARKS - 1], simulated)
    agreed = simulated.clone()
    for decision, logits in enumerate(golden["logits"]):
        mark = HISTORY_MARKS + decision
        now = _pose(state.xy[:, 0], state.heading[:, 0])
        distance = _distance(vocabulary, agents, now, logged[:, mark])
        token = closest_among_top_k(logits, distance, k, has_log=logged_valid[:, mark])
        agreed &= token == golden[f"K{k}_pred_idx"][:, mark]
        motion = TokenDynamics(vocabulary).forward(state, token, agents)
        steps = slice(decision * STEPS_PER_TOKEN, (decision + 1) * STEPS_PER_TOKEN)
        expected = golden[f"K{k}_pred_traj_10hz"][:, steps].double()
        # The reference's coordinates are float32 kilometres out, over 16 decisions.
        torch.testing.assert_close(motion.xy[agreed], expected[agreed], atol=5e-2, rtol=0)
        turn = se2.wrap_angle(motion.heading - golden[f"K{k}_pred_head_10hz"][:, steps])[agreed]
        torch.testing.assert_close(turn, torch.zeros_like(turn), atol=2e-2, rtol=0)
        state = motion.at(-1)
    # Among few tokens nothing ties. Among many the choice may flip, and then the rollouts part.
    assert agreed.sum() >= (0.7 if k > 5 else 1.0) * simulated.sum()


@pytest.mark.parametrize("k", [1, 5, 32, 2048])
def test_catk_choices_and_recovery_in_visited_states(k: int, vocabulary: MotionVocabulary) -> None:
    golden = reference.arrays(f"fixed_logits_rollout_{reference.PROTO_SCENARIO}")
    agents = reference.agents(reference.PROTO_SCENARIO)
    visited = _pose(golden[f"K{k}_pred_pos"], golden[f"K{k}_pred_head"])
    simulated = golden[f"K{k}_pred_valid"][:, HISTORY_MARKS - 1]
    logged, logged_valid = _logged_marks()
    for decision, logits in enumerate(golden["logits"]):
        mark = HISTORY_MARKS + decision
        now, then = visited[:, mark - 1], logged[:, mark]
        has_log = logged_valid[:, mark]
        distance = _distance(vocabulary, agents, now, then)
        token = closest_among_top_k(logits, distance, k, has_log=has_log)
        expected = golden[f"K{k}_pred_idx"][:, mark]
        _check_near_ties(distance, token, expected, simulated & has_log)
        assert torch.equal(token[simulated & ~has_log], expected[simulated & ~has_log])
        label = recovery_token(vocabulary, agents.type, now, then)
        labelled = golden[f"K{k}_target_valid"][:, decision]
        _check_near_ties(distance, label, golden[f"K{k}_target_idx"][:, decision], labelled)


def _distance(
    vocabulary: MotionVocabulary, agents: AgentMetadata, now: Tensor, then: Tensor
) -> Tensor:
    xy_local = se2.to_local(then[..., :2], now[..., :2], now[..., 2])
    return token_distance(vocabulary, agents.type, xy_local, then[..., 2] - now[..., 2])


def _check_near_ties(distance: Tensor, ours: Tensor, theirs: Tensor, where: Tensor) -> None:
    loss = distance.gather(-1, theirs[:, None]) - distance.gather(-1, ours[:, None])
    # The reference measures in float32, kilometres out.
    assert loss[where].abs().max() < 2e-3


def _start(pose: Tensor, valid: Tensor) -> Trajectory:
    return Trajectory(
        xy=pose[:, None, :2],
        z=torch.zeros_like(pose[:, :1]),
        heading=pose[:, None, 2],
        velocity=torch.zeros_like(pose[:, None, :2]),
        valid=valid[:, None],
    )


def _logged_marks() -> tuple[Tensor, Tensor]:
    file = reference.arrays(f"tok_{reference.PROTO_SCENARIO}_eval")
    return _pose(file["gt_pos_raw"], file["gt_head_raw"]), file["gt_valid_raw"]


def _pose(xy: Tensor, heading: Tensor) -> Tensor:
    return torch.cat([xy, heading[..., None]], dim=-1).double()
