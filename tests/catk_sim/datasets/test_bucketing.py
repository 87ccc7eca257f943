import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datasets import BucketBatchSampler, ScenarioSize


def random_sizes(count: int) -> list[ScenarioSize]:
    """Draws independent numbers of agents and points, most small, some large."""
    draws = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    agents = (2 + 5 / (0.02 + draws[:, 0])).int().tolist()
    points = (100 + 2000 / (0.02 + draws[:, 1])).int().tolist()
    return [
        ScenarioSize(agents=a, steps=91, points=p, features=1, links=0, lights=0)
        for a, p in zip(agents, points, strict=True)
    ]


def share_of_padding(sizes: list[ScenarioSize], batches: list[list[int]], name: str) -> float:
    lengths = [[getattr(sizes[index], name) for index in batch] for batch in batches]
    return 1 - sum(map(sum, lengths)) / sum(len(batch) * max(batch) for batch in lengths)


@given(count=st.integers(0, 70), batch_size=st.integers(1, 9), batches_per_pool=st.integers(1, 5))
def test_an_epoch_holds_every_scenario_once_in_full_batches_but_the_last(
    count: int, batch_size: int, batches_per_pool: int
):
    sampler = BucketBatchSampler(
        random_sizes(count), batch_size, seed=0, batches_per_pool=batches_per_pool
    )
    announced = len(sampler)
    batches = list(sampler)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)
    assert len(batches) == announced


def test_the_scenarios_that_fill_no_batch_can_be_left_out_and_differ_by_epoch():
    sampler = BucketBatchSampler(random_sizes(10), 4, seed=0, drop_last=True)
    epochs = [list(sampler) for _ in range(9)]
    assert all([len(batch) for batch in epoch] == [4, 4] for epoch in epochs)
    kept = [{index for batch in epoch for index in batch} for epoch in epochs]
    assert set.union(*kept) == set(range(10))


def test_batches_depend_on_seed_and_epoch_alone():
    sizes = random_sizes(40)
    one, other = (BucketBatchSampler(sizes, 4, seed=3) for _ in range(2))
    list(one)
    assert one.batches(5) == other.batches(5)
    assert one.batches(5) != one.batches(6)
    assert one.batches(5) != BucketBatchSampler(sizes, 4, seed=4).batches(5)


def test_each_iteration_is_the_next_epoch():
    sampler = BucketBatchSampler(random_sizes(40), 4, seed=0)
    assert [list(sampler), list(sampler)] == [sampler.batches(0), sampler.batches(1)]


@given(position=st.integers(0, 10))
def test_a_resumed_epoch_goes_on_where_it_stopped(position: int):
    sampler = BucketBatchSampler(random_sizes(40), 4, seed=0)
    sampler.seek(epoch=2, position=position)
    assert len(sampler) == 10 - position
    assert list(sampler) == sampler.batches(2)[position:]
    assert list(sampler) == sampler.batches(3)


def test_batches_hold_much_less_padding_than_random_ones():
    sizes = random_sizes(1000)
    bucketed = BucketBatchSampler(sizes, 8, seed=0).batches(0)
    # A pool of one batch is a random batch.
    random = BucketBatchSampler(sizes, 8, seed=0, batches_per_pool=1).batches(0)
    for name in ("agents", "points"):
        assert share_of_padding(sizes, bucketed, name) < 0.5 * share_of_padding(sizes, random, name)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one scenario per batch"):
        BucketBatchSampler(random_sizes(4), 0, seed=0)
    with pytest.raises(ValueError, match=r"position in \[0, 2\], got 0 and 3"):
        BucketBatchSampler(random_sizes(4), 2, seed=0).seek(epoch=0, position=3)
