import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.metrics.sim_agents.config import (
    BernoulliEstimate,
    Bucket,
    Estimate,
    FeatureConfig,
    HistogramEstimate,
    KernelDensityEstimate,
    sim_agents_config,
)
from catk_sim.metrics.sim_agents.estimators import CountTable, histogram_edges, tabulate
from tests.catk_sim.metrics.sim_agents import reference

# As Waymo's evaluation has them in float32: they are not those of float64, rounded.
# fmt: off
EDGES = {
    "angular_speed": [
        -0.6280000210, -0.5138182044, -0.3996363878, -0.2854545414, -0.1712727249, -0.0570908785,
        0.0570909381, 0.1712727547, 0.2854545712, 0.3996363878, 0.5138182640, 0.6280000210,
    ],
    "angular_acceleration": [
        -3.1400001049, -2.5690910816, -1.9981819391, -1.4272727966, -0.8563637733, -0.2854547501,
        0.2854545116, 0.8563635349, 1.4272725582, 1.9981815815, 2.5690906048, 3.1400001049,
    ],
    "linear_acceleration": [
        -12, -9.8181819916, -7.6363635063, -5.4545450211, -3.2727270126, -1.0909090042,
        1.0909099579, 3.2727279663, 5.4545459747, 7.6363639832, 9.8181819916, 12,
    ],
}
# fmt: on

QUARTERS = HistogramEstimate(low=0.0, high=4.0, num_bins=4)
ESTIMATES = [
    QUARTERS,
    BernoulliEstimate(),
    KernelDensityEstimate(bandwidth=0.5),
]


def feature(
    estimator: Estimate, *, independent_timesteps: bool = True, aggregate_objects: bool = False
) -> FeatureConfig:
    return FeatureConfig(
        estimator=estimator,
        weight=1.0,
        bucket=Bucket.KINEMATIC,
        independent_timesteps=independent_timesteps,
        aggregate_objects=aggregate_objects,
    )


def likelihood(simulated: Tensor, log: Tensor, config: FeatureConfig) -> float:
    """Of values that all count."""
    scored = torch.ones(log.shape, dtype=torch.bool)
    table = tabulate(simulated, log, scored=scored, counted=scored[..., 0], feature=config)
    return table.likelihood().item()


def histogram_counts(values: list[float], estimate: HistogramEstimate) -> list[int]:
    simulated = torch.tensor(values)[None, None]
    everything = torch.ones(1, len(values), dtype=torch.bool)
    table = tabulate(
        simulated,
        simulated[0],
        scored=everything,
        counted=everything[:, 0],
        feature=feature(estimate),
    )
    assert isinstance(table, CountTable)
    assert torch.equal(table.log, table.simulated[0])
    return table.log[0].tolist()


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_rounded_as_waymo_rounds_them(name: str) -> None:
    estimate = sim_agents_config("2025").features[name].estimator
    assert isinstance(estimate, HistogramEstimate)
    edges = histogram_edges(estimate)
    assert edges.dtype == torch.float32
    assert torch.equal(edges, torch.tensor(EDGES[name]))


def test_a_bin_has_its_lower_end() -> None:
    assert histogram_counts([0.0, 1.0, 2.0, 3.0], QUARTERS) == [1, 1, 1, 1]
    below = torch.tensor([1.0, 2.0, 3.0]).nextafter(torch.tensor(-1.0)).tolist()
    assert histogram_counts(below, QUARTERS) == [1, 1, 1, 0]


def test_the_last_bin_has_its_upper_end_what_is_higher_and_nan() -> None:
    assert histogram_counts([4.0, 4.5, math.inf, math.nan], QUARTERS) == [0, 0, 0, 4]


def test_the_first_bin_has_what_is_lower() -> None:
    assert histogram_counts([-0.5, -math.inf, -1e10], QUARTERS) == [3, 0, 0, 0]


@pytest.mark.parametrize("version", ["2023", "2025"])
@pytest.mark.parametrize("name", [*EDGES, "linear_speed", "distance_to_road_edge"])
def test_values_next_to_an_edge_are_on_the_right_side(version: str, name: str) -> None:
    estimate = sim_agents_config(version).features[name].estimator
    assert isinstance(estimate, HistogramEstimate)
    edges = histogram_edges(estimate)
    near = [edges, *(edges.nextafter(torch.tensor(end)) for end in (-1e9, 1e9))]
    values = torch.cat(near)
    wanted = np.bincount(reference.bins_of(values.numpy(), estimate), minlength=estimate.num_bins)
    assert histogram_counts(values.tolist(), estimate) == wanted.tolist()


def test_a_histogram_is_as_counted_by_hand() -> None:
    # Of the first agent's four values three are in its log's bin, of the second's one.
    simulated = torch.tensor([[[0.5, 0.5], [1.5, 2.5]], [[0.5, 3.5], [3.5, 3.5]]])
    log = torch.tensor([[0.9, 0.1], [1.1, 1.9]])
    wanted = math.sqrt(3.1 / 4.4 * 1.1 / 4.4)
    assert likelihood(simulated, log, feature(QUARTERS)) == pytest.approx(wanted, rel=1e-12)


def test_a_shared_histogram_is_as_counted_by_hand() -> None:
    simulated = torch.tensor([[[0.5, 0.5], [1.5, 2.5]], [[0.5, 3.5], [3.5, 3.5]]])
    log = torch.tensor([[0.9, 0.1], [1.1, 1.9]])
    config = feature(QUARTERS, aggregate_objects=True)
    wanted = math.sqrt(3.1 / 8.4 * 1.1 / 8.4)
    assert likelihood(simulated, log, config) == pytest.approx(wanted, rel=1e-12)


