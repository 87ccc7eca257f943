import pytest
import torch

from catk_sim.tokens import corner_distance, motions
from catk_sim.tokens.kdisks import build_vocabulary, draw_disks

BOX = torch.tensor([1.0, 1.0])


def ending(*poses: tuple[float, float, float]) -> torch.Tensor:
    """Motions that go evenly to their last pose."""
    part = torch.linspace(0, 1, 6)[:, None]
    return torch.stack([part * torch.tensor(pose) for pose in poses])


def draw(given: torch.Tensor, num_tokens: int = 10, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return draw_disks(given, BOX, num_tokens=num_tokens, tolerance=0.05, generator=generator)


def some_motions(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [motions.generate_motions(count, limits, generator) for limits in motions.LIMITS]


def test_the_first_token_stands_still() -> None:
    tokens = draw(ending((1.0, 0.0, 0.0), (0.01, 0.0, 0.0)))
    assert not tokens[0].any()
    assert len(tokens) == 2


def test_motions_within_the_tolerance_become_their_mean() -> None:
    near = ending((1.0, 0.0, 0.0), (1.02, 0.0, 0.01), (1.01, 0.03, 0.02))
    tokens = draw(near)
    assert len(tokens) == 2
    torch.testing.assert_close(tokens[1], near.mean(0))


def test_motions_beyond_the_tolerance_become_several_tokens() -> None:
    assert len(draw(ending((1.0, 0.0, 0.0), (1.06, 0.0, 0.0)))) == 3


def test_a_turn_counts_by_how_far_it_moves_the_corners() -> None:
    # Corners 0.71 m out: a turn of 0.06 moves them by 4 cm, one of 0.08 by 6 cm.
    assert len(draw(ending((1.0, 0.0, 0.0), (1.0, 0.0, 0.06)))) == 2
    assert len(draw(ending((1.0, 0.0, 0.0), (1.0, 0.0, 0.08)))) == 3


def test_headings_on_both_sides_of_pi_have_their_mean_there() -> None:
    token = draw(ending((1.0, 0.0, 3.13), (1.0, 0.0, -3.13)))[1]
    assert token[-1, 2].abs() > 3.1


def test_every_motion_is_near_a_token() -> None:
    given = some_motions(3000)[1]
    tokens = draw(given, num_tokens=4000)
    distance = corner_distance(given[:, None, -1], tokens[None, :, -1], BOX).amin(-1)
    # Within the tolerance of the motion drawn, whose disk has its mean within the tolerance too.
    assert distance.max() <= 0.1


def test_no_motion_counts_twice() -> None:
    row = ending((1.0, 0.0, 0.0), (1.04, 0.0, 0.0), (1.08, 0.0, 0.0))
    drawn = {
        tuple(round(x, 3) for x in sorted(draw(row, seed=seed)[1:, -1, 0].tolist()))
        for seed in range(20)
    }
    # Whoever is drawn first takes its neighbour along; the middle one takes both.
    assert drawn == {(1.02, 1.08), (1.0, 1.06), (1.04,)}


def test_each_type_gets_as_many_tokens_as_wanted() -> None:
    vocabulary, tolerance = build_vocabulary(some_motions(3000), num_tokens=100)
    assert vocabulary.poses.shape == (3, 100, 6, 3)
    assert tolerance == (0.05, 0.05, 0.05)


def test_where_motions_run_out_the_tolerance_shrinks() -> None:
    few = ending(*[(0.02 * index, 0.0, 0.0) for index in range(1, 40)])
    others = some_motions(500)
    vocabulary, tolerance = build_vocabulary([others[0], few, others[2]], num_tokens=30)
    assert tolerance == (0.05, 0.0125, 0.05)
    assert len(vocabulary.end_poses[1].unique(dim=0)) == 30


def test_too_few_motions_are_refused() -> None:
    with pytest.raises(ValueError, match="30 tokens need as many motions"):
        build_vocabulary([ending((1.0, 0.0, 0.0))] * 3, num_tokens=30)


def test_motions_that_all_end_alike_are_refused() -> None:
    alike = ending((1.0, 0.0, 0.0)).repeat(50, 1, 1)
    with pytest.raises(ValueError, match="too few do"):
        build_vocabulary([alike] * 3, num_tokens=30)


def test_a_missing_type_is_refused() -> None:
    with pytest.raises(ValueError, match="motions of 3 types are needed, got 2"):
        build_vocabulary(some_motions(100)[:2], num_tokens=30)


def test_equal_seeds_build_equal_vocabularies() -> None:
    digests = [
        build_vocabulary(some_motions(1000), num_tokens=50, seed=seed)[0].digest
        for seed in (2, 2, 3)
    ]
    assert digests[0] == digests[1] != digests[2]
