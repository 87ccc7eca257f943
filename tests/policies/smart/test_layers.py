import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from policies.smart import layers
from policies.smart.layers import (
    FeedForward,
    FourierEmbedding,
    Memo,
    _SumCurves,
    unchanging_weights,
)

RANGES = ((0.0, 20.0), None, (-math.pi, math.pi))


def make_embedding() -> FourierEmbedding:
    torch.manual_seed(0)
    embedding = FourierEmbedding(RANGES, 16, 8).double()
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return embedding


def scalars(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    unit = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    least = torch.tensor([0.0, -100.0, -math.pi])
    return least + unit * torch.tensor([20.0, 200.0, 2 * math.pi])


def embed_as_written(
    embedding: FourierEmbedding, values: Tensor, extra: Tensor | float = 0.0
) -> Tensor:
    """The embedding of the paper, without a table."""
    total: Tensor | float = extra
    for index, value in enumerate(values.unbind(dim=1)):
        angle = 2 * math.pi * value[:, None] * embedding.frequencies[index]
        features = torch.cat([angle.cos(), angle.sin(), value[:, None]], dim=1)
        hidden = features @ embedding.weight_in[index] + embedding.bias_in[index]
        hidden = nn.functional.layer_norm(
            hidden, (8,), embedding.norm_weight[index, 0], embedding.norm_bias[index, 0]
        )
        total = total + hidden.relu() @ embedding.weight_out[index] + embedding.bias_out[index]
    assert isinstance(total, Tensor)
    return embedding.combine(total)


def test_the_table_is_close_to_the_curves() -> None:
    embedding, values = make_embedding(), scalars(500)
    extra = torch.rand(500, 8, dtype=torch.float64)
    expected = embed_as_written(embedding, values, extra)
    # Frequencies are ten times those of a new model, so the curves bend more than usual.
    torch.testing.assert_close(embedding(values, extra), expected, atol=1e-2, rtol=0)
    assert (embedding(values, extra) - expected).abs().mean() < 1e-4


@pytest.mark.parametrize("end", [0, 1])
def test_the_table_is_exact_at_its_ends(end: int) -> None:
    embedding = make_embedding()
    values = torch.tensor([[(0.0, 20.0)[end], 7.0, (-math.pi, math.pi)[end]]]).double()
    torch.testing.assert_close(
        embedding(values), embed_as_written(embedding, values), atol=1e-6, rtol=0
    )


def test_beyond_the_range_the_table_goes_on_as_it_ends() -> None:
    embedding = make_embedding()
    inside, outside = torch.tensor([[[20.0, 1.0, 0.0]], [[21.0, 1.0, 0.0]]]).double()
    assert torch.equal(embedding(inside), embedding(outside))


def test_gradients_through_the_table_are_close_to_those_of_the_curves() -> None:
    embedding, values = make_embedding(), scalars(500)
    parameters = list(embedding.parameters())
    ours = torch.autograd.grad(embedding(values).square().sum(), parameters)
    written = torch.autograd.grad(embed_as_written(embedding, values).square().sum(), parameters)
    for mine, expected in zip(ours, written, strict=True):
        assert (mine - expected).norm() < 0.01 * expected.norm()


def test_the_gradient_of_a_table_is_that_of_interpolating_in_it() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([[0, 6], [2, 10], [2, 6], [4, 8]])
    weight = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda table: _SumCurves.apply(table, row, weight), table)


def test_nothing_is_embedded_of_nothing() -> None:
    assert make_embedding()(scalars(0)).shape == (0, 8)


class Counter:
    """Doubles a parameter, and counts how often."""

    def __init__(self) -> None:
        self.parameter = nn.Parameter(torch.ones(3))
        self.memo, self.calls = Memo(), 0

    def double(self) -> Tensor:
        self.calls += 1
        return 2 * self.parameter

    def __call__(self) -> Tensor:
        return self.memo(self.double, [self.parameter])


def test_a_memo_computes_once_while_nothing_is_learned() -> None:
    counter = Counter()
    with torch.no_grad():
        assert torch.equal(counter(), counter())
    assert counter.calls == 1


def test_a_memo_keeps_nothing_that_needs_a_gradient() -> None:
    counter = Counter()
    with torch.no_grad():
        counter()
    for _ in range(2):
        counter().sum().backward()
    assert counter.calls == 3
    assert counter.parameter.grad is not None
    assert counter.parameter.grad.tolist() == [4.0, 4.0, 4.0]


def test_a_memo_serves_frozen_parameters_with_gradients_enabled() -> None:
    counter = Counter()
    counter.parameter.requires_grad_(False)
    assert torch.equal(counter(), counter())
    assert counter.calls == 1


def test_a_memo_notices_an_optimizer_step() -> None:
    counter = Counter()
    with torch.no_grad():
        counter()
    optimizer = torch.optim.AdamW([counter.parameter], lr=0.5)
    counter().sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert torch.equal(counter(), 2 * counter.parameter)


