"""The realism of simulated agents: the score of the Waymo Open Sim Agents Challenge.

Montali et al., "The Waymo Open Sim Agents Challenge", arXiv:2305.12032, section 3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from catk_sim.datatypes import TensorTree
from catk_sim.datatypes.tensor_tree import Tree
from catk_sim.metrics.sim_agents.config import INDICATIONS, RATES, Bucket, SimAgentsConfig
from catk_sim.metrics.sim_agents.estimators import Table, tabulate
from catk_sim.metrics.sim_agents.features import ScoredAgents, SimAgentsFeatures


@dataclass(frozen=True, eq=False, kw_only=True)
class SimAgentsMetrics(TensorTree):
    """The scores of scenarios, under Waymo's names, in float32 as Waymo stores them.

    A likelihood is NaN where nothing that was logged counts, and so is then the meta-metric.
    Metrics of several batches merge by `SimAgentsMetrics.cat`, if their rules are the same.

    Attributes:
        config: The rules they were scored by. What these do not have is None.
        scenario_id: WOMD's id of each scenario.
        metametric: Weighted sum of the likelihoods.
        average_displacement_error: Mean over rollouts and agents (m).
        min_average_displacement_error: Least mean over agents of a rollout (m).
    """

    config: SimAgentsConfig
    scenario_id: tuple[str, ...]
    metametric: Float[Tensor, "*batch"]
    average_displacement_error: Float[Tensor, "*batch"]
    min_average_displacement_error: Float[Tensor, "*batch"]
    linear_speed_likelihood: Float[Tensor, "*batch"] | None = None
    linear_acceleration_likelihood: Float[Tensor, "*batch"] | None = None
    angular_speed_likelihood: Float[Tensor, "*batch"] | None = None
    angular_acceleration_likelihood: Float[Tensor, "*batch"] | None = None
    distance_to_nearest_object_likelihood: Float[Tensor, "*batch"] | None = None
    collision_indication_likelihood: Float[Tensor, "*batch"] | None = None
    time_to_collision_likelihood: Float[Tensor, "*batch"] | None = None
    distance_to_road_edge_likelihood: Float[Tensor, "*batch"] | None = None
    offroad_indication_likelihood: Float[Tensor, "*batch"] | None = None
    traffic_light_violation_likelihood: Float[Tensor, "*batch"] | None = None
    simulated_collision_rate: Float[Tensor, "*batch"] | None = None
    simulated_offroad_rate: Float[Tensor, "*batch"] | None = None
    simulated_traffic_light_violation_rate: Float[Tensor, "*batch"] | None = None

    @property
    def version(self) -> str:
        """What the rules are called."""
        return self.config.version

    @classmethod
    def cat(cls: type[Tree], trees: Sequence[Tree]) -> Tree:
        """Joins batches along their first dimension.

        Raises:
            ValueError: They were scored by different rules.
        """
        _check_same_rules(trees)
        return super().cat(trees)  # pyright: ignore[reportArgumentType]

    @classmethod
    def stack(cls: type[Tree], trees: Sequence[Tree]) -> Tree:
        """Stacks metrics of equal shape along a new first dimension.

        Raises:
            ValueError: They were scored by different rules.
        """
        _check_same_rules(trees)
        return super().stack(trees)  # pyright: ignore[reportArgumentType]

    def scenario_records(self) -> list[dict[str, str | float]]:
        """Lists every scenario's id and scores by Waymo's names. What is None is left out."""
        columns = {name: value.flatten().tolist() for name, value in self._scores().items()}
        return [
            {"scenario_id": scenario_id} | {name: column[i] for name, column in columns.items()}
            for i, scenario_id in enumerate(self.scenario_id)
        ]

    def aggregate(self) -> dict[str, float]:
        """Averages every score over the scenarios. NaN where one of them is."""
        return {
            name: value.double().mean().float().item() for name, value in self._scores().items()
        }

    def buckets(self) -> dict[str, float]:
        """Sums the scores up as Waymo's leaderboards do.

        `realism_meta_metric`, a figure for each `Bucket`, `min_ade` (m), and the rates. A bucket's
        figure is the mean of its likelihoods, by weight; NaN where nothing in it weighs anything.
        """
        score = self.aggregate()
        return {
            "realism_meta_metric": score["metametric"],
            **{bucket.value: self._bucket(bucket, score) for bucket in Bucket},
            "min_ade": score["min_average_displacement_error"],
            **{name: score[name] for name in self.config.simulated_rates},
        }

    def bucket(self, bucket: Bucket) -> Float[Tensor, "*batch"]:
        """Averages the likelihoods of a bucket, by weight, for each scenario, in float64."""
        scores = {name: value.double() for name, value in self._scores().items()}
        return torch.as_tensor(self._bucket(bucket, scores))

    def _bucket(self, bucket: Bucket, score: dict[str, Any]) -> Any:
        members = {
            name: feature.weight
            for name, feature in self.config.features.items()
            if feature.bucket == bucket
        }
        total = sum(weight * score[f"{name}_likelihood"] for name, weight in members.items())
        weight = sum(members.values())
        return total / weight if weight else float("nan")

    def _scores(self) -> dict[str, Float[Tensor, "*batch"]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True, eq=False, kw_only=True)
class LeaveOneOut:
    """What each rollout adds to the realism of a scenario, in float64. NaN where that is NaN."""

    realism: Float[Tensor, "*scenes"]
    """The meta-metric of all rollouts."""
    without: Float[Tensor, " rollouts *scenes"]
    """The meta-metric of all rollouts but one."""

    @property
    def contribution(self) -> Float[Tensor, " rollouts *scenes"]:
        """How much each rollout adds; negative for one that the others are better without."""
        return self.realism - self.without


def score(
    simulated: SimAgentsFeatures,
    log: SimAgentsFeatures,
    agents: ScoredAgents,
    *,
    config: SimAgentsConfig,
) -> SimAgentsMetrics:
    """Scores rollouts of scenarios by the likelihood of the log under them.

    Args:
        simulated: Features of the rollouts, along a first dimension.
        log: Features of what was logged, without that dimension.
        agents: Whose features they are, and where they count.
        config: The rules.

    Raises:
        ValueError: Shapes differ, there is no rollout, or a feature that the rules want is None.
    """
    _check_shapes(simulated, log, agents, at_least=1)
    likelihood = {
        name: table.likelihood() for name, table in _tables(simulated, log, agents, config).items()
    }
    rates = {
        name: _mean_over_agents(_happens(simulated, RATES[name], agents.valid), agents).mean(dim=0)
        for name in config.simulated_rates
    }
    displacement = _mean_over_agents(simulated.average_displacement_error, agents)
    return SimAgentsMetrics(
        config=config,
        scenario_id=agents.scenario_id,
        metametric=_metametric(likelihood, config).float(),
        average_displacement_error=displacement.mean(dim=0).float(),
        min_average_displacement_error=displacement.amin(dim=0).float(),
        **{f"{name}_likelihood": value.float() for name, value in likelihood.items()},
        **{name: value.float() for name, value in rates.items()},
    )


def leave_one_out(
    simulated: SimAgentsFeatures,
    log: SimAgentsFeatures,
    agents: ScoredAgents,
    *,
    config: SimAgentsConfig,
) -> LeaveOneOut:
    """Measures what each rollout adds to the meta-metric: a reward for it.

    Arguments as for `score`.

    Raises:
        ValueError: As for `score`, or there are fewer than two rollouts.
    """
    _check_shapes(simulated, log, agents, at_least=2)
    tables = _tables(simulated, log, agents, config)
    whole = {name: table.likelihood() for name, table in tables.items()}
    without = {name: table.likelihood_without_each() for name, table in tables.items()}
    return LeaveOneOut(realism=_metametric(whole, config), without=_metametric(without, config))


def finite_or_none(content: Any) -> Any:
    """Replaces what is not a finite number by None, in nested records: JSON has no NaN."""
    if isinstance(content, dict):
        return {name: finite_or_none(value) for name, value in content.items()}
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _metametric(
    likelihood: dict[str, Float[Tensor, "*batch"]], config: SimAgentsConfig
) -> Float[Tensor, "*batch"]:
    weighted = [config.features[name].weight * value for name, value in likelihood.items()]
    return torch.stack(weighted).sum(dim=0)


def _tables(
    simulated: SimAgentsFeatures,
    log: SimAgentsFeatures,
    agents: ScoredAgents,
    config: SimAgentsConfig,
) -> dict[str, Table]:
    tables = {}
    for name, feature in config.features.items():
        valid = counted_steps(name, agents, config)
        if name in INDICATIONS:
            field = INDICATIONS[name]
            simulated_value, logged_value = (
                _happens(features, field, valid)[..., None] for features in (simulated, log)
            )
            valid = torch.ones_like(logged_value)
        else:
            simulated_value, logged_value = getattr(simulated, name), getattr(log, name)
        tables[name] = tabulate(
            simulated_value, logged_value, scored=valid, counted=agents.counted, feature=feature
        )
    return tables


def counted_steps(
    name: str, agents: ScoredAgents, config: SimAgentsConfig
) -> Bool[Tensor, "*scenes agents steps"]:
    """Tells where the logged values of a feature count."""
    if name in ("linear_speed", "angular_speed"):
        return agents.speed_valid
    if name in ("linear_acceleration", "angular_acceleration"):
        return agents.acceleration_valid
    if name == "traffic_light_violation" or (
        name == "time_to_collision" and config.ttc_vehicles_only
    ):
        return agents.valid & agents.is_vehicle[..., None]
    return agents.valid


def _happens(
    features: SimAgentsFeatures, field: str, valid: Bool[Tensor, "*scenes agents steps"]
) -> Bool[Tensor, "*batch agents"]:
    """Tells whether something happens to an agent at a step that counts."""
    per_step = getattr(features, field)
    if per_step is None:
        raise ValueError(f"the rules want {field}, which is None in the features")
    return (per_step & valid).any(dim=-1)


def _mean_over_agents(
    value: Float[Tensor, "*batch agents"] | Bool[Tensor, "*batch agents"], agents: ScoredAgents
) -> Float[Tensor, "*batch"]:
    """Averages over the agents of a scenario, without padding."""
    total = torch.where(agents.counted, value.double(), 0.0).sum(dim=-1)
    return total / agents.counted.sum(dim=-1)


def _check_shapes(
    simulated: SimAgentsFeatures, log: SimAgentsFeatures, agents: ScoredAgents, *, at_least: int
) -> None:
    rollouts, *shape = simulated.linear_speed.shape
    if rollouts < at_least:
        raise ValueError(f"wanted at least {at_least} rollouts, got {rollouts}")
    of_log, of_agents = list(log.linear_speed.shape), list(agents.valid.shape)
    if not shape == of_log == of_agents:
        raise ValueError(
            f"wanted features of shape (rollouts, *scenes, agents, steps) and a log and agents of "
            f"shape (*scenes, agents, steps), got {[rollouts, *shape]}, {of_log} and {of_agents}"
        )


def _check_same_rules(trees: Sequence[TensorTree]) -> None:
    rules = [tree.config for tree in trees if isinstance(tree, SimAgentsMetrics)]
    for other in rules[1:]:
        if other != rules[0]:
            raise ValueError(
                "only metrics of the same rules can be joined, got those of "
                f"{rules[0].version!r} and different ones of {other.version!r}"
            )
