"""Encodings of relations in C."""

import ctypes
import weakref
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from policies.smart.linear import linear
from policies.smart.native import threads
from policies.smart.native.library import POINTER, library, pointers

_INT = ctypes.c_int64
MOST_CURVES = 8
"""How many curves can be summed."""


class _Curves(ctypes.Structure):
    """`struct curves`."""

    _fields_ = [
        *((name, _INT) for name in ("count", "places", "hidden")),
        *pointers("table", "first", "scale", "gain", "shift", "matrix", "bias"),
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """The last layer of an embedding, whose results have mean zero.

    Attributes:
        weight: Its weights.
        bias: Its bias.
        triangle: R of weight = QR, transposed. R x + Q'b has the norm of the layer's result.
        turned_bias: Q'b.
    """

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"]
    triangle: Float[Tensor, "in out"]
    turned_bias: Float[Tensor, " out"]

    @classmethod
    def of(cls, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"]) -> "Layer":
        """Turns a layer."""
        turn, triangle = torch.linalg.qr(weight.double())
        turned_bias = turn.mT @ bias.double()
        return cls(
            weight=weight,
            bias=bias,
            triangle=triangle.mT.contiguous().to(weight.dtype),
            turned_bias=turned_bias.to(weight.dtype),
        )


class _Buffers:
    """Memory that is used again.

    The system hands out fresh memory page by page, which takes as long as encoding does.
    """

    # Numbers, of all buffers together.
    _MOST_KEPT = 2**26

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, size: int) -> Tensor:
        """Returns a buffer for so many numbers, or more."""
        fitting = [buffer for buffer in self._free if len(buffer) >= size]
        if not fitting:
            return torch.empty(1 << max(0, size - 1).bit_length())
        best = min(fitting, key=len)
        self._free = [buffer for buffer in self._free if buffer is not best]
        return best

    def give_back(self, buffer: Tensor) -> None:
        """Keeps a buffer that nobody reads any more."""
        free = [*self._free, buffer]
        while sum(map(len, free)) > self._MOST_KEPT:
            free.pop(0)
        self._free = free


_buffers = _Buffers()


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoding:
    """Normalised encodings before their last layer, which attention takes upon itself.

    They are layer(features) with `scale` times the layer's bias. Only their deviation is worked
    out, for which half a product is enough; the rest is linear.

    Attributes:
        features: What the last layer reads, divided by the deviation of its result. Their memory
            is used again when the encoding is no more.
        scale: One divided by that deviation.
        layer: The last layer.
    """

    features: Float[Tensor, "rows hidden"]
    scale: Float[Tensor, " rows"]
    layer: Layer

    @cached_property
    def normalised(self) -> Float[Tensor, "rows hidden"]:
        """The encodings themselves."""
        last = linear(self.features, self.layer.weight)
        return torch.addcmul(last, self.scale[:, None], self.layer.bias)


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """Curves in feature space, tabulated; see `FourierEmbedding`.

    Attributes:
        table: Places on each curve, one curve behind the other.
        first: The number that belongs to the first place of each curve.
        scale: How many places the next whole number is away.
        gain: What sums of places are multiplied by, once they are normalised.
        shift: What is added then.
        layer: What follows the clamping at zero.
    """

    table: Float[Tensor, "places hidden"]
    first: Float[Tensor, " curves"]
    scale: Float[Tensor, " curves"]
    gain: Float[Tensor, " hidden"]
    shift: Float[Tensor, " hidden"]
    layer: Layer

    def encode(self, numbers: Float[Tensor, "rows curves"]) -> Encoding:
        """Encodes rows of numbers."""
        places, hidden = self.table.shape
        count, numbers = len(self.first), numbers.contiguous()
        buffer = _buffers.take(len(numbers) * hidden)
        features = buffer[: len(numbers) * hidden].view(len(numbers), hidden)
        scale = numbers.new_empty(len(numbers))
        curves = _Curves(
            count=count,
            places=places // count,
            hidden=hidden,
            table=self.table.data_ptr(),
            first=self.first.data_ptr(),
            scale=self.scale.data_ptr(),
            gain=self.gain.data_ptr(),
            shift=self.shift.data_ptr(),
            matrix=self.layer.triangle.data_ptr(),
            bias=self.layer.turned_bias.data_ptr(),
        )
        tensors = (numbers, features, scale)
        arguments = (ctypes.byref(curves), *(POINTER(tensor.data_ptr()) for tensor in tensors))
        threads.run("encode", arguments, len(numbers), cost=hidden**2)
        encoding = Encoding(features=features, scale=scale, layer=self.layer)
        weakref.finalize(encoding, _buffers.give_back, buffer)
        return encoding


def fits(hidden: int, curves: int) -> bool:
    """Tells whether the kernels work on embeddings of a size."""
    kernels = library()
    if kernels is None:
        return False
    return hidden % (2 * kernels.vector_width()) == 0 and curves <= MOST_CURVES
