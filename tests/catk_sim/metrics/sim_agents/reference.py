"""The realism score of one scenario, written out value by value, and features to score."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from catk_sim.metrics.sim_agents.config import (
    BernoulliEstimate,
    Estimate,
    FeatureConfig,
    HistogramEstimate,
    SimAgentsConfig,
)
from catk_sim.metrics.sim_agents.features import ScoredAgents, SimAgentsFeatures

PER_STEP = {
    "collision": "collision_per_step",
    "offroad": "offroad_per_step",
    "traffic_light_violation": "traffic_light_violation_per_step",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is to be scored."""

    simulated: SimAgentsFeatures
    log: SimAgentsFeatures
    agents: ScoredAgents


def random_case(seed: int, *, rollouts: int = 5, agents: int = 3, steps: int = 12) -> Case:
    """Draws features that visit all bins, both ends of some, and NaN; one agent is a vehicle."""
    generator = torch.Generator().manual_seed(seed)
    log = _random_features(generator, agents, steps)
    simulated = [_random_features(generator, agents, steps) for _ in range(rollouts)]
    return Case(
        simulated=SimAgentsFeatures.stack(simulated),
        log=log,
        agents=_random_agents(generator, agents, steps),
    )


def _random_features(generator: torch.Generator, agents: int, steps: int) -> SimAgentsFeatures:
    def spread(low: float, high: float) -> Tensor:
        share = torch.rand(agents, steps, generator=generator)
        # Quarters of the range fall on the edges of bins.
        share = torch.where(share < 0.5, (share * 16).floor() / 4 - 0.5, share * 2 - 0.75)
        return low + share * (high - low)

    def is_rare() -> Tensor:
        return torch.rand(agents, steps, generator=generator) < 0.08

    def without_ends(values: Tensor, count: int) -> Tensor:
        values[:, -count:] = math.nan
        return values

    return SimAgentsFeatures(
        linear_speed=without_ends(spread(0, 30), 1),
        linear_acceleration=without_ends(spread(-12, 12), 2),
        angular_speed=without_ends(spread(-0.628, 0.628), 1),
        angular_acceleration=without_ends(spread(-3.14, 3.14), 2),
        distance_to_nearest_object=spread(-5, 40),
        collision_per_step=is_rare(),
        time_to_collision=spread(0, 5).clamp(0, 5),
        distance_to_road_edge=spread(-20, 40),
        offroad_per_step=is_rare(),
        traffic_light_violation_per_step=is_rare(),
        average_displacement_error=10 * torch.rand(agents, generator=generator),
    )


def _random_agents(generator: torch.Generator, agents: int, steps: int) -> ScoredAgents:
    def mostly() -> Tensor:
        return torch.rand(agents, steps, generator=generator) < 0.8

    speed_valid, acceleration_valid = mostly(), mostly()
    speed_valid[:, -1] = False
    acceleration_valid[:, -2:] = False
    return ScoredAgents(
        scenario_id=("random",),
        valid=mostly(),
        speed_valid=speed_valid,
        acceleration_valid=acceleration_valid,
        is_vehicle=torch.arange(agents) != 1,
        counted=torch.ones(agents, dtype=torch.bool),
    )


def realism(case: Case, config: SimAgentsConfig) -> dict[str, float]:
    """Scores a scenario without padding."""
    simulated, log, agents = case.simulated, case.log, case.agents
    valid, is_vehicle = agents.valid.numpy(), agents.is_vehicle.numpy()
    every_agent = np.ones_like(valid)
    masks = {
        "linear_speed": agents.speed_valid.numpy(),
        "angular_speed": agents.speed_valid.numpy(),
        "linear_acceleration": agents.acceleration_valid.numpy(),
        "angular_acceleration": agents.acceleration_valid.numpy(),
        "distance_to_nearest_object": valid,
        "distance_to_road_edge": valid,
        "time_to_collision": valid & is_vehicle[:, None] if config.ttc_vehicles_only else valid,
    }
    values = {
        name: (getattr(simulated, name).numpy(), getattr(log, name).numpy(), mask)
        for name, mask in masks.items()
    }
    if config.version == "2023" or config.version == "2024_pkg164":
        lights = []
    else:
        lights = ["traffic_light_violation"]
    for event in ["collision", "offroad", *lights]:
        mask = valid & is_vehicle[:, None] if event in lights else valid
        name = event if event in lights else f"{event}_indication"
        values[name] = (
            happens(getattr(simulated, PER_STEP[event]).numpy(), mask),
            happens(getattr(log, PER_STEP[event]).numpy(), mask),
            every_agent[:, :1],
        )
    score = {
        f"{name}_likelihood": likelihood(*values[name], config.features[name]) for name in values
    }
    score["metametric"] = sum(
        config.features[name].weight * score[f"{name}_likelihood"] for name in values
    )
    error = simulated.average_displacement_error.numpy().astype(np.float64)
    score["average_displacement_error"] = error.mean()
    score["min_average_displacement_error"] = error.mean(axis=1).min()
    if config.version != "2023":
        for event in ["collision", "offroad", *lights]:
            indication = happens(getattr(simulated, PER_STEP[event]).numpy(), valid)
            score[f"simulated_{event}_rate"] = indication.mean()
    return score


def happens(per_step: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Tells whether something happens at a step of the mask, as a feature of one step."""
    return np.any(per_step & mask, axis=-1, keepdims=True)


def likelihood(
    simulated: np.ndarray, log: np.ndarray, scored: np.ndarray, feature: FeatureConfig
) -> float:
    """Returns exp of the mean, over (agent, step) pairs that count, of the log-probabilities."""
    agents, steps = log.shape
    scores = []
    for agent in range(agents):
        for step in range(steps):
            if scored[agent, step]:
                of_agents = slice(None) if feature.aggregate_objects else slice(agent, agent + 1)
                of_steps = slice(None) if feature.independent_timesteps else slice(step, step + 1)
                sample = simulated[:, of_agents, of_steps].flatten()
                scores.append(log_probability(log[agent, step], sample, feature.estimator))
    return math.exp(sum(scores) / len(scores)) if scores else math.nan


def log_probability(value: float, sample: np.ndarray, estimate: Estimate) -> float:
    """Returns the log-probability of one logged value."""
    if isinstance(estimate, BernoulliEstimate):
        same = np.count_nonzero(sample == value)
        smoothing = estimate.smoothing
        return math.log((same + smoothing) / (len(sample) + 2 * smoothing))
    if isinstance(estimate, HistogramEstimate):
        own_bin = bins_of(np.array(value), estimate)
        count = np.count_nonzero(bins_of(sample, estimate) == own_bin)
        total = len(sample) + estimate.num_bins * estimate.smoothing
        return math.log((count + estimate.smoothing) / total)
    known = sample[~np.isnan(sample)].astype(np.float64)
    kernels = np.exp(-0.5 * ((known - value) / estimate.bandwidth) ** 2)
    return math.log(kernels.mean())


def bins_of(values: np.ndarray, estimate: HistogramEstimate) -> np.ndarray:
    """Counts the edges, in float32, that are not above each value."""
    low, high = np.float32(estimate.low), np.float32(estimate.high)
    width = (high - low) / np.float32(estimate.num_bins)
    edges = [low + np.float32(i) * width for i in range(estimate.num_bins)] + [high]
    clipped = np.clip(values.astype(np.float32), low, high)
    not_above = np.sum([edge <= clipped for edge in edges], axis=0)
    last = estimate.num_bins - 1
    return np.where(np.isnan(values), last, np.minimum(not_above - 1, last))
