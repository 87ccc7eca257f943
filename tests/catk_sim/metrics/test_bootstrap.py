import math

import numpy as np
import pytest
import torch

from catk_sim.metrics.bootstrap import (
    Estimate,
    estimate_ratios,
    paired_differences,
    summarize,
)
from catk_sim.metrics.records import Record


def records_of(values: list[float], name: str = "score") -> list[Record]:
    return [{"scenario_id": str(place), name: value} for place, value in enumerate(values)]


def some_values(num: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).normal(3.0, 2.0, size=num).tolist()


def test_the_mean_is_over_scenarios() -> None:
    found = summarize(records_of([0.0, 1.0, 1.0, 1.0]))["score"]
    assert found.mean == 0.75
    assert found.count == 4
    assert found.low < 0.75 < found.high


def test_the_interval_is_that_of_the_mean() -> None:
    """Of a normal distribution: 1.96 standard errors to either side."""
    values = some_values(400)
    found = summarize(records_of(values))["score"]
    error = float(np.std(values)) / 20
    assert found.low == pytest.approx(np.mean(values) - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(np.mean(values) + 1.96 * error, abs=0.1 * error)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        found = summarize(records_of(some_values(60, seed)), confidence=0.8, num_resamples=500)
        covered += found["score"].low <= 3.0 <= found["score"].high
    # Three standard deviations of a binomial to either side.
    assert 143 <= covered <= 177


def test_the_rarest_and_most_frequent_resamples_bound_a_coin() -> None:
    """Of two scenarios, a quarter of the resamples has twice the first."""
    found = summarize(records_of([0.0, 1.0]))["score"]
    assert (found.low, found.high) == (0, 1)
    narrow = summarize(records_of([0.0, 1.0]), confidence=0.4)["score"]
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_the_same_seed_gives_the_same_interval() -> None:
    records = records_of(some_values(10))
    assert summarize(records) == summarize(records)
    assert summarize(records) != summarize(records, seed=1)


def test_what_is_not_defined_is_left_out() -> None:
    records = [*records_of([1.0, math.nan, 3.0]), {"scenario_id": "3"}]
    found = summarize(records)["score"]
    assert found.mean == 2
    assert found.count == 2
    assert (found.low, found.high) == (1, 3)


def test_what_is_nowhere_defined_is_nan() -> None:
    found = summarize(records_of([math.nan, math.nan]))["score"]
    assert found.count == 0
    assert math.isnan(found.mean)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_words_are_left_out() -> None:
    records = [{"scenario_id": "a", "failure": "it raised", "score": 1.0}, {"scenario_id": "b"}]
    assert list(summarize(records)) == ["score"]


def test_many_scenarios_are_resampled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_of(some_values(30))
    whole = summarize(records, num_resamples=100)["score"]
    monkeypatch.setattr("catk_sim.metrics.bootstrap.CHUNK", 7 * 30)
    parts = summarize(records, num_resamples=100)["score"]
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_pairs_tell_what_scenarios_hide() -> None:
    baseline = some_values(50)
    better = [value + 0.1 + 0.01 * (place % 3) for place, value in enumerate(baseline)]
    found = paired_differences(records_of(better), records_of(baseline))["score"]
    assert found.mean == pytest.approx(0.11, abs=0.001)
    assert found.low > 0.1
    assert found.high < 0.12
    apart = summarize(records_of(better))["score"]
    assert apart.low < np.mean(baseline) < apart.high


def test_pairs_go_by_the_scenarios_name() -> None:
    records = records_of([1.0, 2.0, 3.0])
    found = paired_differences(records[::-1], records)["score"]
    assert found == Estimate(mean=0.0, low=0.0, high=0.0, count=3)


def test_a_pair_that_one_has_not_is_left_out() -> None:
    found = paired_differences(records_of([1.0, math.nan, 4.0]), records_of([0.0, 1.0, 2.0]))
    assert found["score"].mean == 1.5
    assert found["score"].count == 2


def test_measures_that_one_has_not_are_left_out() -> None:
    records = records_of([1.0, 2.0])
    assert not paired_differences(records, records_of([1.0, 2.0], name="ade"))


def test_other_scenarios_are_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"got 2 that only one has, among them \['1', '2'\]"):
        paired_differences(records_of([1.0]), records_of([1.0, 2.0, 3.0]))


def test_a_ratio_is_that_of_the_sums() -> None:
    """Two agents of three collide, whichever scenario they are in."""
    found = estimate_ratios({"rate": (torch.tensor([2.0, 0, 0]), torch.tensor([2.0, 1, 0]))})
    assert found["rate"].mean == pytest.approx(2 / 3)
    assert found["rate"].count == 2
    assert (found["rate"].low, found["rate"].high) == (0, 1)


def test_nothing_is_estimated_from_nothing() -> None:
    assert estimate_ratios({}) == {}
    with pytest.raises(ValueError, match="wanted at least one scenario"):
        estimate_ratios({"rate": (torch.zeros(0), torch.zeros(0))})
    with pytest.raises(ValueError, match="wanted at least one record"):
        summarize([])


def test_a_scenario_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got more for \['0'\]"):
        summarize([*records_of([1.0, 2.0]), *records_of([1.0])])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_resamples": 0}, "num_resamples must be at least 1, got 0"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
        ({"confidence": 0.0}, "confidence must be between 0 and 1, got 0.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        summarize(records_of([1.0]), **settings)