def test_a_memo_looks_once_for_changes_where_there_are_none() -> None:
    counter = Counter()
    with torch.no_grad():
        for value in (2.0, 3.0):
            counter.parameter.fill_(value)
            with unchanging_weights():
                kept = counter()
                counter.parameter.zero_()
                assert counter() is kept
            assert kept.tolist() == [2 * value] * 3
        assert counter().tolist() == [0.0] * 3


def test_a_memo_computes_again_when_something_else_is_given() -> None:
    memo, parameters = Memo[object](), [torch.ones(1)]
    first, other = object(), object()
    with unchanging_weights(), torch.no_grad():
        for given in (first, first, other, first):
            assert memo(lambda given=given: given, parameters, given) is given


def test_a_memo_notices_loaded_weights_and_another_dtype() -> None:
    embedding, values = make_embedding(), scalars(5)
    other = make_embedding()
    with torch.no_grad():
        embedding(values)
        for parameter in other.parameters():
            parameter.mul_(1.5)
        embedding.load_state_dict(other.state_dict())
        assert torch.equal(embedding(values), other(values))
        embedding.float()
        assert embedding(values.float()).dtype == torch.float32


def test_what_a_memo_kept_in_inference_mode_can_be_learned_from() -> None:
    counter = Counter()
    counter.parameter.requires_grad_(False)
    with torch.inference_mode():
        counter()
    weight = torch.ones(3, requires_grad=True)
    (counter() * weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("in_cache", [8, 2**18])
def test_a_normalised_embedding_is_the_embedding_normalised(
    in_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_CACHED", in_cache)
    torch.manual_seed(0)
    embedding = FourierEmbedding(((0.0, 20.0), (-math.pi, math.pi)), 16, 8).double()
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    values = scalars(50)[:, [0, 2]]
    expected = nn.functional.layer_norm(embedding(values), (8,))
    learned = embedding.normalised(values)
    assert learned.requires_grad
    torch.testing.assert_close(learned, expected, atol=1e-9, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(embedding.normalised(values), expected, atol=1e-9, rtol=0)
    with torch.no_grad():
        last = embedding.combine[2]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(2)
        changed = nn.functional.layer_norm(embedding(values), (8,))
        torch.testing.assert_close(embedding.normalised(values), changed, atol=1e-9, rtol=0)


def test_an_embedding_of_a_number_without_a_range_is_normalised_too() -> None:
    embedding, values = make_embedding(), scalars(20)
    with torch.no_grad():
        found = embedding.normalised(values)
        expected = nn.functional.layer_norm(embedding(values), (8,))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_a_memo_notices_that_a_parameter_was_replaced() -> None:
    embedding, values = make_embedding(), scalars(5)
    with torch.no_grad():
        before = embedding(values)
        embedding.weight_out = nn.Parameter(embedding.weight_out * 2)
        assert not torch.equal(embedding(values), before)


def test_feeding_forward_has_the_gradients_of_its_parts() -> None:
    torch.manual_seed(0)
    layer = FeedForward(6, 0.3).double().eval()
    rows = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    leaves = [rows, *layer.parameters()]
    direction = torch.randn(2, 5, 6, dtype=torch.float64)

    def run(module: nn.Module) -> tuple[Tensor, ...]:
        out = module(rows)
        return out, *torch.autograd.grad(out, leaves, direction)

    for one, other in zip(run(layer), run(nn.Sequential(*layer)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_feeding_forward_has_the_right_gradients_under_dropout() -> None:
    torch.manual_seed(0)
    layer = FeedForward(6, 0.3).double()

    def seeded(rows: Tensor, *_: Tensor) -> Tensor:
        torch.manual_seed(1)
        return layer(rows)

    rows = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, (rows, *layer.parameters()))


def test_a_part_of_features_is_dropped_and_the_others_make_up_for_it() -> None:
    torch.manual_seed(0)
    features = torch.ones(301, 999)
    growth = layers._drop(features, 0.1)
    assert set(features.unique().tolist()) == {0.0, torch.tensor(growth).item()}
    # Five standard deviations.
    assert (features == 0).double().mean().item() == pytest.approx(0.1, abs=0.003)
    assert growth == pytest.approx(1 / 0.9, rel=1e-4)
    # Neither neighbours nor every fourth feature are dropped together.
    dropped = (features == 0).double().flatten()
    for distance in (1, 2, 3, 4):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert both == pytest.approx(0.01, abs=0.001)


def test_what_is_dropped_depends_on_torchs_seed() -> None:
    def dropped(seed: int) -> Tensor:
        torch.manual_seed(seed)
        features = torch.ones(7, 5)
        layers._drop(features, 0.5)
        return features == 0

    assert torch.equal(dropped(0), dropped(0))
    assert not torch.equal(dropped(0), dropped(1))


def test_a_copy_of_a_memo_begins_anew() -> None:
    counter = Counter()
    with torch.no_grad():
        counter()
        twin = deepcopy(counter)
        assert twin() is not counter()
        twin.parameter.mul_(2)
        assert torch.equal(twin(), 2 * counter())
    assert (counter.calls, twin.calls) == (1, 3)
