"""Encodings of relations in C."""

import ctypes
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np
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


class _Memory:
    """Memory that is used again, in pieces of any size.

    The system hands out fresh memory page by page, which takes as long as encoding does.
    """

    # Numbers: of a slab, and what may be free before a slab that nobody uses is given back.
    _SLAB = 2**22
    _MOST_KEPT = 2**26

    def __init__(self) -> None:
        self._slabs: dict[int, np.ndarray] = {}
        # Slab, begin and end of each piece.
        self._free: list[tuple[int, int, int]] = []
        # Pieces come back whenever a tensor dies, even within `take`.
        self._returned: deque[tuple[int, int, int]] = deque()
        self._renew_lock()
        # A thread that holds the lock is not there in a forked process.
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def take(self, size: int) -> Float[Tensor, " size"]:
        """Returns a tensor, whose memory comes back when nothing refers to it any more."""
        with self._lock:
            self._collect()
            for place, (slab, begin, end) in enumerate(self._free):
                if end - begin >= size:
                    self._free[place] = (slab, begin + size, end)
                    break
            else:
                slab, begin = self._make_slab(size), 0
            numbers = self._slabs[slab][begin : begin + size]
        weakref.finalize(numbers, self._returned.append, (slab, begin, begin + size))
        return torch.from_numpy(numbers)

    def _make_slab(self, size: int) -> int:
        slab = next(number for number in count() if number not in self._slabs)
        # A large piece is followed by others about as large, which are to fit.
        numbers = max(1 << max(0, size - 1).bit_length(), self._SLAB)
        self._slabs[slab] = torch.empty(numbers).numpy()
        self._free.append((slab, size, numbers))
        return slab

    def _collect(self) -> None:
        """Joins what is free and lies side by side, and gives whole slabs back to the system."""
        pieces = [*self._free, *(self._returned.popleft() for _ in range(len(self._returned)))]
        self._free = []
        for slab, begin, end in sorted(pieces):
            last = self._free[-1] if self._free else None
            if last is not None and last[0] == slab and last[2] == begin:
                self._free[-1] = (slab, last[1], end)
            elif end > begin:
                self._free.append((slab, begin, end))
        kept = 0
        for slab, begin, end in list(self._free):
            kept += end - begin
            if kept > self._MOST_KEPT and end - begin == len(self._slabs[slab]):
                self._free.remove((slab, begin, end))
                del self._slabs[slab]


_memory = _Memory()


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoding:
    """Normalised encodings before their last layer, which attention takes upon itself.

    They are layer(features) with `scale` times the layer's bias. Only their deviation is worked
    out, for which half a product is enough; the rest is linear.

    Attributes:
        features: What the last layer reads, divided by the deviation of its result.
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
        num_curves, numbers = len(self.first), numbers.contiguous()
        features = _memory.take(len(numbers) * hidden).view(len(numbers), hidden)
        scale = numbers.new_empty(len(numbers))
        curves = _Curves(
            count=num_curves,
            places=places // num_curves,
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
        return Encoding(features=features, scale=scale, layer=self.layer)


def fits(hidden: int, curves: int) -> bool:
    """Tells whether the kernels work on embeddings of a size."""
    kernels = library()
    if kernels is None:
        return False
    return hidden % (2 * kernels.vector_width()) == 0 and curves <= MOST_CURVES
