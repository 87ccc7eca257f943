"""Linear layers with normalisation and ReLU between them, in C."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from policies.smart.native import threads
from policies.smart.native.library import POINTER
from policies.smart.native.packing import LinearStructure, NormStructure, pack


class _Stage(ctypes.Structure):
    """`struct stage`."""

    _fields_ = [("linear", LinearStructure), ("norm", NormStructure)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stages:
    """The weights of all layers, as the kernel reads them.

    Attributes:
        structures: Their addresses.
        kept: What lies there.
        num_features: Of what comes out.
        cost: Multiplications for a row.
    """

    structures: ctypes.Array[_Stage]
    kept: tuple[Tensor, ...]
    num_features: int
    cost: int

    @classmethod
    def pack(cls, linears: Sequence[nn.Linear], norms: Sequence[nn.LayerNorm]) -> "Stages":
        """Packs linear layers and the normalisations behind all of them but the last."""
        packed = [pack(linear.weight, linear.bias) for linear in linears]
        told = (_Stage * len(linears))()
        for stage, pair in zip(told, packed, strict=True):
            stage.linear = LinearStructure.of(*pair)
        for stage, norm in zip(told, norms, strict=False):
            stage.norm = NormStructure.of(norm.weight, norm.bias)
        return cls(
            structures=told,
            kept=tuple(tensor for pair in packed for tensor in pair),
            num_features=linears[-1].out_features,
            cost=sum(linear.weight.numel() for linear in linears),
        )

    def __call__(self, rows: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Runs rows through all layers, without a gradient."""
        rows = rows.contiguous()
        made = rows.new_empty(*rows.shape[:-1], self.num_features)
        arguments = (
            *(self.structures, ctypes.c_int64(len(self.structures))),
            *(POINTER(rows.data_ptr()), POINTER(made.data_ptr())),
        )
        threads.run("mlp", arguments, rows.shape[:-1].numel(), cost=self.cost)
        return made
