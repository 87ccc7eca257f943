"""Weights as the kernels read them."""

import ctypes

from jaxtyping import Float
from torch import Tensor

from policies.smart.native.library import library, pointers


class LinearStructure(ctypes.Structure):
    """`struct linear`."""

    _fields_ = [
        *(("inputs", ctypes.c_int64), ("outputs", ctypes.c_int64)),
        *pointers("weight", "bias"),
    ]


class NormStructure(ctypes.Structure):
    """`struct norm`."""

    _fields_ = pointers("gain", "shift")


def pack(
    weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None
) -> tuple[Float[Tensor, "_ _ _"], Float[Tensor, " out"]]:
    """Lays the weights of a linear layer as the kernels read them, and its bias, zero if none."""
    blocks = weight.detach().unflatten(0, (-1, _block())).transpose(1, 2).contiguous()
    shift = weight.new_zeros(len(weight)) if bias is None else bias.detach().contiguous()
    return blocks, shift


def fits(*outputs: int) -> bool:
    """Tells whether the kernels work on linear layers of such numbers of outputs."""
    return library() is not None and all(size % _block() == 0 for size in outputs)


def _block() -> int:
    """Outputs whose weights lie together."""
    kernels = library()
    assert kernels is not None
    return 2 * int(kernels.vector_width())
