"""The parts that SMART is made of."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from policies.smart.linear import Linear, linear
from policies.smart.native.encoding import Curves, Encoding, Layer, Waves, fits
from policies.smart.native.library import takes
from policies.smart.native.mlp import Stages
from policies.smart.native.packing import fits as fits_linear

TABLE_SIZE = 1024
"""Places at which the networks of `FourierEmbedding` are evaluated."""

# That of layer normalisation.
_EPSILON = 1e-5

_VERSION = attrgetter("_version")

# Numbers that a piece of work may have to stay in a processor's second-level cache (1 MB).
_CACHED = 2**18

Value = TypeVar("Value")


class FeedForward(nn.Sequential):
    """Two linear layers with ReLU and dropout between them, in normalisations.

    For the gradient it keeps what is between the linear layers once, where torch would keep it as
    it was before dropout, after it, and what it was multiplied by.

    Args:
        hidden_dim: Features, of which there are four times as many between the layers.
        dropout: Those of them that are dropped.
    """

    def __init__(self, hidden_dim: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(hidden_dim),
            Linear(hidden_dim, 4 * hidden_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            Linear(4 * hidden_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
        )
        self._dropout = dropout

    @property
    def weighty(self) -> tuple[nn.LayerNorm, Linear, Linear, nn.LayerNorm]:
        """The layers that have weights."""
        norm, first, _, _, second, norm_out = self
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(first, Linear)
        assert isinstance(second, Linear)
        assert isinstance(norm_out, nn.LayerNorm)
        return norm, first, second, norm_out

    @override
    def forward(self, input: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        if not torch.is_grad_enabled() or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        norm, first, second, norm_out = self.weighty
        dropout = self._dropout if self.training else 0.0
        parameters = first.weight, first.bias, second.weight, second.bias
        return norm_out(_LinearTwice.apply(norm(input), *parameters, dropout))


class _LinearTwice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        weight_out: Tensor,
        bias_out: Tensor,
        dropout: float,
    ) -> Tensor:
        between = linear(features, weight, bias).relu_()
        ctx.growth = _drop(between, dropout)
        ctx.save_for_backward(features, weight, between, weight_out)
        return linear(between, weight_out, bias_out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, between, weight_out = ctx.saved_tensors
        # What is zero was clamped or dropped.
        by_between = torch.ops.aten.threshold_backward(
            linear(grads[0], weight_out.mT), between, 0
        ).mul_(ctx.growth)
        rows, rows_out = by_between.flatten(0, -2), grads[0].flatten(0, -2)
        return (
            linear(by_between, weight.mT),
            linear(rows.mT, features.flatten(0, -2).mT),
            rows.sum(dim=0),
            linear(rows_out.mT, between.flatten(0, -2).mT),
            rows_out.sum(dim=0),
            None,
        )


def _drop(features: Tensor, part: float) -> float:
    """Sets a part of some features to zero, and returns what it multiplies the others by.

    On a processor one draw of 64 bits serves four features, so that the part is rounded to 16 bits.
    Torch takes as long for its dropout as for the linear layer before.
    """
    if not part:
        return 1.0
    if not features.is_cpu:
        functional.dropout(features, part, inplace=True)
        return 1 / (1 - part)
    num_bits = 16
    limit = round(part * 2**num_bits)
    draws = torch.empty((features.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    draws = draws.view(torch.int16)[: features.numel()].view(features.shape)
    growth = 2**num_bits / (2**num_bits - limit)
    features.mul_((draws >= limit - 2 ** (num_bits - 1)).to(features.dtype).mul_(growth))
    return growth


class ParametersOf:
    """The parameters of some modules, as they are whenever this is iterated over.

    `Module.parameters` searches the whole tree each time.
    """

    def __init__(self, *modules: nn.Module) -> None:
        owners = [owner._parameters for module in modules for owner in module.modules()]
        self._places = [(owned, name) for owned in owners for name in owned]

    def __iter__(self) -> Iterator[Tensor]:
        for owned, name in self._places:
            parameter = owned[name]
            if parameter is not None:
                yield parameter


_rollout: ContextVar[object] = ContextVar("_rollout", default=None)


@contextmanager
def unchanging_weights() -> Iterator[None]:
    """Spares each `Memo` all but its first look for changes of parameters: there are none here.

    At fifty agents, looking for changes at every mark takes a twentieth of a rollout.
    """
    token = _rollout.set(object())
    try:
        yield
    finally:
        _rollout.reset(token)


class Memo(Generic[Value]):
    """Keeps a function of parameters, and computes it again when they have changed.

    While gradients flow to the parameters, nothing is kept. Parameters must be changed by
    in-place operations or be replaced, as optimisers and `load_state_dict` do.
    """

    def __init__(self) -> None:
        self._key: list[object] = []
        self._value: Value | None = None
        self._given: object = None
        self._checked_in: object = None

    def __reduce__(self) -> tuple[type["Memo[Value]"], tuple[()]]:
        """A copy has other parameters, and addresses of these cannot be copied."""
        return Memo, ()

    def __call__(
        self,
        function: Callable[[], Value],
        parameters: Iterable[Tensor],
        given: object = None,
    ) -> Value:
        """Returns the value of the function.

        Args:
            function: Must depend on nothing but the parameters and what is given.
            parameters: Its parameters.
            given: What else it depends on; never changed, but perhaps another the next time.
        """
        rollout, same = _rollout.get(), given is self._given
        checked = rollout is not None and rollout is self._checked_in
        if same and checked and self._value is not None and not torch.is_grad_enabled():
            return self._value
        parameters = list(parameters)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters):
            return function()
        key = [*map(id, parameters), *map(Tensor.data_ptr, parameters), *map(_VERSION, parameters)]
        if self._value is None or not same or key != self._key:
            device_type = parameters[0].device.type
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(device_type, enabled=False),
            ):
                self._value = function()
            self._key, self._given = key, given
        self._checked_in = rollout
        return self._value


class _Layers(nn.Sequential):
    """Linear layers with layer normalisation and ReLU between them."""

    def __init__(self, *sizes: int) -> None:
        first, *linears = (Linear(size, out) for size, out in pairwise(sizes))
        layers: list[nn.Module] = [first]
        for layer in linears:
            layers += [nn.LayerNorm(layer.in_features), nn.ReLU(inplace=True), layer]
        super().__init__(*layers)
        self._sizes = sizes
        self._all = ParametersOf(self)
        self._stages: Memo[Stages] = Memo()

    @override
    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if torch.is_grad_enabled() or not self._is_native(input):
            return super().forward(input)
        return self._stages(self._pack, self._all)(input)

    def _is_native(self, features: Tensor) -> bool:
        """Tells whether native kernels do this, if it learns nothing."""
        weight = next(iter(self._all))
        return (
            takes(features)
            and takes(weight)
            and features.shape[-1] == self._sizes[0]
            and fits_linear(*self._sizes[1:])
            and not torch.is_autocast_enabled("cpu")
        )

    def _pack(self) -> Stages:
        linears = [layer for layer in self if isinstance(layer, Linear)]
        return Stages.pack(linears, [layer for layer in self if isinstance(layer, nn.LayerNorm)])


class MLP(_Layers):
    """Two linear layers with layer normalisation and ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__(in_dim, hidden_dim, out_dim)


