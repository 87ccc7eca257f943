"""CAT-K: what the rollout oracle visits, and what is learnt from it."""

import pytest
import torch

from catk_sim.constants import HISTORY_MARKS
from catk_sim.tokens import MotionVocabulary
from policies.smart.model import SMART
from trainers.bc import token_loss
from trainers.catk import RolloutOracle, VisitedStates, catk_loss
from trainers.configs import FitConfig
from trainers.scenes import Scene

CPU = torch.device("cpu")


def drive(model: SMART, batch: Scene, k: int) -> VisitedStates:
    return RolloutOracle(model.vocabulary, k, CPU).drive(model, batch)


def test_with_one_token_the_rollout_is_greedy(model: SMART, batch: Scene) -> None:
    visited = drive(model, batch, k=1).tokens
    with torch.no_grad():
        logits = model.eval()(visited, batch.scenario.agents, batch.map_tokens)
    driven = visited.valid[..., HISTORY_MARKS:]
    greedy = logits.argmax(-1)[driven]
    assert torch.equal(visited.token[..., HISTORY_MARKS:][driven], greedy)


def test_with_all_tokens_the_rollout_is_the_log_told_in_tokens(
    model: SMART, batch: Scene, vocabulary: MotionVocabulary
) -> None:
    visited = drive(model, batch, k=vocabulary.num_tokens).tokens
    logged = batch.tokenized.tokens
    whole = logged.valid[..., 1:].all(-1)
    assert whole.sum() >= 2
    # Not the tokens themselves: two of them stand still.
    turn = visited.heading[whole] - logged.heading[whole]
    torch.testing.assert_close(turn.sin(), torch.zeros_like(turn), atol=1e-4, rtol=0)
    torch.testing.assert_close(visited.xy[whole], logged.xy[whole], atol=1e-3, rtol=0)


def test_with_all_tokens_what_is_learnt_is_what_was_played(
    model: SMART, batch: Scene, vocabulary: MotionVocabulary
) -> None:
    visited = drive(model, batch, k=vocabulary.num_tokens)
    learnt = visited.recovery_valid & batch.learned[..., None]
    assert learnt.sum() > 0
    row = vocabulary.type_index(batch.scenario.agents.type)[..., None]
    # Not the tokens themselves: two of them stand still.
    played = vocabulary.end_poses[row, visited.tokens.token[..., HISTORY_MARKS:]]
    recovering = vocabulary.end_poses[row, visited.recovery_token]
    torch.testing.assert_close(recovering[learnt], played[learnt])


def test_an_agent_that_the_log_has_lost_takes_its_most_likely_token(
    model: SMART, batch: Scene
) -> None:
    visited = drive(model, batch, k=4)
    with torch.no_grad():
        logits = model.eval()(visited.tokens, batch.scenario.agents, batch.map_tokens)
    lost = visited.tokens.valid[..., HISTORY_MARKS:] & ~visited.recovery_valid
    assert lost.sum() > 0
    token = visited.tokens.token[..., HISTORY_MARKS:]
    assert torch.equal(token[lost], logits.argmax(-1)[lost])


def test_choices_are_among_the_most_likely(model: SMART, batch: Scene) -> None:
    visited = drive(model, batch, k=4).tokens
    with torch.no_grad():
        logits = model.eval()(visited, batch.scenario.agents, batch.map_tokens)
    token = visited.token[..., HISTORY_MARKS:]
    likely = (logits.topk(4).indices == token[..., None]).any(-1)
    assert likely[visited.valid[..., HISTORY_MARKS:]].all()


def test_padding_is_never_driven_or_learnt(model: SMART, batch: Scene) -> None:
    visited = drive(model, batch, k=4)
    absent = ~batch.scenario.agents.valid
    assert absent.sum() > 0
    assert not visited.tokens.valid[absent].any()
    assert not visited.recovery_valid[absent].any()


def test_the_oracle_leaves_the_model_in_its_mode_and_without_gradient(
    model: SMART, batch: Scene
) -> None:
    model.train()
    visited = drive(model, batch, k=4)
    assert model.training
    assert not visited.tokens.xy.requires_grad


def test_the_gradient_reaches_what_is_fine_tuned(model: SMART, batch: Scene) -> None:
    oracle = RolloutOracle(model.vocabulary, 4, CPU)
    loss, numbers = catk_loss(model, batch, oracle, FitConfig())
    loss.backward()
    assert numbers["moves"] > 0
    assert all(parameter.grad is not None for parameter in model.fine_tuning_parameters())


def test_the_loss_is_that_of_the_visited_states_read_anew(model: SMART, batch: Scene) -> None:
    oracle = RolloutOracle(model.vocabulary, 4, CPU)
    trained, config = model.eval().fine_tuning_parameters(), FitConfig(label_smoothing=0.1)
    loss, numbers = catk_loss(model, batch, oracle, config)
    visited = oracle.drive(model, batch)
    anew, expected = token_loss(
        model, batch, visited.tokens, visited.recovery_token, visited.recovery_valid, config
    )
    assert numbers == pytest.approx(expected)
    torch.testing.assert_close(loss, anew, atol=1e-4, rtol=0)
    for mine, theirs in zip(
        torch.autograd.grad(loss, trained), torch.autograd.grad(anew, trained), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-2)
