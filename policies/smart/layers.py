"""The parts that SMART is made of."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

TABLE_SIZE = 1024
"""Places at which the networks of `FourierEmbedding` are evaluated."""


class MLP(nn.Sequential):
    """Two linear layers with layer normalisation and ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_dim, out_dim),
        )


class MLPEmbedding(nn.Sequential):
    """Three linear layers with layer normalisation and ReLU between them."""

    def __init__(self, in_dim: int, out_dim: int, width: int = 128) -> None:
        super().__init__(
            nn.Linear(in_dim, width),
            nn.LayerNorm(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, out_dim),
            nn.LayerNorm(out_dim),
            nn.ReLU(inplace=True),
            nn.Linear(out_dim, out_dim),
        )


class Memo:
    """Keeps a function of parameters, and computes it again when they have changed.

    While gradients flow to the parameters, nothing is kept. Parameters must be changed by
    in-place operations or be replaced, as optimisers and `load_state_dict` do.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._value: Tensor | None = None

    def __call__(self, function: Callable[[], Tensor], parameters: Iterable[Tensor]) -> Tensor:
        """Returns the value of the function, which must depend on nothing but the parameters."""
        parameters = list(parameters)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters):
            return function()
        key = [(id(t), t.data_ptr(), t._version, t.dtype, t.device) for t in parameters]
        if self._value is None or key != self._key:
            device_type = parameters[0].device.type
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(device_type, enabled=False),
            ):
                self._value = function()
            self._key = key
        return self._value


class _SumCurves(torch.autograd.Function):
    """Interpolates curves between neighbouring rows of a table, and sums the curves.

    In each row of the result, curve c lies between rows `row[:, c]` and `row[:, c] + 1` of the
    table, at a fraction `weight[:, c]` of the way.
    """

    @staticmethod
    def forward(
        ctx: Any,
        table: Float[Tensor, "places out"],
        row: Int[Tensor, "rows curves"],
        weight: Float[Tensor, "rows curves"],
    ) -> Float[Tensor, "rows out"]:
        ctx.save_for_backward(row, weight)
        ctx.num_places = table.shape[0]
        return functional.embedding_bag(
            torch.stack([row, row + 1], dim=-1).flatten(1),
            table,
            per_sample_weights=torch.stack([1 - weight, weight], dim=-1).flatten(1),
            mode="sum",
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Torch's own derivative adds row by row; sorted by place, each place is one fused sum.
        row, weight = ctx.saved_tensors
        order = row.flatten().argsort(stable=True)
        counts = torch.bincount(row.flatten(), minlength=ctx.num_places)
        first, source = counts.cumsum(0) - counts, order // row.shape[1]
        above = weight.flatten()[order]
        grad, grad_above = (
            functional.embedding_bag(
                source, grads[0], first, per_sample_weights=weights, mode="sum"
            )
            for weights in (1 - above, above)
        )
        grad[1:] += grad_above[:-1]
        return grad, None, None


class FourierEmbedding(nn.Module):
    """Embeds a few numbers: learned frequencies and a small network for each, summed.

    The network of a number whose range is known is a curve in feature space. There are far more
    numbers than such a curve has bends, so it is evaluated at a thousand places and interpolated
    linearly between them.

    Args:
        ranges: For each number, the least and the largest that it can be, if they are known.
        num_frequencies: Learned frequencies of each.
        out_dim: Features of the embedding.
    """

    def __init__(
        self, ranges: Sequence[tuple[float, float] | None], num_frequencies: int, out_dim: int
    ) -> None:
        super().__init__()
        num_scalars, in_dim = len(ranges), 2 * num_frequencies + 1
        self.frequencies = nn.Parameter(torch.empty(num_scalars, num_frequencies))
        self.weight_in = nn.Parameter(torch.empty(num_scalars, in_dim, out_dim))
        self.bias_in = nn.Parameter(torch.zeros(num_scalars, 1, out_dim))
        self.norm_weight = nn.Parameter(torch.ones(num_scalars, 1, out_dim))
        self.norm_bias = nn.Parameter(torch.zeros(num_scalars, 1, out_dim))
        self.weight_out = nn.Parameter(torch.empty(num_scalars, out_dim, out_dim))
        self.bias_out = nn.Parameter(torch.zeros(num_scalars, out_dim))
        self.combine = nn.Sequential(
            nn.LayerNorm(out_dim), nn.ReLU(inplace=True), nn.Linear(out_dim, out_dim)
        )
        nn.init.normal_(self.frequencies, std=0.02)
        for weight in (*self.weight_in, *self.weight_out):
            nn.init.xavier_uniform_(weight)
        self._exact = [index for index, range_ in enumerate(ranges) if range_ is None]
        self._tabulated = [index for index, range_ in enumerate(ranges) if range_ is not None]
        self._ranges = [range_ for range_ in ranges if range_ is not None]
        self._table = Memo()

    def forward(
        self, scalars: Float[Tensor, "rows scalars"], extra: Float[Tensor, "rows out"] | None = None
    ) -> Float[Tensor, "rows out"]:
        """Embeds each row; `extra` is added before the last layer."""
        # Positions need all their digits, whatever the rest is computed in.
        with torch.autocast(scalars.device.type, enabled=False):
            total = self._interpolate(scalars) if self._tabulated else 0
            if self._exact:
                total = total + self._curves(scalars[:, self._exact].mT, self._exact).sum(dim=0)
        return self.combine(total if extra is None else total + extra)

    def _curves(
        self, values: Float[Tensor, "scalars rows"], scalars: list[int]
    ) -> Float[Tensor, "scalars rows out"]:
        """Evaluates the networks of some of the scalars."""
        values = values[..., None]
        angle = 2 * math.pi * values * self.frequencies[scalars, None]
        features = torch.cat([angle.cos(), angle.sin(), values], dim=-1)
        hidden = torch.baddbmm(self.bias_in[scalars], features, self.weight_in[scalars])
        hidden = functional.layer_norm(hidden, hidden.shape[-1:])
        hidden = functional.relu(hidden * self.norm_weight[scalars] + self.norm_bias[scalars])
        return torch.baddbmm(self.bias_out[scalars, None], hidden, self.weight_out[scalars])

    def _tabulate(self) -> Float[Tensor, "places out"]:
        options = {"dtype": self.frequencies.dtype, "device": self.frequencies.device}
        grid = [torch.linspace(*range_, TABLE_SIZE, **options) for range_ in self._ranges]
        return self._curves(torch.stack(grid), self._tabulated).flatten(0, 1)

    def _interpolate(self, scalars: Float[Tensor, "rows scalars"]) -> Float[Tensor, "rows out"]:
        """Sums the curves of the tabulated scalars."""
        table = self._table(self._tabulate, self.parameters())
        steps = TABLE_SIZE - 1
        first = scalars.new_tensor([least for least, _ in self._ranges])
        scale = scalars.new_tensor([steps / (largest - least) for least, largest in self._ranges])
        place = ((scalars[:, self._tabulated] - first) * scale).clamp(0, steps)
        below = place.floor().clamp(max=steps - 1)
        weight = place - below
        row = below.long() + TABLE_SIZE * torch.arange(len(self._tabulated), device=place.device)
        return _SumCurves.apply(table, row, weight)


def initialise(module: nn.Module) -> None:
    """Draws the initial weights of a layer: Xavier for linear layers, N(0, 0.02) for tables."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
