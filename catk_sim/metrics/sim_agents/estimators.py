"""How likely what was logged is under what was simulated.

A feature's likelihood is the geometric mean, over the logged values that count, of their
probability under a distribution that is fitted to the simulated values (Montali et al., "The Waymo
Open Sim Agents Challenge", arXiv:2305.12032, section 3.3).

Tables hold what each rollout adds to the fit, so that any of them can be left out afterwards.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from catk_sim.metrics.sim_agents.config import (
    BernoulliEstimate,
    FeatureConfig,
    HistogramEstimate,
    KernelDensityEstimate,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class CountTable:
    """How many values fall in each bin of each distribution."""

    simulated: Int[Tensor, "rollouts *scenes distributions bins"]
    """Values of each rollout."""
    log: Int[Tensor, "*scenes distributions bins"]
    """Logged values that count."""
    smoothing: float
    """What is added to the count of every bin."""

    def likelihood(self) -> Float[Tensor, "*scenes"]:
        """Returns the likelihood of the log. NaN where no logged value counts."""
        return self._likelihood(self.simulated.sum(dim=0))

    def likelihood_without_each(self) -> Float[Tensor, " rollouts *scenes"]:
        """Returns the likelihoods under all rollouts but one."""
        return self._likelihood(self.simulated.sum(dim=0) - self.simulated)

    def _likelihood(
        self, count: Int[Tensor, "*some_scenes distributions bins"]
    ) -> Float[Tensor, "*some_scenes"]:
        smoothed = count.double() + self.smoothing
        log_probability = smoothed.log() - smoothed.sum(dim=-1, keepdim=True).log()
        score = (self.log * log_probability).sum(dim=(-2, -1))
        return (score / self.log.sum(dim=(-2, -1))).exp()


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelTable:
    """How near the simulated values are to each logged value."""

    log_kernel: Float[Tensor, "rollouts *scenes distributions values"]
    """Logarithm of the sum of a rollout's kernels at each logged value."""
    num_kernels: Int[Tensor, "rollouts *scenes distributions"]
    """Kernels of each rollout."""
    scored: Bool[Tensor, "*scenes distributions values"]
    """Which logged values count."""

    def likelihood(self) -> Float[Tensor, "*scenes"]:
        """Returns the likelihood of the log. NaN where no logged value counts."""
        num_kernels = self.num_kernels.sum(dim=0)[..., None]
        density = self.log_kernel.logsumexp(dim=0) - num_kernels.double().log()
        score = torch.where(self.scored, density, 0.0).sum(dim=(-2, -1))
        return (score / self.scored.sum(dim=(-2, -1))).exp()

    def likelihood_without_each(self) -> Float[Tensor, " rollouts *scenes"]:
        """Returns the likelihoods under all rollouts but one."""
        # A difference of logarithms of sums would drown in rounding where one rollout is nearest.
        return torch.stack([self._without(i).likelihood() for i in range(len(self.log_kernel))])

    def _without(self, rollout: int) -> "KernelTable":
        return KernelTable(
            log_kernel=_without(self.log_kernel, rollout),
            num_kernels=_without(self.num_kernels, rollout),
            scored=self.scored,
        )


Table = CountTable | KernelTable


def tabulate(
    simulated: Shaped[Tensor, "rollouts *scenes agents steps"],
    log: Shaped[Tensor, "*scenes agents steps"],
    *,
    scored: Bool[Tensor, "*scenes agents steps"],
    counted: Bool[Tensor, "*scenes agents"],
    feature: FeatureConfig,
) -> Table:
    """Gathers from a feature's values what its likelihoods are told from.

    Args:
        simulated: Values of each rollout. All of them count, whether or not the log is valid there.
        log: Logged values.
        scored: Which logged values count.
        counted: False for agents that are padding.
        feature: How distributions are fitted, and who shares one.
    """
    is_agent = counted[..., None].expand_as(scored)
    parts = (simulated, log, is_agent, scored & is_agent)
    simulated, log, is_agent, scored = (_by_distribution(part, feature) for part in parts)
    if isinstance(feature.estimator, KernelDensityEstimate):
        bandwidth = feature.estimator.bandwidth
        return _kernel_table(simulated, log, is_agent, scored, bandwidth=bandwidth)
    estimator = feature.estimator
    return CountTable(
        simulated=_count(simulated, is_agent.expand_as(simulated), estimator),
        log=_count(log, scored, estimator),
        smoothing=estimator.smoothing,
    )


def histogram_edges(estimate: HistogramEstimate) -> Float[Tensor, " edges"]:
    """Returns where the bins of a histogram begin, and where the last ends, as Waymo rounds it.

    On the CPU: a GPU divides by multiplying with a rounded inverse.
    """
    low, high = torch.tensor([estimate.low, estimate.high], dtype=torch.float32)
    index = torch.arange(estimate.num_bins, dtype=torch.float32)
    return torch.cat([low + index * ((high - low) / estimate.num_bins), high[None]])


def _by_distribution(
    values: Shaped[Tensor, "*batch agents steps"], feature: FeatureConfig
) -> Shaped[Tensor, "*batch distributions values"]:
    """Arranges values by the distribution they belong to."""
    if feature.aggregate_objects:
        values = values.transpose(-1, -2)
        return values.flatten(-2)[..., None, :] if feature.independent_timesteps else values
    return values if feature.independent_timesteps else values.flatten(-2)[..., None]


def _count(
    values: Shaped[Tensor, "*batch distributions values"],
    included: Bool[Tensor, "*batch distributions values"],
    estimator: HistogramEstimate | BernoulliEstimate,
) -> Int[Tensor, "*batch distributions bins"]:
    if isinstance(estimator, BernoulliEstimate):
        num_bins, index = 2, values.long()
    else:
        num_bins, index = estimator.num_bins, _bin_index(values, estimator)
    count = index.new_zeros(*index.shape[:-1], num_bins)
    return count.scatter_add_(-1, index, included.long())


def _bin_index(
    values: Float[Tensor, "*shape"], estimate: HistogramEstimate
) -> Int[Tensor, "*shape"]:
    """Returns the bin of each value. A bin has its lower end, the last bin both ends and NaN."""
    inner_edges = histogram_edges(estimate)[1:-1].to(values.device)
    known = values.float().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    return torch.bucketize(known.contiguous(), inner_edges, right=True)


def _kernel_table(
    simulated: Float[Tensor, "rollouts *scenes distributions samples"],
    log: Float[Tensor, "*scenes distributions samples"],
    is_agent: Bool[Tensor, "*scenes distributions samples"],
    scored: Bool[Tensor, "*scenes distributions samples"],
    *,
    bandwidth: float,
) -> KernelTable:
    # NaN has no place on the line, unlike in a histogram.
    is_sample = is_agent & ~simulated.isnan()
    samples = simulated.double()

    def log_kernel(
        point: Float[Tensor, "*scenes distributions"],
    ) -> Float[Tensor, "rollouts *scenes distributions"]:
        exponent = -((samples - point[..., None]) / bandwidth).square() / 2
        return exponent.where(is_sample, -math.inf).logsumexp(dim=-1)

    # One logged value after the other: all pairs at once would take gigabytes.
    return KernelTable(
        log_kernel=torch.stack([log_kernel(point) for point in log.unbind(dim=-1)], dim=-1),
        num_kernels=is_sample.sum(dim=-1),
        scored=scored,
    )


def _without(values: Shaped[Tensor, " all *rest"], index: int) -> Shaped[Tensor, " others *rest"]:
    return torch.cat([values[:index], values[index + 1 :]])
