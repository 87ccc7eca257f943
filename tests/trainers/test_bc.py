import copy

import pytest
import torch
from torch import Tensor

from catk_sim.constants import HISTORY_MARKS
from policies.smart.model import SMART
from trainers.bc import behavior_cloning_loss, checkpoint_attention
from trainers.configs import FitConfig
from trainers.scenes import Scene


def test_the_loss_starts_near_that_of_guessing(model: SMART, batch: Scene) -> None:
    loss, _ = behavior_cloning_loss(model, batch, FitConfig())
    guessing = torch.tensor(float(model.vocabulary.num_tokens)).log()
    assert loss.item() == pytest.approx(guessing.item(), rel=0.2)


def test_only_known_moves_of_chosen_agents_count(model: SMART, batch: Scene) -> None:
    few = batch.draw_learned(max_agents=1, seed=0)
    _, numbers = behavior_cloning_loss(model, few, FitConfig())
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


def loss_and_kept_bytes(model: SMART, batch: Scene) -> tuple[float, int]:
    """Trains a step, with dropout. Returns the loss, and the memory kept for the gradient."""
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss, _ = behavior_cloning_loss(model.train(), batch, FitConfig())
    loss.backward()
    return loss.item(), sum(kept.values())


def test_gradient_checkpointing_keeps_less_and_changes_nothing(model: SMART, batch: Scene) -> None:
    other = copy.deepcopy(model)
    checkpoint_attention(other)
    loss, kept = loss_and_kept_bytes(model, batch)
    same_loss, kept_less = loss_and_kept_bytes(other, batch)
    assert same_loss == loss
    assert kept_less < 0.8 * kept
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-7)


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
