"""What a layer of attention does before and after it attends, in C.

Torch does this by a dozen calls. For the fifty agents of a scene at one mark these take several
times as long as what they do. In training a layer keeps what it reads, and works the rest out again
for the gradient, while it is in the cache.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from policies.smart.native import threads
from policies.smart.native.attention import Gathering, RelationWeights
from policies.smart.native.dropout import Dropout
from policies.smart.native.library import POINTER, pointers
from policies.smart.native.packing import LinearStructure, NormStructure, pack

_INT = ctypes.c_int64


class _Layer(ctypes.Structure):
    """`struct layer`."""

    _fields_ = [
        *(("hidden", _INT), ("width", _INT)),
        *(
            ("before", NormStructure),
            ("project", LinearStructure),
            ("gate", LinearStructure),
            ("out", LinearStructure),
        ),
        *(("behind_out", NormStructure), ("before_first", NormStructure)),
        *(
            ("first", LinearStructure),
            ("second", LinearStructure),
            ("behind_second", NormStructure),
            ("drop", Dropout),
        ),
    ]


class _Turn(ctypes.Structure):
    """`struct turn`."""

    _fields_ = [
        *pointers("layer", "attention", "gathering"),
        *(*pointers("keys_values"), ("stride", _INT), *pointers("own"), ("own_stride", _INT)),
    ]


class _LinearBack(ctypes.Structure):
    """`struct linear_back`."""

    _fields_ = [("transposed", LinearStructure), *pointers("by_weight", "by_bias")]


class _NormBack(ctypes.Structure):
    """`struct norm_back`."""

    _fields_ = pointers("by_gain", "by_shift")


class _LayerBack(ctypes.Structure):
    """`struct layer_back`."""

    _fields_ = [
        *((name, _INT) for name in ("rows", "parts", "part_stride")),
        *(("before", _NormBack), ("project", _LinearBack), ("gate", _LinearBack)),
        *(("out", _LinearBack), ("behind_out", _NormBack), ("before_first", _NormBack)),
        *(("first", _LinearBack), ("second", _LinearBack), ("behind_second", _NormBack)),
    ]


Linear = tuple[Float[Tensor, "_ _"], Float[Tensor, " _"] | None]
"""The weights and the bias of a linear layer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerWeights:
    """The weights of a layer, as the kernels read them.

    Attributes:
        structure: Their addresses.
        kept: What lies there.
        cost: Multiplications for a row, before and after the layer attends.
    """

    structure: _Layer
    kept: tuple[Tensor, ...]
    cost: tuple[int, int]

    @classmethod
    def pack(cls, linears: Sequence[Linear], norms: Sequence[nn.LayerNorm]) -> "LayerWeights":
        """Packs weights.

        Args:
            linears: To queries, skips, gates, and perhaps keys and values; from what is gathered to
                gates; out; and the two of the feed-forward network.
            norms: Before all; behind `out`; before and behind the feed-forward network.
        """
        packed = [pack(weight, bias) for weight, bias in linears]
        project, gate, out, first, second = (LinearStructure.of(*pair) for pair in packed)
        before, behind_out, before_first, behind_second = (
            NormStructure.of(norm.weight, norm.bias) for norm in norms
        )
        hidden, width = linears[0][0].shape[1], linears[1][0].shape[0]
        sizes = [weight.numel() for weight, _ in linears]
        return cls(
            structure=_Layer(
                *(hidden, width, before, project, gate, out),
                *(behind_out, before_first, first, second, behind_second, Dropout.draw(0.0)),
            ),
            kept=tuple(tensor for pair in packed for tensor in pair),
            cost=(sizes[0], sum(sizes[1:])),
        )

    def with_dropout(self, drop: Dropout) -> "LayerWeights":
        """Returns the same, for a layer that drops some of what is fed forward."""
        structure = _Layer.from_buffer_copy(self.structure)
        structure.drop = drop
        return replace(self, structure=structure)


