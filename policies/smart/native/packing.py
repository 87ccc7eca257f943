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

    @classmethod
    def of(cls, blocks: Float[Tensor, "_ _ _"], bias: Float[Tensor, " out"]) -> "LinearStructure":
        """Tells of a packed layer, which must be kept."""
        return cls(blocks.shape[1], len(bias), blocks.data_ptr(), bias.data_ptr())


class NormStructure(ctypes.Structure):
    """`struct norm`."""

    _fields_ = pointers("gain", "shift")

    @classmethod
    def of(cls, gain: Float[Tensor, " out"], shift: Float[Tensor, " out"]) -> "NormStructure":
        """Tells of a normalisation, which must be kept."""
        return cls(gain.data_ptr(), shift.data_ptr())


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
