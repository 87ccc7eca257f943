"""Means over scenarios, and how sure they are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from catk_sim.metrics.records import Record, number

CHUNK = 1 << 22
"""Draws that are made together, which bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, or another ratio of sums over scenarios, with a confidence interval.

    Attributes:
        mean: Over the scenarios that the measure is defined for. NaN if there are none.
        low: Lower end of the interval.
        high: Upper end.
        count: Scenarios that the measure is defined for.
    """

    mean: float
    low: float
    high: float
    count: int


def summarize(
    records: Sequence[Record],
    *,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Averages every measure over the scenarios that it is defined for.

    Args:
        records: One for each scenario. What is not a number is left out.
        num_resamples: As for `estimate_ratios`.
        confidence: Likewise.
        seed: Likewise.

    Raises:
        ValueError: There is no record, or a scenario has two.
    """
    table = _by_scenario(records)
    names = _measures(records)
    values = np.array([[number(record, name) for name in names] for record in table.values()])
    means = _as_ratios(names, values)
    return estimate_ratios(means, num_resamples=num_resamples, confidence=confidence, seed=seed)


def paired_differences(
    records: Sequence[Record],
    baseline: Sequence[Record],
    *,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Averages how much a planner differs from another one on the same scenarios.

    Scenarios differ more than planners do, so these intervals are narrower than those of
    `summarize`, and an interval without 0 in it tells that the planners differ.

    Args:
        records: What the planner did.
        baseline: What the other one did. What only one of both has is left out.
        num_resamples: As for `estimate_ratios`.
        confidence: Likewise.
        seed: Likewise.

    Raises:
        ValueError: They are not of the same scenarios, or as for `summarize`.
    """
    ours, theirs = _by_scenario(records), _by_scenario(baseline)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise ValueError(
            f"wanted the same scenarios, got {len(odd)} that only one has, among them {odd[:3]}"
        )
    others = _measures(baseline)
    names = [name for name in _measures(records) if name in others]
    values = [
        [number(ours[key], name) - number(theirs[key], name) for name in names] for key in ours
    ]
    differences = _as_ratios(names, np.array(values))
    return estimate_ratios(
        differences, num_resamples=num_resamples, confidence=confidence, seed=seed
    )


def estimate_ratios(
    ratios: Mapping[str, tuple[Float[Tensor, " _"], Float[Tensor, " _"]]],
    *,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimates ratios of sums over scenarios, such as means over agents.

    The intervals are those of the percentile bootstrap, which draws whole scenarios: Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Args:
        ratios: What each scenario adds to the sum above, and below.
        num_resamples: Resamples that an interval is told from.
        confidence: Share of them that it holds.
        seed: Of the resampling. All ratios are told from the same resamples.

    Raises:
        ValueError: The settings are out of range, or there is no scenario.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    if not ratios:
        return {}
    above, below = (
        np.stack([pair[part].double().cpu().numpy() for pair in ratios.values()], axis=1)
        for part in (0, 1)
    )
    if not len(above):
        raise ValueError("wanted at least one scenario, got none")
    resampled = _resampled_ratios(above, below, num_resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    estimates = {}
    for column, name in enumerate(ratios):
        # A resample of nothing but scenarios that add nothing tells nothing.
        drawn = resampled[:, column]
        drawn = drawn[~np.isnan(drawn)]
        low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
        total = below[:, column].sum()
        estimates[name] = Estimate(
            mean=float(above[:, column].sum() / total) if total else math.nan,
            low=float(low),
            high=float(high),
            count=int((below[:, column] != 0).sum()),
        )
    return estimates


def _by_scenario(records: Sequence[Record]) -> dict[str, Record]:
    if not records:
        raise ValueError("wanted at least one record, got none")
    table = {str(record["scenario_id"]): record for record in records}
    if len(table) != len(records):
        ids = [str(record["scenario_id"]) for record in records]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        raise ValueError(f"wanted one record for each scenario, got more for {twice[:3]}")
    return table


def _measures(records: Sequence[Record]) -> list[str]:
    """Lists what is a number in all records that have it, in the order of appearance."""
    names = dict.fromkeys(name for record in records for name in record)
    return [
        name for name in names if not any(isinstance(record.get(name), str) for record in records)
    ]


def _as_ratios(
    names: Sequence[str], values: Float[ndarray, "scenarios measures"]
) -> dict[str, tuple[Tensor, Tensor]]:
    defined = ~np.isnan(values)
    above, below = (torch.as_tensor(part) for part in (np.where(defined, values, 0.0), defined))
    return {
        name: (above[:, column], below[:, column].double()) for column, name in enumerate(names)
    }


def _resampled_ratios(
    above: Float[ndarray, "scenarios measures"],
    below: Float[ndarray, "scenarios measures"],
    num_resamples: int,
    generator: np.random.Generator,
) -> Float[ndarray, "resamples measures"]:
    num_scenarios = len(above)
    size = max(1, CHUNK // num_scenarios)
    parts = []
    for start in range(0, num_resamples, size):
        rows = min(size, num_resamples - start)
        # How often each scenario is drawn.
        times = generator.multinomial(
            num_scenarios, np.full(num_scenarios, 1 / num_scenarios), size=rows
        )
        total, count = times @ above, times @ below
        parts.append(np.divide(total, count, out=np.full_like(total, np.nan), where=count != 0))
    return np.concatenate(parts)
