import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.tokens import (
    MotionVocabulary,
    closest_among_top_k,
    closest_to_pose_among_top_k,
    match_step,
    sample_top_k,
    sample_top_p,
    token_distance,
)
from catk_sim.tokens.sampling import top_k
from tests import scenes

LOGITS = torch.tensor([3.0, 2.0, 1.0, 0.0])
DISTANCE = torch.tensor([9.0, 5.0, 7.0, 0.0])
LOGGED = torch.tensor(True)
VOCABULARY = scenes.arc_vocabulary()


def shares(draws: torch.Tensor) -> torch.Tensor:
    return torch.bincount(draws, minlength=4) / len(draws)


def largest_first(values: torch.Tensor) -> torch.Tensor:
    return values.sort(dim=-1, descending=True).values


def test_cat_1_is_greedy() -> None:
    assert closest_among_top_k(LOGITS, DISTANCE, k=1, has_log=LOGGED) == 0


def test_cat_k_takes_the_nearest_of_the_likely() -> None:
    assert closest_among_top_k(LOGITS, DISTANCE, k=3, has_log=LOGGED) == 1


def test_cat_all_is_the_nearest() -> None:
    assert closest_among_top_k(LOGITS, DISTANCE, k=4, has_log=LOGGED) == 3


def test_without_a_log_cat_k_takes_the_most_likely() -> None:
    assert closest_among_top_k(LOGITS.flip(0), DISTANCE, k=3, has_log=~LOGGED) == 3


def test_of_equally_near_tokens_cat_k_takes_the_likeliest() -> None:
    distance = torch.tensor([9.0, 5.0, 5.0, 5.0])
    assert closest_among_top_k(LOGITS, distance, k=4, has_log=LOGGED) == 1
    assert closest_among_top_k(LOGITS.flip(0), distance, k=4, has_log=LOGGED) == 3


def test_even_an_impossible_token_is_taken_where_it_is_the_nearest() -> None:
    logits = torch.tensor([0.0, -torch.inf, -torch.inf, -torch.inf])
    assert closest_among_top_k(logits, LOGITS, k=4, has_log=LOGGED) == 3


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, VOCABULARY.num_tokens))
def test_measuring_only_the_candidates_changes_no_choice(seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, VOCABULARY.num_tokens, generator=generator)
    agent_type = torch.randint(1, 4, (2, 4), generator=generator)
    xy = 5 * torch.rand(2, 4, 2, generator=generator)
    heading = torch.rand(2, 4, generator=generator)
    has_log = torch.rand(2, 4, generator=generator) > 0.3
    distance = token_distance(VOCABULARY, agent_type, xy, heading)
    measured = closest_to_pose_among_top_k(
        logits, VOCABULARY, agent_type, xy, heading, k, has_log=has_log
    )
    assert torch.equal(measured, closest_among_top_k(logits, distance, k, has_log=has_log))
    assert torch.equal(measured[~has_log], logits.argmax(-1)[~has_log])


@given(seed=st.integers(0, 2**32 - 1))
def test_cat_all_is_matching(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, VOCABULARY.num_tokens, generator=generator)
    agent_type = torch.randint(1, 4, (5,), generator=generator)
    xy, heading = 5 * torch.rand(5, 2, generator=generator), torch.rand(5, generator=generator)
    chosen = closest_to_pose_among_top_k(
        logits,
        VOCABULARY,
        agent_type,
        xy,
        heading,
        VOCABULARY.num_tokens,
        has_log=torch.ones(5, dtype=torch.bool),
    )
    assert torch.equal(chosen, match_step(VOCABULARY, agent_type, xy, heading))


def test_cat_k_measures_true_boxes_if_given() -> None:
    poses = torch.zeros(3, 3, 6, 3)
    # The first is at the right place, the second has the right heading: a bus minds that more.
    poses[:, 1:, -1] = torch.tensor([[0.3, 0.0, 0.0], [0.6, 0.0, 0.1]])
    chosen = closest_to_pose_among_top_k(
        torch.zeros(2, 3),
        MotionVocabulary.from_poses(poses, VOCABULARY.size),
        torch.tensor([1, 1]),
        torch.tensor([[0.3, 0.0], [0.3, 0.0]]),
        torch.tensor([0.1, 0.1]),
        3,
        has_log=torch.tensor([True, True]),
        box_size=torch.tensor([[4.0, 2.0], [12.0, 2.5]]),
    )
    assert chosen.tolist() == [1, 2]


def test_top_k_never_leaves_the_k_most_likely(generator: torch.Generator) -> None:
    draws = sample_top_k(LOGITS.expand(1000, 4), k=2, generator=generator)
    assert set(draws.tolist()) == {0, 1}


def test_top_k_draws_in_proportion(generator: torch.Generator) -> None:
    draws = sample_top_k(LOGITS.expand(100_000, 4), k=4, generator=generator)
    torch.testing.assert_close(shares(draws), LOGITS.softmax(-1), atol=0.01, rtol=0)


