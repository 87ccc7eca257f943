import math

import pytest
import torch
from torch.nn import functional

from trainers.losses import next_token_cross_entropy

LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])


def test_the_loss_is_the_negative_log_probability_of_the_label() -> None:
    # Row 0: both tokens have probability 1/2. Row 1: token 1 has 3/4.
    loss = next_token_cross_entropy(LOGITS, torch.tensor([0, 1]), torch.tensor([True, True]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_moves_that_do_not_count_change_nothing() -> None:
    loss = next_token_cross_entropy(LOGITS, torch.tensor([0, 1]), torch.tensor([True, False]))
    assert loss.item() == pytest.approx(math.log(2))


def test_smoothing_spreads_over_all_tokens() -> None:
    loss = next_token_cross_entropy(
        LOGITS[1:], torch.tensor([1]), torch.tensor([True]), label_smoothing=0.5
    )
    # Targets 1/4 and 3/4 on probabilities 1/4 and 3/4.
    assert loss.item() == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))


def test_a_batch_without_a_move_has_loss_zero_and_gradient_zero() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = next_token_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([False, False]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_the_gradient_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator, dtype=torch.float32).requires_grad_()
    label, weighted = torch.tensor([0, 3, 6, 2, 2]), torch.tensor([1, 1, 0, 1, 0]).bool()
    loss = next_token_cross_entropy(logits, label, weighted, label_smoothing=0.1)
    wanted = functional.cross_entropy(logits[weighted], label[weighted], label_smoothing=0.1)
    (grad,), (wanted_grad,) = (torch.autograd.grad(3 * value, logits) for value in (loss, wanted))
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(grad, wanted_grad)
