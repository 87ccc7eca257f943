"""Embeddings of a few numbers in C."""

import ctypes
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.smart.linear import linear
from policies.smart.native import threads
from policies.smart.native.library import POINTER, library, pointers
from policies.smart.native.packing import LinearStructure, NormStructure, pack
from policies.smart.native.packing import fits as fits_linear

_INT = ctypes.c_int64
MOST_CURVES = 8
"""How many tabulated curves can be summed."""


class _Waves(ctypes.Structure):
    """`struct waves`."""

    _fields_ = [
        *(("column", _INT), ("count", _INT), *pointers("frequency")),
        *(("first", LinearStructure), ("norm", NormStructure), ("second", LinearStructure)),
    ]


class _Curves(ctypes.Structure):
    """`struct curves`."""

    _fields_ = [
        *(("columns", _INT), ("waves_count", _INT), *pointers("waves")),
        *((name, _INT) for name in ("count", "places", "hidden")),
        *pointers("column", "table", "first", "scale", "gain", "shift", "matrix", "bias"),
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
class Waves:
    """The network of a number that has no table; see `FourierEmbedding`.

    Attributes:
        column: Which of the numbers it is.
        frequencies: Those of its cosines and sines.
        first: Weights and bias of the first layer, which reads cosines, sines and the number.
        gain: Those of the normalisation behind it.
        shift: The same.
        second: Weights and bias of the last layer, whose results have mean zero.
    """

    column: int
    frequencies: Float[Tensor, " frequencies"]
    first: tuple[Float[Tensor, "hidden in"], Float[Tensor, " hidden"]]
    gain: Float[Tensor, " hidden"]
    shift: Float[Tensor, " hidden"]
    second: tuple[Float[Tensor, "hidden hidden"], Float[Tensor, " hidden"]]

    @cached_property
    def structure(self) -> _Waves:
        """What kernels are told of it."""
        return _Waves(
            column=self.column,
            count=len(self._padded[0]),
            frequency=self._padded[0].data_ptr(),
            first=LinearStructure.of(*self._padded[1:3]),
            norm=NormStructure.of(self.gain, self.shift),
            second=LinearStructure.of(*self._padded[3:]),
        )

    @cached_property
    def _padded(self) -> tuple[Tensor, ...]:
        """Frequencies and packed weights; frequencies of no weight are added to fill vectors."""
        kernels = library()
        assert kernels is not None
        weight, bias = self.first
        missing = -len(self.frequencies) % int(kernels.vector_width())
        cosines, sines, number = weight.tensor_split(
            [len(self.frequencies), weight.shape[1] - 1], 1
        )
        nothing = weight.new_zeros(len(weight), missing)
        return (
            torch.cat([self.frequencies, weight.new_zeros(missing)]),
            *pack(torch.cat([cosines, nothing, sines, nothing, number], dim=1), bias),
            *pack(*self.second),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """Curves in feature space, tabulated unless they have no end; see `FourierEmbedding`.

    Attributes:
        columns: Which of the numbers each tabulated curve is of.
        table: Places on each curve, one curve behind the other.
        first: The number that belongs to the first place of each curve.
        scale: How many places the next whole number is away.
        waves: The curves of the other numbers.
        gain: What sums of places are multiplied by, once they are normalised.
        shift: What is added then.
        layer: What follows the clamping at zero.
    """

    columns: Int[Tensor, " curves"]
    table: Float[Tensor, "places hidden"]
    first: Float[Tensor, " curves"]
    scale: Float[Tensor, " curves"]
    waves: tuple[Waves, ...]
    gain: Float[Tensor, " hidden"]
    shift: Float[Tensor, " hidden"]
    layer: Layer

    @cached_property
    def structure(self) -> _Curves:
        """What kernels are told of them."""
        (places, hidden), num_curves = self.table.shape, len(self.first)
        return _Curves(
            columns=num_curves + len(self.waves),
            waves_count=len(self.waves),
            waves=ctypes.addressof(self._waves),
            count=num_curves,
            places=places // num_curves,
            hidden=hidden,
            column=self.columns.data_ptr(),
            table=self.table.data_ptr(),
            first=self.first.data_ptr(),
            scale=self.scale.data_ptr(),
            gain=self.gain.data_ptr(),
            shift=self.shift.data_ptr(),
            matrix=self.layer.triangle.data_ptr(),
            bias=self.layer.turned_bias.data_ptr(),
        )

    @cached_property
    def _waves(self) -> ctypes.Array[_Waves]:
        return (_Waves * len(self.waves))(*(waves.structure for waves in self.waves))

    @cached_property
    def _cost(self) -> int:
        """Multiplications for a row."""
        hidden = self.table.shape[1]
        return hidden**2 + sum(
            waves.first[0].numel() + waves.second[0].numel() for waves in self.waves
        )

    def embed(
        self,
        numbers: Float[Tensor, "rows numbers"],
        extra: Float[Tensor, "rows hidden"] | None = None,
    ) -> Float[Tensor, "rows hidden"]:
        """Embeds rows of numbers, up to the last layer; `extra` is added before normalising."""
        numbers, features = numbers.contiguous(), numbers.new_empty(len(numbers), len(self.gain))
        given = None if extra is None else extra.contiguous()
        assert given is None or given.shape == features.shape
        self._run("embed", (numbers, given, features))
        return features

    def encode(self, numbers: Float[Tensor, "rows numbers"]) -> Encoding:
        """Encodes rows of numbers."""
        numbers, hidden = numbers.contiguous(), len(self.gain)
        features = _memory.take(len(numbers) * hidden).view(len(numbers), hidden)
        scale = numbers.new_empty(len(numbers))
        self._run("encode", (numbers, features, scale))
        return Encoding(features=features, scale=scale, layer=self.layer)

    def _run(self, kernel: str, tensors: Sequence[Tensor | None]) -> None:
        numbers = tensors[0]
        assert numbers is not None
        assert numbers.shape[1] == self.structure.columns
        pointers_to = (POINTER(None if each is None else each.data_ptr()) for each in tensors)
        arguments = (ctypes.byref(self.structure), *pointers_to)
        threads.run(kernel, arguments, len(numbers), cost=self._cost)


def fits(hidden: int, curves: int) -> bool:
    """Tells whether the kernels work on embeddings of a size."""
    return fits_linear(hidden) and 0 < curves <= MOST_CURVES
