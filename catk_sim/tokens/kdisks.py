"""k-disks: a vocabulary whose tokens lie no closer than a tolerance.

Philion et al., "Trajeglish: Traffic Modeling as Next-Token Prediction", arXiv:2312.04535, algorithm
1, as SMART and CAT-K use it: motions are drawn one after the other, and each takes all motions
within the tolerance with it. Their mean becomes the token.

Uniform over the motions that are left, so rare motions get more tokens than their share, by design.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from catk_sim.geometry import se2
from catk_sim.tokens.distance import corner_distance
from catk_sim.tokens.vocabulary import CLASS_SIZE, MotionVocabulary

MIN_TOLERANCE = 1e-4
"""Tokens closer than this (m) are not told apart."""


def build_vocabulary(
    motions: Sequence[Float[Tensor, "_ 6 3"]],
    *,
    num_tokens: int = 2048,
    tolerance: float = 0.05,
    seed: int = 2,
) -> tuple[MotionVocabulary, tuple[float, ...]]:
    """Builds a vocabulary from the motions of vehicles, of pedestrians and of cyclists.

    Where the motions of a type run out before there are enough tokens, the tolerance of that type
    is halved until they do not.

    Args:
        motions: For each type, distinct motions in the frame of their first pose (m, m, rad).
        num_tokens: Tokens of each type.
        tolerance: Mean corner distance (m) within which motions become one token.
        seed: Seed of the draws.

    Returns:
        The vocabulary, and the tolerance (m) that each type needed.

    Raises:
        ValueError: If a type has too few motions that differ.
    """
    size = torch.tensor(CLASS_SIZE)
    if len(motions) != len(size):
        raise ValueError(f"motions of {len(size)} types are needed, got {len(motions)}")
    tables, tolerances = [], []
    for row, of_type in enumerate(motions):
        generator = Generator().manual_seed(seed + row)
        table, needed = _fill_table(of_type, size[row], num_tokens, tolerance, generator)
        tables.append(table)
        tolerances.append(needed)
    return MotionVocabulary.from_poses(torch.stack(tables), size), tuple(tolerances)


def draw_disks(
    motions: Float[Tensor, "motions 6 3"],
    box_size: Float[Tensor, "2"],
    *,
    num_tokens: int,
    tolerance: float,
    generator: Generator,
) -> Float[Tensor, "tokens 6 3"]:
    """Draws tokens until there are enough or no motion is left. The first stands still.

    Args:
        motions: Distinct motions in the frame of their first pose (m, m, rad).
        box_size: Length and width (m) of the box that motions are compared by.
        num_tokens: Tokens to draw at most.
        tolerance: Mean corner distance (m) within which motions become one token.
        generator: Source of randomness.
    """
    still = motions.new_zeros(1, *motions.shape[1:])
    # Corners are on average at least as far apart as centres, so whoever is within the tolerance is
    # so in x too: in the order of x a disk is a short stretch.
    motions = torch.cat([still, motions])
    motions = motions[motions[:, -1, 0].argsort(stable=True)]
    x = motions[:, -1, 0].contiguous()
    left = torch.ones(len(motions), dtype=torch.bool)
    tokens = [still[0]]
    _take_disk(motions, x, left, still[0], box_size, tolerance)
    # Walking through a random order past those that are taken draws evenly from those left.
    for drawn in torch.randperm(len(motions), generator=generator).tolist():
        if len(tokens) == num_tokens:
            break
        if left[drawn]:
            tokens.append(_take_disk(motions, x, left, motions[drawn], box_size, tolerance))
    return torch.stack(tokens)


def _take_disk(
    motions: Float[Tensor, "motions 6 3"],
    x: Float[Tensor, " motions"],
    left: Bool[Tensor, " motions"],
    centre: Float[Tensor, "6 3"],
    box_size: Float[Tensor, "2"],
    tolerance: float,
) -> Float[Tensor, "6 3"]:
    """Strikes the motions around one off those left, and returns their mean."""
    bounds = torch.stack([centre[-1, 0] - tolerance, centre[-1, 0] + tolerance])
    start, stop = torch.searchsorted(x, bounds, right=True).tolist()
    start = max(0, start - 1)
    stretch = motions[start:stop]
    distance = corner_distance(stretch[:, -1], centre[-1], box_size)
    disk = left[start:stop] & (distance <= tolerance)
    left[start:stop] &= ~disk
    difference = stretch[disk] - centre
    turn = se2.wrap_angle(difference[..., 2])
    mean = torch.cat([difference[..., :2], turn[..., None]], dim=-1).mean(0) + centre
    return torch.cat([mean[:, :2], se2.wrap_angle(mean[:, 2:])], dim=-1)


def _fill_table(
    motions: Float[Tensor, "motions 6 3"],
    box_size: Float[Tensor, "2"],
    num_tokens: int,
    tolerance: float,
    generator: Generator,
) -> tuple[Float[Tensor, "tokens 6 3"], float]:
    while tolerance >= MIN_TOLERANCE and len(motions) >= num_tokens:
        tokens = draw_disks(
            motions, box_size, num_tokens=num_tokens, tolerance=tolerance, generator=generator
        )
        if len(tokens) == num_tokens:
            return tokens, tolerance
        tolerance /= 2
    raise ValueError(
        f"{num_tokens} tokens need as many motions that lie {MIN_TOLERANCE} m apart; of the "
        f"{len(motions)} motions given too few do: give more, or add generated ones"
    )
