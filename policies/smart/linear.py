"""Linear layers, by the fastest kernel that torch has for them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override


class Linear(nn.Linear):
    """`nn.Linear`, computed by oneDNN on a processor.

    In float32, torch asks MKL, which leaves half of what an AMD processor can do unused. oneDNN
    is part of torch, but torch by itself asks it only for lower precisions.
    """

    @override
    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return linear(input, self.weight, self.bias)


def linear(
    features: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, " out"] | None = None,
) -> Float[Tensor, "*batch out"]:
    """Does what `torch.nn.functional.linear` does; see `Linear`."""
    if not _takes_onednn(features, weight):
        return functional.linear(features, weight, bias)
    if torch.is_grad_enabled():
        return _OneDNNLinear.apply(features, weight, bias)
    return _onednn(features, weight, bias)


def _takes_onednn(features: Tensor, weight: Tensor) -> bool:
    return (
        features.device.type == "cpu"
        and features.dtype == weight.dtype == torch.float32
        and features.numel() * weight.shape[0] >= _WORTHWHILE
        and _HAS_ONEDNN
        and not torch.is_autocast_enabled("cpu")
    )


# Multiplications from which on oneDNN makes up for its longer start.
_WORTHWHILE = 2**20
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_linear_pointwise"
)


def _onednn(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(features, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer whose gradients are oneDNN's too."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weight)
        return _onednn(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        grad = grads[0]
        by_features = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_features = _onednn(grad, weight.mT, None)
        flat = grad.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            by_weight = _onednn(flat.mT, features.flatten(0, -2).mT, None)
        if ctx.needs_input_grad[2]:
            by_bias = flat.sum(dim=0)
        return by_features, by_weight, by_bias