class MLPEmbedding(_Layers):
    """Three linear layers with layer normalisation and ReLU between them."""

    def __init__(self, in_dim: int, out_dim: int, width: int = 128) -> None:
        super().__init__(in_dim, width, out_dim, out_dim)


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
        rows, weights = _both_ends(row, weight)
        return functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")

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


def _both_ends(
    row: Int[Tensor, "rows curves"], weight: Float[Tensor, "rows curves"]
) -> tuple[Int[Tensor, "rows ends"], Float[Tensor, "rows ends"]]:
    """Lists the rows of the table that are interpolated between, and their weights."""
    rows = torch.stack([row, row + 1], dim=-1)
    return rows.flatten(1), torch.stack([1 - weight, weight], dim=-1).flatten(1)


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
            nn.LayerNorm(out_dim), nn.ReLU(inplace=True), Linear(out_dim, out_dim)
        )
        nn.init.normal_(self.frequencies, std=0.02)
        for weight in (*self.weight_in, *self.weight_out):
            nn.init.xavier_uniform_(weight)
        self._exact = [index for index, range_ in enumerate(ranges) if range_ is None]
        self._tabulated = [index for index, range_ in enumerate(ranges) if range_ is not None]
        self._ranges = [range_ for range_ in ranges if range_ is not None]
        self._all = ParametersOf(self)
        self._table: Memo[Tensor] = Memo()
        self._folded: Memo[tuple[Tensor, ...]] = Memo()
        self._curves_in_c: Memo[Curves] = Memo()

    def forward(
        self, scalars: Float[Tensor, "rows scalars"], extra: Float[Tensor, "rows out"] | None = None
    ) -> Float[Tensor, "rows out"]:
        """Embeds each row; `extra` is added before the last layer."""
        if self._is_native(scalars):
            last = self.combine[2]
            return last(self._in_c(scalars).embed(scalars, extra))
        # Positions need all their digits, whatever the rest is computed in.
        with torch.autocast(scalars.device.type, enabled=False):
            total = self._interpolate(scalars) if self._tabulated else 0
            if self._exact:
                total = total + self._curves(scalars[:, self._exact].mT, self._exact).sum(dim=0)
        return self.combine(total if extra is None else total + extra)

    def encode(
        self, scalars: Float[Tensor, "rows scalars"]
    ) -> Float[Tensor, "rows out"] | Encoding:
        """Does what `normalised` does, or leaves the last layer to attention."""
        if not self._is_native(scalars):
            return self.normalised(scalars)
        return self._in_c(scalars).encode(scalars)

    def normalised(self, scalars: Float[Tensor, "rows scalars"]) -> Float[Tensor, "rows out"]:
        """Embeds each row and normalises it to mean 0 and variance 1."""
        if self._exact or self._is_learned(scalars):
            return functional.layer_norm(self(scalars), self.weight_out.shape[-1:])
        # Centred weights make the means zero, so that they need not be taken.
        table, gain, shift, weight, bias = self._folded(self._fold, self._all)
        rows, weights = _both_ends(*self._places(scalars))
        embedded = scalars.new_empty(scalars.shape[0], weight.shape[0])
        size = _CACHED // weight.shape[0] if scalars.device.type == "cpu" else len(embedded)
        # Piece by piece, so that intermediate results stay in the processor's cache.
        pieces = (part.split(max(1, size)) for part in (rows, weights, embedded))
        for row, fraction, out in zip(*pieces, strict=True):
            hidden = functional.embedding_bag(row, table, per_sample_weights=fraction, mode="sum")
            hidden.mul_(_inverse_deviation(hidden))
            torch.addcmul(shift, hidden, gain, out=hidden).relu_()
            last = linear(hidden, weight, bias)
            torch.mul(last, _inverse_deviation(last), out=out)
        return embedded

    def _is_learned(self, scalars: Tensor) -> bool:
        """Tells whether this must be computed as it is written."""
        learned = torch.is_grad_enabled() and any(p.requires_grad for p in self._all)
        return learned or torch.is_autocast_enabled(scalars.device.type)

    def _is_native(self, scalars: Tensor) -> bool:
        """Tells whether native kernels do this."""
        hidden_dim = self.weight_out.shape[-1]
        return (
            takes(scalars)
            and takes(self.weight_out)
            and fits(hidden_dim, len(self._ranges))
            and not self._is_learned(scalars)
        )

    def _in_c(self, scalars: Tensor) -> Curves:
        return self._curves_in_c(partial(self._tabulate_for_c, scalars), self._all)

    def _tabulate_for_c(self, scalars: Tensor) -> Curves:
        table, gain, shift, weight, bias = self._fold()
        first, scale = self._grid(scalars)
        return Curves(
            columns=torch.tensor(self._tabulated),
            table=table,
            first=first,
            scale=scale,
            waves=tuple(map(self._waves, self._exact)),
            gain=gain.detach(),
            shift=shift.detach(),
            layer=Layer.of(weight, bias),
        )

    def _waves(self, scalar: int) -> Waves:
        return Waves(
            column=scalar,
            frequencies=self.frequencies[scalar],
            first=(self.weight_in[scalar].mT, self.bias_in[scalar, 0]),
            gain=self.norm_weight[scalar, 0].contiguous(),
            shift=self.norm_bias[scalar, 0].contiguous(),
            second=(_centred(self.weight_out[scalar]).mT, _centred(self.bias_out[scalar])),
        )

    def _fold(self) -> tuple[Tensor, ...]:
        norm, last = self.combine[0], self.combine[2]
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(last, Linear)
        weight = _centred(last.weight.mT).mT.contiguous()
        table = _centred(self._tabulate())
        return table, norm.weight, norm.bias, weight, _centred(last.bias)

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
        table = self._table(self._tabulate, self._all)
        return _SumCurves.apply(table, *self._places(scalars[:, self._tabulated]))

    def _places(
        self, scalars: Float[Tensor, "rows tabulated"]
    ) -> tuple[Int[Tensor, "rows tabulated"], Float[Tensor, "rows tabulated"]]:
        """Finds the row of the table below each scalar, and how far it is to the next."""
        steps = TABLE_SIZE - 1
        first, scale = self._grid(scalars)
        place = ((scalars - first) * scale).clamp(0, steps)
        below = place.floor().clamp(max=steps - 1)
        begin = torch.arange(len(self._ranges), device=place.device, dtype=torch.int32)
        return below.to(torch.int32) + TABLE_SIZE * begin, place - below

    def _grid(
        self, like: Tensor
    ) -> tuple[Float[Tensor, " tabulated"], Float[Tensor, " tabulated"]]:
        """Tells each scalar's number at the first row of its table, and how many rows a unit is."""
        steps = TABLE_SIZE - 1
        first = like.new_tensor([least for least, _ in self._ranges])
        scale = like.new_tensor([steps / (largest - least) for least, largest in self._ranges])
        return first, scale


def _inverse_deviation(centred: Float[Tensor, "rows features"]) -> Float[Tensor, "rows 1"]:
    """Returns what layer normalisation multiplies rows of mean zero by."""
    norm = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    return torch.rsqrt(norm.square() / centred.shape[-1] + _EPSILON)


def _centred(features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
    return features - features.mean(dim=-1, keepdim=True)


def initialise(module: nn.Module) -> None:
    """Draws the initial weights of a layer: Xavier for linear layers, N(0, 0.02) for tables."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
