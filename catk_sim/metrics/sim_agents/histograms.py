"""How often values of the features were simulated and logged, to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from catk_sim.metrics.sim_agents.config import HistogramEstimate, SimAgentsConfig
from catk_sim.metrics.sim_agents.features import ScoredAgents, SimAgentsFeatures
from catk_sim.metrics.sim_agents.realism import counted_steps

NUM_BINS = 40
"""Bins of each histogram, which has the range that Waymo's metric looks at. Waymo's are coarser."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureCounts:
    """Counts of the values of a feature. What is beyond the range is in the outer bins.

    Attributes:
        edges: Limits of the bins, in the feature's unit.
        log: Logged values that count.
        simulated: Simulated values of the same agents. NaN is in no bin.
    """

    edges: Float[Tensor, " bins_and_end"]
    log: Int[Tensor, " bins"]
    simulated: Int[Tensor, " bins"]


def count_features(
    simulated: SimAgentsFeatures,
    log: SimAgentsFeatures,
    agents: ScoredAgents,
    config: SimAgentsConfig,
) -> dict[str, FeatureCounts]:
    """Counts the values of every feature that Waymo's metric has a histogram of, on the CPU."""
    counts = {}
    for name, feature in config.features.items():
        estimate = feature.estimator
        if not isinstance(estimate, HistogramEstimate):
            continue
        edges = torch.linspace(estimate.low, estimate.high, NUM_BINS + 1)
        is_agent = agents.counted[..., None]
        values = getattr(simulated, name)
        counts[name] = FeatureCounts(
            edges=edges,
            log=_count(getattr(log, name), is_agent & counted_steps(name, agents, config), edges),
            simulated=_count(values, is_agent.expand_as(values), edges),
        )
    return counts


def add_counts(parts: Sequence[Mapping[str, FeatureCounts]]) -> dict[str, FeatureCounts]:
    """Adds the counts of several batches, which must be of the same features."""
    return {
        name: FeatureCounts(
            edges=first.edges,
            log=torch.stack([part[name].log for part in parts]).sum(dim=0),
            simulated=torch.stack([part[name].simulated for part in parts]).sum(dim=0),
        )
        for name, first in (parts[0].items() if parts else ())
    }


def _count(
    values: Float[Tensor, "*batch agents steps"],
    counts: Bool[Tensor, "*batch agents steps"],
    edges: Float[Tensor, " bins_and_end"],
) -> Int[Tensor, " bins"]:
    known = values[counts & ~values.isnan()].float().cpu().contiguous()
    index = torch.bucketize(known, edges[1:-1], right=True)
    return torch.bincount(index, minlength=len(edges) - 1)
