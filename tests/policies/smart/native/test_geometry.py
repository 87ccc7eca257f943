import math

import pytest
import torch
from torch import Tensor

from policies.smart.graph import Neighbors, Poses, radius_edges, relative_pose

pytestmark = pytest.mark.usefixtures("kernels")


def random_poses(seed: int, count: int) -> Poses:
    generator = torch.Generator().manual_seed(seed)
    return Poses(
        xy=200 * torch.rand(count, 2, generator=generator) - 100,
        heading=(torch.rand(count, generator=generator) - 0.5) * 30,
        group=torch.randint(3, (count,), generator=generator),
    )


def all_pairs(destinations: Poses, sources: Poses) -> Neighbors:
    count, others = len(destinations.heading), len(sources.heading)
    destination = torch.arange(count).repeat_interleave(others)
    source = torch.arange(others).repeat(count)
    return Neighbors.from_edges(destination, source, count, padded=False)


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.smart.graph.takes", lambda _: False)


def test_relative_poses_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    destinations, sources = random_poses(0, 30), random_poses(1, 70)
    pairs = all_pairs(destinations, sources)
    native = relative_pose(destinations, sources, pairs)
    without_kernels(monkeypatch)
    expected = relative_pose(destinations, sources, pairs)
    torch.testing.assert_close(native[:, :2], expected[:, :2], atol=1e-6, rtol=1e-6)
    assert torch.equal(native[:, 2], expected[:, 2])


def grid() -> Poses:
    """Places in all eight directions of each other, turned by multiples of 45 degrees."""
    x, y, eighths = torch.meshgrid(
        *[torch.arange(-2.0, 3.0)] * 2, torch.arange(-8.0, 9.0), indexing="ij"
    )
    xy = torch.stack([x, y], dim=-1).reshape(-1, 2)
    heading = eighths.flatten() * (math.pi / 4)
    return Poses(xy=xy, heading=heading, group=torch.zeros(len(xy), dtype=torch.int64))


def test_what_is_straight_behind_is_on_the_side_where_torch_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bearing leaps from -pi to pi there, and so does a wrapped heading."""
    poses = grid()
    pairs = all_pairs(
        Poses(xy=poses.xy[:170], heading=poses.heading[:170], group=poses.group[:170]), poses
    )
    native = relative_pose(poses, poses, pairs)
    without_kernels(monkeypatch)
    expected = relative_pose(poses, poses, pairs)
    assert (expected[:, 1].abs() > 3.14).any()
    torch.testing.assert_close(native[:, :2], expected[:, :2], atol=1e-6, rtol=1e-6)
    assert torch.equal(native[:, 2], expected[:, 2])


@pytest.mark.parametrize(
    "turn", [0.0, 3.0, -3.2, 7.0, -7.0, 50.0, -50.0, 1e4, -3 * math.pi, 3 * math.pi]
)
def test_headings_are_wrapped_as_torch_does(turn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    here = Poses(xy=torch.zeros(1, 2), heading=torch.zeros(1), group=zero)
    there = Poses(xy=torch.ones(1, 2), heading=torch.tensor([turn]), group=zero)
    pair = Neighbors.from_edges(zero, zero, 1, padded=False)
    native = relative_pose(here, there, pair)
    without_kernels(monkeypatch)
    assert torch.equal(native[:, 2], relative_pose(here, there, pair)[:, 2])


@pytest.mark.parametrize("radius", [2.0, 30.0, 500.0])
def test_edges_are_those_of_torch_in_the_same_order(
    radius: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    destinations, sources = random_poses(2, 200), random_poses(3, 700)
    native = radius_edges(destinations, sources, radius)
    without_kernels(monkeypatch)
    expected = radius_edges(destinations, sources, radius)
    assert len(expected[0]) > 0
    assert all(torch.equal(one, other) for one, other in zip(native, expected, strict=True))


def test_at_the_radius_is_not_within_it() -> None:
    zero = torch.zeros(2, dtype=torch.int64)
    sources = Poses(xy=torch.tensor([[3.0, 4.0], [3.0, 3.999]]), heading=torch.zeros(2), group=zero)
    here = Poses(xy=torch.zeros(1, 2), heading=torch.zeros(1), group=zero[:1])
    destination, source = radius_edges(here, sources, 5.0)
    assert (destination.tolist(), source.tolist()) == ([0], [1])


def test_not_a_number_is_a_bearing_that_is_none() -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    here = Poses(xy=torch.zeros(1, 2), heading=torch.zeros(1), group=zero)
    there = Poses(xy=torch.full((1, 2), torch.nan), heading=torch.zeros(1), group=zero)
    pair = Neighbors.from_edges(zero, zero, 1, padded=False)
    pose: Tensor = relative_pose(here, there, pair)
    assert pose[0, :2].isnan().all()