def enter(weights: LayerWeights, rows: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows own"]:
    """Normalises rows and projects them."""
    rows = rows.contiguous()
    projected = rows.new_empty(len(rows), weights.structure.project.outputs)
    _run("enter_layer", weights, (rows, projected), cost=weights.cost[0])
    return projected


class Turn(NamedTuple):
    """A layer whose turn it is to update rows, without a gradient."""

    weights: LayerWeights
    """The layer's."""

    relation_weights: RelationWeights
    """What it does with encodings."""

    gathering: Gathering
    """What the rows attend to."""

    keys_values: Float[Tensor, "sources keys_values"] | None
    """Those of the sources; by default of the rows themselves."""

    remembers: bool
    """Whether the rows' own keys and values are asked for."""

    def cost(self, num_rows: int) -> int:
        """Multiplications in all."""
        return num_rows * sum(self.weights.cost) + self.gathering.cost(self.relation_weights)


def update(
    rows: Float[Tensor, "rows hidden"], turns: Sequence[Turn]
) -> tuple[Float[Tensor, "rows hidden"], Float[Tensor, "rows remembering keys_values"]]:
    """Does all of some layers of a size, one after the other.

    Args:
        rows: Features.
        turns: The layers.

    Returns:
        Features, and the rows' own keys and values in each layer that remembers them.
    """
    rows, updated = rows.contiguous(), torch.empty_like(rows)
    count, width = len(rows), turns[0].weights.structure.width
    remembered = rows.new_empty(count, sum(turn.remembers for turn in turns), 2 * width)
    places = iter(remembered.unbind(dim=1))
    own = [next(places) if turn.remembers else None for turn in turns]
    if max(threads.worthwhile(turn.cost(count)) for turn in turns) > 1:
        for turn, place in zip(turns, own, strict=True):
            rows = _update_by_threads(rows, turn, place)
        return rows, remembered
    told = (_Turn * len(turns))(*map(_tell, turns, own))
    arguments = (told, _INT(count), POINTER(rows.data_ptr()), POINTER(updated.data_ptr()))
    threads.run("update_layers", arguments, len(turns), cost=0)
    return updated, remembered


def _tell(turn: Turn, own: Tensor | None) -> _Turn:
    keys_values = turn.keys_values
    assert keys_values is None or keys_values.dtype == torch.float32
    assert keys_values is None or keys_values.stride(1) == 1
    return _Turn(
        ctypes.addressof(turn.weights.structure),
        ctypes.addressof(turn.relation_weights.structure),
        ctypes.addressof(turn.gathering.structure),
        *((None, 0) if keys_values is None else (keys_values.data_ptr(), keys_values.stride(0))),
        *((None, 0) if own is None else (own.data_ptr(), own.stride(0))),
    )


def _update_by_threads(rows: Tensor, turn: Turn, own: Tensor | None) -> Tensor:
    weights, gathering, width = turn.weights, turn.gathering, turn.weights.structure.width
    gathered, projected = rows.new_zeros(len(rows), width), enter(weights, rows)
    sources = projected[:, 3 * width :] if turn.keys_values is None else turn.keys_values
    if len(gathering.destination):
        gathering.run(turn.relation_weights, projected[:, :width], sources, gathered)
    if own is not None:
        own.copy_(projected[:, 3 * width :])
    return _leave(weights, rows, projected[:, width:], gathered)


def _leave(weights: LayerWeights, rows: Tensor, skip: Tensor, gathered: Tensor) -> Tensor:
    assert skip.stride(0) == weights.structure.project.outputs
    updated = torch.empty_like(rows)
    tensors = rows, skip, gathered, updated
    _run("leave_layer", weights, tensors, cost=weights.cost[1])
    return updated


def enter_learning(
    weights: LayerWeights,
    rows: Float[Tensor, "rows hidden"],
    project: Linear,
    norm: nn.LayerNorm,
) -> tuple[
    Float[Tensor, "rows attention"], Float[Tensor, "rows skips_gates"], Float[Tensor, "rows _"]
]:
    """Does what `enter` does, with a gradient.

    Args:
        weights: The layer's.
        rows: Features.
        project: What of the weights gets a gradient,
        norm: and what is before it.

    Returns:
        Queries, skips with gates, and keys with values if there are any.
    """
    return _Enter.apply(weights, rows.contiguous(), *project, norm.weight, norm.bias)


def leave_learning(
    weights: LayerWeights,
    rows: Float[Tensor, "rows hidden"],
    skip_gate: Float[Tensor, "rows skips_gates"],
    gathered: Float[Tensor, "rows attention"],
    *,
    linears: Sequence[Linear],
    norms: Sequence[nn.LayerNorm],
    dropout: float = 0.0,
) -> Float[Tensor, "rows hidden"]:
    """Does what `leave` does, with a gradient.

    Args:
        weights: The layer's.
        rows: What `enter_learning` took.
        skip_gate: What it returned.
        gathered: What the rows attended to.
        linears: What of the weights gets a gradient: that from what is gathered to gates, out, and
            the two of the feed-forward network.
        norms: Behind `out`; before and behind the feed-forward network.
        dropout: The part of what is between the feed-forward network's layers that is dropped.
    """
    parameters = [weight for linear in linears for weight in linear if weight is not None]
    parameters += [weight for norm in norms for weight in (norm.weight, norm.bias)]
    rows, gathered = rows.contiguous(), gathered.contiguous()
    return _Leave.apply(weights, dropout, rows, skip_gate, gathered, *parameters)


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weights: LayerWeights, rows: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(rows, *parameters)
        ctx.weights = weights
        width, projected = weights.structure.width, enter(weights, rows)
        return projected[:, :width], projected[:, width : 3 * width], projected[:, 3 * width :]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        rows, *parameters = ctx.saved_tensors
        weights: LayerWeights = ctx.weights
        by_projected, by_rows = torch.cat(grads, dim=1), torch.empty_like(rows)
        found = _Gradients(parameters, len(rows))
        by_weight, by_bias, by_gain, by_shift = found.addresses
        transposed = _Transposed(parameters[0])
        found.fill(
            before=_NormBack(by_gain, by_shift),
            project=_LinearBack(transposed.structure, by_weight, by_bias),
        )
        _run_back("enter_layer_back", weights, found, (rows, by_projected, by_rows))
        return None, by_rows, *found.sums()


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weights: LayerWeights,
        dropout: float,
        rows: Tensor,
        skip_gate: Tensor,
        gathered: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(rows, skip_gate, gathered, *parameters)
        ctx.weights = weights = weights.with_dropout(Dropout.draw(dropout))
        return _leave(weights, rows, skip_gate, gathered)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        rows, skip_gate, gathered, *parameters = ctx.saved_tensors
        by_rows, by_gathered = torch.empty_like(rows), torch.empty_like(gathered)
        by_skip_gate = skip_gate.new_empty(skip_gate.shape)
        gate, out, first, second = (_Transposed(parameters[place]) for place in (0, 1, 3, 5))
        # The gate's bias gets its gradient through the projection; here it is not wanted.
        found = _Gradients([*parameters, gathered.new_empty(len(parameters[0]))], len(rows))
        at = found.addresses
        found.fill(
            gate=_LinearBack(gate.structure, at[0], at[13]),
            out=_LinearBack(out.structure, at[1], at[2]),
            first=_LinearBack(first.structure, at[3], at[4]),
            second=_LinearBack(second.structure, at[5], at[6]),
            behind_out=_NormBack(at[7], at[8]),
            before_first=_NormBack(at[9], at[10]),
            behind_second=_NormBack(at[11], at[12]),
        )
        tensors = rows, skip_gate, gathered, grads[0].contiguous()
        tensors = *tensors, by_rows, by_skip_gate, by_gathered
        _run_back("leave_layer_back", ctx.weights, found, tensors)
        return None, None, by_rows, by_skip_gate, by_gathered, *found.sums()[:-1]


class _Transposed:
    """The transpose of some weights, as the kernels read them."""

    def __init__(self, weight: Float[Tensor, "out in"]) -> None:
        self._kept = pack(weight.mT, None)
        self.structure = LinearStructure.of(*self._kept)


class _Gradients:
    """Where kernels add up gradients by some weights.

    Rows are cut into a part for each thread, which adds to gradients of its own.

    Attributes:
        addresses: Where the gradient by each is, of the first part.
        structure: For the kernels.
    """

    def __init__(self, weights: Sequence[Tensor], num_rows: int) -> None:
        self._shapes = [weight.shape for weight in weights]
        self._sizes = [weight.numel() for weight in weights]
        parts = torch.get_num_threads()
        self._sums = weights[0].new_zeros(parts, sum(self._sizes))
        size, start = self._sums.element_size(), self._sums.data_ptr()
        places = accumulate(self._sizes, initial=0)
        self.addresses = [start + size * place for place in places][: len(weights)]
        self.structure = _LayerBack(rows=num_rows, parts=parts, part_stride=sum(self._sizes))

    def fill(self, **places: _LinearBack | _NormBack) -> None:
        """Fills in the places of the gradients."""
        for name, place in places.items():
            setattr(self.structure, name, place)

    def sums(self) -> list[Tensor]:
        """Returns the gradients by the weights, over all parts."""
        flat = self._sums.sum(dim=0).split(self._sizes)
        return [sums.view(shape) for sums, shape in zip(flat, self._shapes, strict=True)]


def _run_back(
    kernel: str, weights: LayerWeights, found: _Gradients, tensors: Sequence[Tensor]
) -> None:
    pointers_to = (POINTER(tensor.data_ptr()) for tensor in tensors)
    structures = ctypes.byref(weights.structure), ctypes.byref(found.structure)
    # About three times the multiplications of the other direction.
    cost = 3 * sum(weights.cost) * len(tensors[0]) // found.structure.parts
    threads.run(kernel, (*structures, *pointers_to), found.structure.parts, cost=cost)


def _run(kernel: str, weights: LayerWeights, tensors: Sequence[Tensor], *, cost: int) -> None:
    pointers_to = (POINTER(tensor.data_ptr()) for tensor in tensors)
    arguments = (ctypes.byref(weights.structure), *pointers_to)
    threads.run(kernel, arguments, len(tensors[0]), cost=cost)
