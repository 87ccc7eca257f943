"""Square roots to the last bit."""

from jaxtyping import Float
from torch import Tensor


def rounded_sqrt(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns the numbers of the same precision that are nearest to the square roots.

    Torch's own root of float32 numbers is one place off for a fifth of them on some processors,
    which decides which of two equally near things is found, and whether a figure is Waymo's.
    """
    return values.double().sqrt().to(values.dtype)
