"""The map vocabulary: short curves that pieces of map features are told in."""

import hashlib
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

_LENGTH = 5.0
_POINTS = 11
# How much the two halves of a curve of full length turn (rad), to either side: finely where most
# lanes are, up to the corners of kerbs.
_TURNS = (0.0015, 0.004, 0.009, 0.018, 0.035, 0.07, 0.14, 0.28, 0.5, 0.85, 1.3, 2.0)
# How much shorter curves turn, ends of features.
_SHORT_TURNS = (0.01, 0.04, 0.1, 0.2, 0.4, 0.7, 1.1, 1.7, 2.5)
_NUM_SHORT_LENGTHS = 21
_SUBSTEPS = 10
# Pairs of token and curve that a processor compares at a time: within its cache, and by numpy,
# which finds the least several times faster than torch.
_CPU_PAIRS = 2**16


@cache
def map_vocabulary() -> Float[Tensor, "curves points 2"]:
    """Builds 1024 curves (m) that begin at the origin along +x.

    625 are 5 m long and turn by any of 25 angles in each half, so arcs and S-bends; 399 are
    shorter arcs of 0.5 m to 4.95 m. The same on every machine: rounded to 0.1 mm. All callers share
    one tensor: do not write to it.
    """
    turns = _both_sides(_TURNS)
    halves = torch.cartesian_prod(turns, turns)
    lengths = torch.linspace(0.5, _LENGTH - 0.05, _NUM_SHORT_LENGTHS, dtype=torch.float64)
    short = torch.cartesian_prod(lengths, _both_sides(_SHORT_TURNS))
    length = torch.cat([torch.full_like(halves[:, 0], _LENGTH), short[:, 0]])
    first = torch.cat([halves[:, 0], short[:, 1] / 2])
    second = torch.cat([halves[:, 1], short[:, 1] / 2])
    return (_integrate(length, first, second) * 1e4).round().to(torch.float32) / 1e4


def match_curves(
    curves_local: Float[Tensor, "tokens 3 2"], vocabulary: Float[Tensor, "curves points 2"]
) -> Int[Tensor, " tokens"]:
    """Finds the curve whose begin, middle and end have the smallest summed squared distance."""
    points = vocabulary[:, :: (_POINTS - 1) // 2].flatten(1).to(curves_local)
    # The square of the token itself is the same for all curves.
    tokens = pad(curves_local.flatten(1), (0, 1), value=1.0)
    curves = torch.cat([-2 * points, points.square().sum(dim=1, keepdim=True)], dim=1).mT
    if tokens.device.type != "cpu":
        return (tokens @ curves).argmin(dim=1)
    parts = tokens.split(max(1, _CPU_PAIRS // len(points)))
    return torch.from_numpy(
        np.concatenate([(part.numpy() @ curves.numpy()).argmin(axis=1) for part in parts])
    )


def map_vocabulary_digest(vocabulary: Float[Tensor, "curves points 2"]) -> str:
    """Hashes a map vocabulary: SHA-256 over the shape and the float32 numbers."""
    content = hashlib.sha256(str(tuple(vocabulary.shape)).encode())
    # Adding zero turns -0.0 into 0.0, so that equal numbers have equal bytes.
    numbers = vocabulary.detach().to("cpu", torch.float32).contiguous() + 0.0
    content.update(numbers.numpy().astype("<f4").tobytes())
    return content.hexdigest()


def _both_sides(turns: tuple[float, ...]) -> Tensor:
    right = torch.tensor(turns, dtype=torch.float64)
    return torch.cat([-right.flip(0), right.new_zeros(1), right])


def _integrate(length: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Follows the curves; each half turns at a constant rate."""
    num_steps = (_POINTS - 1) * _SUBSTEPS
    progress = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps * 2
    heading = first[:, None] * progress.clamp(max=1) + second[:, None] * (progress - 1).clamp(min=0)
    steps = (
        torch.stack([heading.cos(), heading.sin()], dim=-1) * (length / num_steps)[:, None, None]
    )
    xy = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(dim=1)], dim=1)
    return xy[:, ::_SUBSTEPS]
