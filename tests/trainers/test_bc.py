import pytest
import torch

from catk_sim.constants import HISTORY_MARKS
from policies.smart.model import SMART
from trainers.bc import behavior_cloning_loss
from trainers.configs import FitConfig
from trainers.scenes import Scene


def test_the_loss_starts_near_that_of_guessing(model: SMART, batch: Scene) -> None:
    loss, _ = behavior_cloning_loss(model, batch, FitConfig())
    guessing = torch.tensor(float(model.vocabulary.num_tokens)).log()
    assert loss.item() == pytest.approx(guessing.item(), rel=0.2)


def test_only_known_moves_of_chosen_agents_count(model: SMART, batch: Scene) -> None:
    _, numbers = behavior_cloning_loss(model, batch, FitConfig(max_trained_agents=1))
    # The roles: the sdc of the drawn scene, and sdc and agents to predict of the other.
    agents = batch.scenario.agents
    chosen = (agents.is_sdc | agents.to_predict | agents.of_interest) & agents.valid
    valid = batch.tokenized.tokens.valid
    moves = valid[..., HISTORY_MARKS - 1 : -1] & valid[..., HISTORY_MARKS:] & chosen[..., None]
    assert numbers["moves"] == moves.sum()


def test_a_batch_without_known_moves_has_loss_zero(model: SMART, batch: Scene) -> None:
    tokens = batch.tokenized.tokens
    valid = tokens.valid.clone()
    valid[..., HISTORY_MARKS:] = False
    nothing = batch.replace(tokenized=batch.tokenized.replace(tokens=tokens.replace(valid=valid)))
    loss, numbers = behavior_cloning_loss(model, nothing, FitConfig())
    loss.backward()
    assert loss.item() == 0
    assert numbers["moves"] == 0


@pytest.mark.slow
def test_a_small_model_learns_two_scenes_by_heart(model: SMART, batch: Scene) -> None:
    model.eval()  # No dropout: memorising is the point.
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(60):
        loss, _ = behavior_cloning_loss(model, batch, FitConfig())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