def test_the_temperature_divides_the_logits(generator: torch.Generator) -> None:
    draws = sample_top_k(LOGITS.expand(100_000, 4), k=4, temperature=2.0, generator=generator)
    torch.testing.assert_close(shares(draws), (LOGITS / 2).softmax(-1), atol=0.01, rtol=0)


def test_top_p_keeps_the_fewest_that_hold_p(generator: torch.Generator) -> None:
    # Probabilities 0.64, 0.24, 0.09, 0.03.
    for p, kept in [(0.6, {0}), (0.7, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})]:
        draws = sample_top_p(LOGITS.flip(0).expand(2000, 4), p=p, generator=generator)
        assert {3 - draw for draw in draws.tolist()} == kept


def test_top_p_draws_in_proportion(generator: torch.Generator) -> None:
    draws = sample_top_p(LOGITS.expand(100_000, 4), p=0.8, temperature=2.0, generator=generator)
    expected = torch.cat([(LOGITS[:2] / 2).softmax(-1), torch.zeros(2)])
    torch.testing.assert_close(shares(draws), expected, atol=0.01, rtol=0)


def test_one_agent_needs_no_batch(generator: torch.Generator) -> None:
    assert sample_top_k(LOGITS, k=1, generator=generator) == 0
    assert sample_top_p(LOGITS, p=0.1, generator=generator) == 0


def test_equal_generators_draw_equal_tokens() -> None:
    logits = torch.zeros(50, 4)
    draws = [
        sample_top_k(logits, k=4, generator=torch.Generator().manual_seed(7)) for _ in range(2)
    ]
    assert torch.equal(*draws)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be from 1 to the number of tokens, 4, got 5"):
        sample_top_k(LOGITS, k=5)
    with pytest.raises(ValueError, match="k must be from 1"):
        closest_among_top_k(LOGITS, DISTANCE, k=0, has_log=LOGGED)
    with pytest.raises(ValueError, match=r"p must be above 0 and at most 1, got 1\.5"):
        sample_top_p(LOGITS, p=1.5)
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        sample_top_k(LOGITS, k=2, temperature=0.0)


@pytest.mark.parametrize(
    ("num_tokens", "k"), [(2048, 48), (2048, 1), (2048, 500), (30, 4), (64, 2)]
)
def test_the_largest_logits_are_found_in_two_stages(num_tokens: int, k: int) -> None:
    logits = torch.randn(3, 5, num_tokens, generator=torch.Generator().manual_seed(0))
    values, tokens = top_k(logits, k)
    assert torch.equal(values, logits.gather(-1, tokens))
    assert torch.equal(tokens.sort(-1).values, logits.topk(k).indices.sort(-1).values)


@pytest.mark.parametrize("k", [1, 3, 48])
def test_of_equal_logits_no_more_than_k_are_found(k: int) -> None:
    logits = torch.zeros(3, 2048)
    logits[:, :2] = torch.tensor([2.0, 1.0])
    values, tokens = top_k(logits, k)
    assert values.shape == tokens.shape == (3, k)
    assert all(len(set(row)) == k for row in tokens.tolist())
    assert (tokens == 0).any(-1).all()
    assert torch.equal(largest_first(values), logits.topk(k).values)


@pytest.mark.parametrize("row", [0, 2])
def test_equal_logits_in_a_row_change_nothing_in_others(row: int) -> None:
    logits = torch.randn(5, 2048, generator=torch.Generator().manual_seed(0))
    expected = top_k(logits, 48)[1]
    tied = logits.clone()
    tied[row, 100:200] = 9.0
    found = top_k(tied, 48)[1]
    others = torch.arange(5) != row
    assert torch.equal(found[others], expected[others])
    assert ((found[row] >= 100) & (found[row] < 200)).all()


def test_the_largest_logits_are_found_in_any_precision() -> None:
    logits = torch.randn(3, 2048, dtype=torch.float64)
    for some in (logits, logits.to(torch.bfloat16), logits[:0]):
        assert torch.equal(largest_first(top_k(some, 48)[0]), some.topk(48).values)


def test_copies_of_a_row_are_drawn_from_each_by_itself(generator: torch.Generator) -> None:
    logits = torch.randn(5, 64, generator=generator)
    copies = logits.expand(300, 5, 64)
    seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
    draws, same = (
        sample_top_k(copies, 2, generator=seeds[0]),
        sample_top_k(copies.contiguous(), 2, generator=seeds[1]),
    )
    assert torch.equal(draws, same)
    assert all(len(set(column)) == 2 for column in draws.mT.tolist())


def test_rows_that_differ_are_drawn_from_each_by_itself(generator: torch.Generator) -> None:
    logits = torch.randn(40, 64, generator=generator)
    assert torch.equal(sample_top_k(logits, 1, generator=generator), logits.argmax(-1))
