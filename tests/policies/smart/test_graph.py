import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.smart.graph import Neighbors, Poses, radius_edges, relative_pose


def random_poses(seed: int, count: int) -> Poses:
    generator = torch.Generator().manual_seed(seed)
    return Poses(
        xy=100 * torch.rand(count, 2, generator=generator),
        heading=torch.rand(count, generator=generator),
        group=torch.randint(3, (count,), generator=generator),
    )


def random_edges(seed: int, num_destinations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A few with many neighbours, many with few, some with none."""
    generator = torch.Generator().manual_seed(seed)
    degree = (200 * torch.rand(num_destinations, generator=generator) ** 6).long()
    destination = torch.arange(num_destinations).repeat_interleave(degree)
    source = torch.randint(1000, destination.shape, generator=generator)
    return destination, source


@given(seed=st.integers(0, 1000), num_destinations=st.integers(0, 300))
def test_neighbors_hold_every_edge_once(seed: int, num_destinations: int) -> None:
    destination, source = random_edges(seed, num_destinations)
    neighbors = Neighbors.from_edges(destination, source, num_destinations)
    assert neighbors.num_edges == len(source)
    real = ~neighbors.is_padding
    found = torch.stack([neighbors.slot_destination[real], neighbors.source[real]])
    expected = torch.stack([destination, source])
    assert sorted(found.T.tolist()) == sorted(expected.T.tolist())


@given(seed=st.integers(0, 1000), num_destinations=st.integers(0, 300))
def test_buckets_lie_one_behind_the_other(seed: int, num_destinations: int) -> None:
    destination, source = random_edges(seed, num_destinations)
    neighbors = Neighbors.from_edges(destination, source, num_destinations)
    row = slot = 0
    for bucket in neighbors.buckets:
        assert (bucket.rows.start, bucket.slots.start) == (row, slot)
        row, slot = bucket.rows.stop, bucket.slots.stop
        rows = neighbors.slot_destination[bucket.slots].view(bucket.shape)
        assert (rows == neighbors.destination[bucket.rows, None]).all()
    assert (row, slot) == (len(neighbors.destination), len(neighbors.source))
    assert set(neighbors.destination.tolist()) == set(destination.tolist())


def test_little_of_a_large_neighborhood_is_padding() -> None:
    destination, source = random_edges(0, 3000)
    neighbors = Neighbors.from_edges(destination, source, 3000)
    assert neighbors.is_padding.float().mean() < 0.15


@pytest.mark.parametrize("radius", [3.0, 20.0, 500.0])
@given(seed=st.integers(0, 1000))
def test_radius_edges_are_the_pairs_of_a_group_within_the_radius(seed: int, radius: float) -> None:
    destinations, sources = random_poses(seed, 40), random_poses(seed + 1, 60)
    destination, source = radius_edges(destinations, sources, radius)
    near = (destinations.xy[:, None] - sources.xy).norm(dim=-1) < radius
    same = destinations.group[:, None] == sources.group
    assert (destination.diff() >= 0).all()
    found = torch.stack([destination, source], dim=1).tolist()
    assert sorted(found) == (near & same).nonzero().tolist()


@given(seed=st.integers(0, 1000))
def test_nobody_is_its_own_neighbor(seed: int) -> None:
    poses = random_poses(seed, 40)
    destination, source = radius_edges(poses, poses, 20.0)
    near = (poses.xy[:, None] - poses.xy).norm(dim=-1) < 20
    same = poses.group[:, None] == poses.group
    others = ~torch.eye(40, dtype=torch.bool)
    found = torch.stack([destination, source], dim=1).tolist()
    assert sorted(found) == (near & same & others).nonzero().tolist()


def test_who_is_far_from_all_sources_finds_none_of_another_group() -> None:
    """Rows of cells of one group follow those of another."""
    sources, some = random_poses(0, 60), random_poses(1, 40)
    for away in ([1e3, 0.0], [0.0, 70.0], [0.0, -70.0], [-1e9, 1e9]):
        there = replace(some, xy=some.xy + torch.tensor(away))
        destination, source = radius_edges(there, sources, 20.0)
        near = (there.xy[:, None] - sources.xy).norm(dim=-1) < 20
        same = there.group[:, None] == sources.group
        found = torch.stack([destination, source], dim=1).tolist()
        assert sorted(found) == (near & same).nonzero().tolist()


def test_nobody_is_near_to_nothing() -> None:
    some, none = random_poses(0, 3), random_poses(0, 0)
    for pair in ((some, none), (none, some), (none, none)):
        destination, source = radius_edges(*pair, 10.0)
        assert len(destination) == len(source) == 0


def test_a_relative_pose_is_seen_from_the_destination() -> None:
    """The destination looks north; the source is 3 m east and 4 m north of it and looks west."""
    here = Poses(
        xy=torch.tensor([[1.0, 1.0]]),
        heading=torch.tensor([math.pi / 2]),
        group=torch.zeros(1, dtype=torch.int64),
    )
    there = Poses(
        xy=torch.tensor([[4.0, 5.0]]),
        heading=torch.tensor([math.pi]),
        group=torch.zeros(1, dtype=torch.int64),
    )
    zero = torch.zeros(1, dtype=torch.int64)
    neighbors = Neighbors.from_edges(zero, zero, 1)
    [[distance, bearing, turn]] = relative_pose(here, there, neighbors).tolist()
    assert distance == pytest.approx(5)
    assert bearing == pytest.approx(-math.atan2(3, 4))
    assert turn == pytest.approx(math.pi / 2)


@pytest.mark.parametrize("heading", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -2.0])
def test_the_bearing_of_the_same_place_is_zero(heading: float) -> None:
    zero = torch.zeros(1, dtype=torch.int64)
    here = Poses(xy=torch.ones(1, 2), heading=torch.tensor([heading]), group=zero)
    neighbors = Neighbors.from_edges(zero, zero, 1)
    assert relative_pose(here, here, neighbors).tolist() == [[0.0, 0.0, 0.0]]
