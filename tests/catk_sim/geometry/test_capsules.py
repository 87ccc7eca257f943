import math

import pytest
import torch
from torch import Tensor

from catk_sim.geometry.capsules import around_pieces, around_segments, square_bounds
from catk_sim.geometry.polylines import offset_from_segment, weighted_square


def walk(seed: int, dtype: torch.dtype, *, bends: float) -> Tensor:
    """Segments of a connected line: (6, 1 map, 8 groups, 8 segments)."""
    generator = torch.Generator().manual_seed(seed)
    turn = bends * torch.randn(64, generator=generator, dtype=torch.float64)
    length = 4 * torch.rand(64, generator=generator, dtype=torch.float64)
    heading = turn.cumsum(0)
    climb = 0.2 * length * torch.randn(64, generator=generator, dtype=torch.float64)
    step = torch.stack([length * heading.cos(), length * heading.sin(), climb], dim=1)
    line = torch.cat([torch.zeros(1, 3, dtype=torch.float64), step.cumsum(0)]).to(dtype)
    return torch.cat([line[:-1], line.diff(dim=0)], dim=1).T.reshape(6, 1, 8, 8)


def least_square(points: Tensor, segment: Tensor) -> Tensor:
    """Squared distance of (3, points) to the nearest segment of each group."""
    segment = segment.reshape(6, 1, *segment.shape[2:])
    offset = offset_from_segment(points[:, :, None, None], segment[:3], segment[3:])
    return weighted_square(offset).amin(dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bends", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_distances_are_within_the_bounds(seed: int, bends: float, dtype: torch.dtype) -> None:
    """Of groups of segments, and of the group of all groups; from points and from around them."""
    generator = torch.Generator().manual_seed(seed)
    segment = walk(seed, dtype, bends=bends)
    groups = around_pieces(around_segments(segment))
    block = around_pieces(groups[:, :, None])
    middle = 60 * torch.randn(3, 500, generator=generator, dtype=dtype)
    middle[2] /= 10
    for spread in ((0.0, 0.0), (5.0, 0.0), (0.0, 2.0), (5.0, 2.0)):
        angle = 2 * math.pi * torch.rand(500, generator=generator, dtype=dtype)
        up = 2 * torch.rand(500, generator=generator, dtype=dtype) - 1
        away = torch.stack([spread[0] * angle.cos(), spread[0] * angle.sin(), spread[1] * up])
        square = least_square(middle + away, segment)
        reach = spread[0], torch.tensor([[spread[1]]], dtype=dtype)
        bounds = square_bounds(middle[:2, :, None], middle[2, :, None], reach, groups[:, 0, None])
        assert (bounds[0] <= square).all()
        assert (square <= bounds[1]).all()
        bounds = square_bounds(middle[:2, :, None], middle[2, :, None], reach, block[:, 0, None])
        square = square.amin(dim=1, keepdim=True)
        assert (bounds[0] <= square).all()
        assert (square <= bounds[1]).all()


def test_the_bounds_of_a_straight_level_line_are_close() -> None:
    segment = walk(0, torch.float64, bends=0.0)
    segment[[2, 5]] = 0
    capsule = around_pieces(around_pieces(around_segments(segment))[:, :, None])[:, 0]
    points = 60 * torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).double()
    still = 0.0, torch.zeros(1, dtype=torch.float64)
    low, high = (
        bound.sqrt() for bound in square_bounds(points[:2], points[2], still, capsule[:, :1])
    )
    assert (high - low).max() < 0.01


def test_an_absent_piece_adds_nothing() -> None:
    segment = walk(1, torch.float64, bends=0.3)
    pieces = around_segments(segment)
    beyond = pieces.clone()
    beyond[:2, ..., 5:] = 1e9
    beyond[6, ..., 5:] = -math.inf
    assert torch.equal(around_pieces(beyond), around_pieces(pieces[..., :5]))


def test_what_is_absent_is_infinitely_far() -> None:
    pieces = around_segments(walk(1, torch.float64, bends=0.3))
    pieces[6] = -math.inf
    capsules = around_pieces(around_pieces(pieces)[:, :, None])[:, 0]
    xy, z = torch.zeros(2, 1).double(), torch.zeros(1).double()
    for bound in square_bounds(xy, z, (3.0, torch.ones(1)), capsules):
        assert bound.tolist() == [math.inf]
