import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.geometry.boxes import box_corners
from catk_sim.tokens import candidate_distance, corner_distance, token_distance
from tests import scenes

ARCS = scenes.arc_vocabulary().to(torch.float64)
# The moves of pedestrians and cyclists differ from those of vehicles.
SCALE = torch.tensor([1.0, 0.3, 0.7], dtype=torch.float64)[:, None, None, None]
VOCABULARY = ARCS.replace(poses=ARCS.poses * SCALE)
SEEDS = st.integers(0, 2**32 - 1)


def some_moves(seed: int, num_agents: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Types, positions (m), headings (rad), sizes (m), in float64 so that nothing ties."""
    generator = torch.Generator().manual_seed(seed)
    types = torch.randint(0, 5, (num_agents,), generator=generator)
    pose = torch.rand(num_agents, 3, generator=generator, dtype=torch.float64)
    xy = pose[:, :2] * torch.tensor([8.0, 4.0]) - torch.tensor([0.0, 2.0])
    size = 0.5 + 5 * torch.rand(num_agents, 2, generator=generator, dtype=torch.float64)
    return types, xy, 2 * pose[:, 2] - 1, size


@given(seed=SEEDS)
def test_the_distance_is_the_mean_over_the_corners(seed: int) -> None:
    _, xy, heading, size = some_moves(seed)
    _, other_xy, other_heading, _ = some_moves(seed + 1)
    corners = box_corners(xy, heading, size)
    other_corners = box_corners(other_xy, other_heading, size)
    expected = torch.linalg.vector_norm(corners - other_corners, dim=-1).mean(-1)
    pose = torch.cat([xy, heading[:, None]], dim=-1)
    other = torch.cat([other_xy, other_heading[:, None]], dim=-1)
    torch.testing.assert_close(corner_distance(pose, other, size), expected)


def test_a_turn_on_the_spot_moves_the_corners_by_its_chord() -> None:
    # A 3 x 4 m box has corners 2.5 m from its centre; half a turn takes each to its opposite.
    here, turned = torch.zeros(3), torch.tensor([0.0, 0.0, torch.pi])
    distance = corner_distance(here, turned, torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(distance, torch.tensor(5.0))


def test_whatever_has_fewer_dimensions_is_measured_for_all() -> None:
    poses = torch.rand(2, 7, 3, dtype=torch.float64)
    size = torch.tensor([4.0, 2.0], dtype=torch.float64)
    sizes = size * torch.tensor([[[1.0]], [[2.0]]], dtype=torch.float64)
    here = torch.zeros(3, dtype=torch.float64)
    every = corner_distance(poses, here, size)
    assert torch.equal(every, corner_distance(here, poses, size))
    for row, column in [(0, 0), (1, 6)]:
        one = corner_distance(poses[row, column], here, size)
        torch.testing.assert_close(every[row, column], one)
    assert torch.equal(corner_distance(poses[0], here, sizes)[0], every[0])
    assert corner_distance(poses[0], here, sizes).shape == (2, 7)


@given(seed=SEEDS)
def test_every_token_is_measured_to_the_pose(seed: int) -> None:
    types, xy, heading, _ = some_moves(seed)
    distance = token_distance(VOCABULARY, types, xy, heading)
    row = VOCABULARY.type_index(types)
    goal = box_corners(xy, heading, VOCABULARY.size[row])
    ends = VOCABULARY.end_corners[row]
    expected = torch.linalg.vector_norm(ends - goal[:, None], dim=-1).mean(-1)
    torch.testing.assert_close(distance, expected)


@given(seed=SEEDS)
def test_candidates_are_measured_as_all_tokens_are(seed: int) -> None:
    types, xy, heading, size = some_moves(seed)
    candidates = torch.randint(0, VOCABULARY.num_tokens, (len(types), 6))
    for box_size in (None, size):
        every = token_distance(VOCABULARY, types, xy, heading, box_size=box_size)
        some = candidate_distance(VOCABULARY, types, candidates, xy, heading, box_size=box_size)
        torch.testing.assert_close(some, every.gather(-1, candidates))


@given(seed=SEEDS)
def test_the_class_box_is_what_a_box_of_its_size_is(seed: int) -> None:
    types, xy, heading, _ = some_moves(seed)
    size = VOCABULARY.size[VOCABULARY.type_index(types)]
    by_class = token_distance(VOCABULARY, types, xy, heading)
    by_size = token_distance(VOCABULARY, types, xy, heading, box_size=size)
    torch.testing.assert_close(by_class, by_size)


def test_the_longer_the_box_the_more_a_turn_counts() -> None:
    types, xy = torch.ones(2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.float64)
    heading = torch.full((2,), 0.2, dtype=torch.float64)
    size = torch.tensor([[4.0, 2.0], [12.0, 2.5]], dtype=torch.float64)
    car, bus = token_distance(VOCABULARY, types, xy, heading, box_size=size)[:, 0]
    assert bus > 2 * car


@given(seed=SEEDS)
def test_corners_are_at_least_as_far_apart_as_centres(seed: int) -> None:
    types, xy, heading, size = some_moves(seed)
    distance = token_distance(VOCABULARY, types, xy, heading, box_size=size)
    ends = VOCABULARY.end_poses[VOCABULARY.type_index(types)][..., :2]
    centres = torch.linalg.vector_norm(ends - xy[:, None], dim=-1)
    assert (distance >= centres - 1e-12).all()
