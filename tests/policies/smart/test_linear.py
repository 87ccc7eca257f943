import pytest
import torch
from torch.nn import functional

from policies.smart import linear as module
from policies.smart.linear import Linear, linear

# More multiplications than oneDNN is asked for.
LARGE = (20, 30, 64)


def make_layer(*, bias: bool = True) -> Linear:
    torch.manual_seed(0)
    return Linear(64, 48, bias=bias)


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [LARGE, (600, 64), (2, 64), (0, 64)])
def test_a_linear_layer_is_torchs(shape: tuple[int, ...], bias: bool) -> None:
    layer, values = make_layer(bias=bias), features(*shape)
    expected = functional.linear(values, layer.weight, layer.bias)
    torch.testing.assert_close(layer(values), expected, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(layer(values), expected, atol=1e-5, rtol=0)


def test_gradients_are_torchs() -> None:
    layer, values = make_layer(), features(*LARGE).requires_grad_()
    leaves = [values, *layer.parameters()]
    direction = torch.rand(*LARGE[:2], 48)
    ours = torch.autograd.grad((layer(values) * direction).sum(), leaves)
    plain = functional.linear(values, layer.weight, layer.bias)
    expected = torch.autograd.grad((plain * direction).sum(), leaves)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_no_gradient_is_made_that_nobody_wants(frozen: int) -> None:
    layer, values = make_layer(), features(*LARGE).requires_grad_()
    leaves = [values, *layer.parameters()]
    leaves[frozen].requires_grad_(False)
    layer(values).sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [index == frozen for index in range(3)]


def test_part_of_a_larger_record_may_be_read() -> None:
    layer, values = make_layer(), features(600, 100)[:, 7:71]
    expected = functional.linear(values, layer.weight, layer.bias)
    torch.testing.assert_close(layer(values), expected, atol=1e-5, rtol=0)


def test_onednn_is_asked_for_large_products_in_float32_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def ask(*inputs: torch.Tensor) -> torch.Tensor:
        asked.append(inputs)
        return functional.linear(*inputs)

    monkeypatch.setattr(module, "_HAS_ONEDNN", True)
    monkeypatch.setattr(module, "_onednn", ask)
    layer = make_layer().requires_grad_(False)
    with torch.no_grad():
        linear(features(2, 64), layer.weight)
        linear(features(*LARGE).double(), layer.weight.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(features(*LARGE)).dtype == torch.bfloat16
        assert not asked
        linear(features(*LARGE), layer.weight)
    assert len(asked) == 1