def test_a_histogram_of_each_step_is_as_counted_by_hand() -> None:
    simulated = torch.tensor([[[0.5, 0.5], [1.5, 2.5]], [[0.5, 3.5], [3.5, 3.5]]])
    log = torch.tensor([[0.9, 0.1], [1.1, 1.9]])
    own = feature(QUARTERS, independent_timesteps=False)
    wanted = (2.1 * 1.1 * 1.1 * 0.1) ** 0.25 / 2.4
    assert likelihood(simulated, log, own) == pytest.approx(wanted, rel=1e-12)
    shared = feature(QUARTERS, independent_timesteps=False, aggregate_objects=True)
    wanted = (2.1 * 1.1 * 1.1 * 0.1) ** 0.25 / 4.4
    assert likelihood(simulated, log, shared) == pytest.approx(wanted, rel=1e-12)


def test_indications_are_as_counted_by_hand() -> None:
    simulated = torch.tensor([[[True], [False]], [[True], [False]], [[False], [False]]])
    log = torch.tensor([[True], [True]])
    wanted = math.sqrt(2.001 * 0.001) / 3.002
    own = feature(BernoulliEstimate())
    assert likelihood(simulated, log, own) == pytest.approx(wanted, rel=1e-12)
    shared = feature(BernoulliEstimate(), aggregate_objects=True)
    assert likelihood(simulated, log, shared) == pytest.approx(2.001 / 6.002, rel=1e-12)


def test_a_single_kernel_is_one_at_its_centre() -> None:
    config = feature(KernelDensityEstimate(bandwidth=0.5))
    value = torch.tensor([[3.0]])
    assert likelihood(value[None], value, config) == pytest.approx(1.0)
    assert likelihood(value[None] + 0.5, value, config) == pytest.approx(math.exp(-0.5))


def test_kernels_far_away_do_not_vanish() -> None:
    config = feature(KernelDensityEstimate(bandwidth=1.0), independent_timesteps=False)
    log = torch.zeros(1, 100)
    log[0, 0] = 40.0
    wanted = math.exp(-(40**2) / 2 / 100)
    assert likelihood(torch.zeros(2, 1, 100), log, config) == pytest.approx(wanted)


def test_nan_is_no_kernel() -> None:
    config = feature(KernelDensityEstimate(bandwidth=0.5))
    simulated = torch.tensor([[[1.0, math.nan]]])
    assert likelihood(simulated, torch.tensor([[1.0, 1.0]]), config) == pytest.approx(1.0)
    assert math.isnan(likelihood(simulated[..., 1:], torch.tensor([[1.0]]), config))


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_likelihood_of_nothing_is_nan(estimate: Estimate) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    values = torch.ones(4, 2, 3)
    table = tabulate(
        values, values[0], scored=nothing, counted=~nothing[:, 0], feature=feature(estimate)
    )
    assert table.likelihood().isnan()
    assert table.likelihood_without_each().isnan().all()


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("independent_timesteps", [True, False])
@pytest.mark.parametrize("aggregate_objects", [True, False])
@given(seed=st.integers(0, 1000))
def test_likelihoods_are_those_of_the_sum_written_out(
    estimate: Estimate, independent_timesteps: bool, aggregate_objects: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = 1.5 * torch.randn(5, 3, 4, generator=generator) + 1.5
    values = values > 2 if isinstance(estimate, BernoulliEstimate) else values
    scored = torch.rand(3, 4, generator=generator) < 0.7
    config = feature(
        estimate,
        independent_timesteps=independent_timesteps,
        aggregate_objects=aggregate_objects,
    )
    simulated, log = values[1:], values[0]
    counted = torch.ones(3, dtype=torch.bool)
    table = tabulate(simulated, log, scored=scored, counted=counted, feature=config)
    wanted = reference.likelihood(simulated.numpy(), log.numpy(), scored.numpy(), config)
    assert table.likelihood().item() == pytest.approx(wanted, rel=1e-9, nan_ok=True)
    for i, without in enumerate(table.likelihood_without_each()):
        others = torch.cat([simulated[:i], simulated[i + 1 :]])
        wanted = reference.likelihood(others.numpy(), log.numpy(), scored.numpy(), config)
        assert without.item() == pytest.approx(wanted, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("independent_timesteps", [True, False])
@pytest.mark.parametrize("aggregate_objects", [True, False])
@pytest.mark.parametrize("filler", [1.0, math.nan])
def test_padding_adds_nothing(
    estimate: Estimate,
    independent_timesteps: bool,
    aggregate_objects: bool,
    filler: float,
    generator: torch.Generator,
) -> None:
    values = 2 * torch.rand(5, 3, 4, generator=generator)
    if isinstance(estimate, BernoulliEstimate):
        values = values > 1
    values[:, 2] = filler
    config = feature(
        estimate,
        independent_timesteps=independent_timesteps,
        aggregate_objects=aggregate_objects,
    )
    scored, counted = torch.ones(3, 4, dtype=torch.bool), torch.tensor([True, True, False])
    padded = tabulate(values[1:], values[0], scored=scored, counted=counted, feature=config)
    alone = tabulate(
        values[1:, :2], values[0, :2], scored=scored[:2], counted=counted[:2], feature=config
    )
    assert padded.likelihood().item() == pytest.approx(alone.likelihood().item(), rel=1e-12)
    assert torch.allclose(
        padded.likelihood_without_each(), alone.likelihood_without_each(), rtol=1e-12, atol=0
    )
