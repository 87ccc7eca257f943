"""What a layer of attention does before and after it attends, in C.

Torch does this by a dozen calls. For the fifty agents of a scene at one mark these take several
times as long as what they do.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.smart.native import threads
from policies.smart.native.library import POINTER, library, pointers

_INT = ctypes.c_int64


class _Linear(ctypes.Structure):
    """`struct linear`."""

    _fields_ = [("inputs", _INT), ("outputs", _INT), *pointers("weight", "bias")]


class _Norm(ctypes.Structure):
    """`struct norm`."""

    _fields_ = pointers("gain", "shift")


class _Layer(ctypes.Structure):
    """`struct layer`."""

    _fields_ = [
        *(("hidden", _INT), ("width", _INT)),
        *(("before", _Norm), ("project", _Linear), ("gate", _Linear), ("out", _Linear)),
        *(("behind_out", _Norm), ("before_first", _Norm)),
        *(("first", _Linear), ("second", _Linear), ("behind_second", _Norm)),
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
        packed = [_pack(weight, bias) for weight, bias in linears]
        project, gate, out, first, second = (
            _Linear(weight.shape[1], weight.shape[0], blocks.data_ptr(), shift.data_ptr())
            for (weight, _), (blocks, shift) in zip(linears, packed, strict=True)
        )
        before, behind_out, before_first, behind_second = (
            _Norm(norm.weight.data_ptr(), norm.bias.data_ptr()) for norm in norms
        )
        hidden, width = linears[0][0].shape[1], linears[1][0].shape[0]
        sizes = [weight.numel() for weight, _ in linears]
        return cls(
            structure=_Layer(
                *(hidden, width, before, project, gate, out),
                *(behind_out, before_first, first, second, behind_second),
            ),
            kept=tuple(tensor for pair in packed for tensor in pair),
            cost=(sizes[0], sum(sizes[1:])),
        )


def _pack(
    weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None
) -> tuple[Float[Tensor, "_ _ _"], Float[Tensor, " out"]]:
    blocks = weight.detach().unflatten(0, (-1, _block())).transpose(1, 2).contiguous()
    shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().contiguous()
    return blocks, shift


def _block() -> int:
    """Outputs whose weights lie together."""
    kernels = library()
    assert kernels is not None
    return 2 * int(kernels.vector_width())


def enter(weights: LayerWeights, rows: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows own"]:
    """Normalises rows and projects them."""
    rows = rows.contiguous()
    projected = rows.new_empty(len(rows), weights.structure.project.outputs)
    _run("enter_layer", weights, (rows, projected), cost=weights.cost[0])
    return projected


def leave(
    weights: LayerWeights,
    rows: Float[Tensor, "rows hidden"],
    projected: Float[Tensor, "rows own"],
    gathered: Float[Tensor, "rows attention"],
) -> Float[Tensor, "rows hidden"]:
    """Lets some of what rows attended to pass, and adds it to them; feeds them forward.

    Args:
        weights: The layer's.
        rows: What `enter` took.
        projected: What it returned.
        gathered: What the rows attended to.
    """
    rows = rows.contiguous()
    updated = torch.empty_like(rows)
    tensors = rows, projected, gathered.contiguous(), updated
    _run("leave_layer", weights, tensors, cost=weights.cost[1])
    return updated


def _run(kernel: str, weights: LayerWeights, tensors: Sequence[Tensor], *, cost: int) -> None:
    pointers_to = (POINTER(tensor.data_ptr()) for tensor in tensors)
    arguments = (ctypes.byref(weights.structure), *pointers_to)
    threads.run(kernel, arguments, len(tensors[0]), cost=cost)


def fits(*outputs: int) -> bool:
    """Tells whether the kernels work on linear layers of such numbers of outputs."""
    return library() is not None and all(size % _block() == 0 for size in outputs)
