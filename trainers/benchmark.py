"""Policies on the same scenarios: drives them, and measures what they do."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from catk_sim.datasets.batching import collate
from catk_sim.datatypes import Rollout, Scenario, Trajectory
from catk_sim.metrics.sim_agents.config import SimAgentsConfig
from catk_sim.metrics.sim_agents.histograms import FeatureCounts, add_counts, count_features
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes
from catk_sim.metrics.sim_agents.metric import PreparedScene, SimAgentsMetric
from catk_sim.metrics.sim_agents.realism import SimAgentsMetrics
from catk_sim.metrics.sim_agents.scene import UnscorableError
from catk_sim.metrics.summary import RolloutSummary, summarize_rollouts
from catk_sim.rollout import Policy, rollout, without_late_agents
from trainers.configs import RolloutConfig
from trainers.distributed import gather_shares, is_main, share, world_size
from trainers.scenes import Scenarios
from trainers.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What policies are measured on.

    Attributes:
        scenarios: The data.
        indices: Which of them, in this order.
        rollouts: How many rollouts, and how many scenarios at a time.
        seed: Seed of the policies' draws, which are the same for all.
        device: Where it is simulated.
    """

    scenarios: Scenarios
    indices: Sequence[int]
    rollouts: RolloutConfig
    seed: int
    device: torch.device

    @property
    def num_batches(self) -> int:
        """How often scenarios are read, so many at a time."""
        return math.ceil(len(self.indices) / self.rollouts.batch_size)

    def read(self, number: int) -> list[Scenario]:
        """Reads the scenarios of a batch."""
        size = self.rollouts.batch_size
        start = number * size
        return [self.scenarios[index] for index in self.indices[start : start + size]]

    def simulated(self, scenarios: Sequence[Scenario]) -> Scenario:
        """Makes a batch ready to simulate: float32, without agents that come later."""
        return without_late_agents(collate(scenarios)).to(torch.float32).to(self.device)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a policy did on a benchmark.

    Attributes:
        summary: Displacement, collisions and departures from the road.
        sim_agents: Waymo's metric of the scenarios that it is defined for.
        unscored: Why it is not defined for the others, by their ids.
        num_rollouts: Rollouts of each scenario.
        scenario_id: The scenarios, as they are in `summary`.
        features: How often values of its features were simulated and logged.
    """

    summary: RolloutSummary
    sim_agents: SimAgentsMetrics | None
    unscored: Mapping[str, str]
    num_rollouts: int
    scenario_id: tuple[str, ...]
    features: Mapping[str, FeatureCounts]

    @classmethod
    def merge(cls, parts: Sequence["Measured"]) -> "Measured":
        """Joins what was measured on several batches."""
        scored = [part.sim_agents for part in parts if part.sim_agents is not None]
        return cls(
            summary=RolloutSummary.cat([part.summary for part in parts]),
            sim_agents=SimAgentsMetrics.cat(scored) if scored else None,
            unscored={
                scenario_id: reason
                for part in parts
                for scenario_id, reason in part.unscored.items()
            },
            num_rollouts=parts[0].num_rollouts,
            scenario_id=tuple(name for part in parts for name in part.scenario_id),
            features=add_counts([part.features for part in parts if part.features]),
        )

    def figures(self) -> dict[str, Any]:
        """Makes figures over all scenarios: those of `RolloutSummary.table`, and Waymo's."""
        return self.summary.table() | {"sim_agents": self._sim_agents()}

    def _sim_agents(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "num_rollouts": self.num_rollouts,
            "num_scenarios": 0,
            "unscored": dict(self.unscored),
        }
        if self.sim_agents is None:
            return record
        scenarios = {str(one.pop("scenario_id")): one for one in self.sim_agents.scenario_records()}
        return record | {
            "version": self.sim_agents.version,
            "num_scenarios": len(scenarios),
            "bucketed": self.sim_agents.buckets(),
            "mean": self.sim_agents.aggregate(),
            "scenarios": scenarios,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class _Loaded:
    """A batch of scenarios, and what Waymo's metric needs of those that it is defined for.

    Attributes:
        batch: The scenarios, ready to simulate.
        prepared: What the metric needs. None if it is defined for none.
        rows: Which scenarios of the batch it is defined for.
        unscored: Why it is not defined for the others, by their ids.
    """

    batch: Scenario
    prepared: PreparedScene | None
    rows: list[int]
    unscored: dict[str, str]


def drive(policy: Policy, benchmark: Benchmark) -> Iterator[tuple[Scenario, Rollout]]:
    """Lets a policy drive all agents that are valid at the current step, batch by batch."""
    for number in range(benchmark.num_batches):
        batch = benchmark.simulated(benchmark.read(number))
        yield batch, _drive(policy, batch, benchmark, number)


@runtime_checkable
class Watch(Protocol):
    """Sees what is driven while it is measured."""

    def __call__(
        self,
        name: str,
        batch: Scenario,
        simulated: Trajectory,
        controlled: Bool[Tensor, "scenarios agents"],
    ) -> None:
        """Called with whoever drove, in which scenarios, the rollouts, and whom it drove."""
        ...


class Evaluator:
    """Measures policies on a benchmark, one batch of scenarios in memory at a time.

    Several processes share the batches, and all get the results. For Waymo's metric, which wants
    every sim agent at all steps, one that leaves with the log stays where it was last.

    Args:
        benchmark: What policies are measured on.
        rules: The version of Waymo's metric.
        keep: Whether what was read and what the metric computed from it stays in memory, for
            policies that are measured again and again.
    """

    def __init__(
        self, benchmark: Benchmark, *, rules: str | SimAgentsConfig = "2025", keep: bool = False
    ) -> None:
        self._benchmark = benchmark
        self._metric = SimAgentsMetric(rules)
        self._kept: dict[int, _Loaded] | None = {} if keep else None

    def measure(
        self,
        policies: Mapping[str, Policy],
        *,
        show_progress: bool = True,
        watch: Watch | None = None,
    ) -> dict[str, Measured]:
        """Drives policies, all with the same seeds. They and the results go under names.

        Args:
            policies: Who drives.
            show_progress: Whether to show how far it is.
            watch: Sees everything that is driven. Of several processes each calls its own.
        """
        benchmark = self._benchmark
        parts = []
        hidden = not (show_progress and is_main())
        total = len(policies) * len(benchmark.indices)
        with tqdm(total=total, desc="evaluate", unit="scenario", disable=hidden) as bar:
            for number in share(range(benchmark.num_batches)):
                loaded = self._load(number)
                measured = {}
                for name, policy in policies.items():
                    driven = _drive(policy, loaded.batch, benchmark, number)
                    measured[name] = _measure(driven, loaded, self._metric)
                    if watch is not None:
                        watch(
                            name,
                            loaded.batch,
                            driven.simulated,
                            driven.final.controlled.select(0, 0),
                        )
                    bar.update(min(loaded.batch.batch_size * world_size(), total - bar.n))
                parts.append(measured)
        parts = gather_shares(parts)
        return {name: Measured.merge([part[name] for part in parts]) for name in policies}

    def _load(self, number: int) -> "_Loaded":
        if self._kept is not None and number in self._kept:
            return self._kept[number]
        scenarios = self._benchmark.read(number)
        loaded = _prepare(self._metric, scenarios, self._benchmark)
        if self._kept is not None:
            self._kept[number] = loaded
        return loaded


def _drive(policy: Policy, batch: Scenario, benchmark: Benchmark, number: int) -> Rollout:
    generator = torch.Generator(benchmark.device)
    generator.manual_seed(seed_of(benchmark.seed, "evaluate", number))
    with torch.no_grad():
        return rollout(
            policy, batch, num_rollouts=benchmark.rollouts.num_rollouts, generator=generator
        )


def _measure(driven: Rollout, loaded: _Loaded, metric: SimAgentsMetric) -> Measured:
    summary = summarize_rollouts(driven.simulated, loaded.batch, driven.final.controlled[0])
    sim_agents, counts = None, {}
    if loaded.prepared is not None:
        rows = torch.tensor(loaded.rows, device=driven.simulated.valid.device)
        simulated = driven.simulated.map(lambda tensor: tensor[:, rows])
        joint = JointScenes.from_rollout(simulated, loaded.prepared.scene, hold_absent=True)
        features = metric.features(loaded.prepared, joint)
        sim_agents = metric.score(loaded.prepared, features).to("cpu")
        counts = count_features(
            features, loaded.prepared.log, loaded.prepared.scored, metric.config
        )
    return Measured(
        summary=summary.to("cpu"),
        sim_agents=sim_agents,
        unscored=loaded.unscored,
        num_rollouts=driven.simulated.valid.shape[0],
        scenario_id=loaded.batch.scenario_id,
        features=counts,
    )


def _prepare(
    metric: SimAgentsMetric, scenarios: Sequence[Scenario], benchmark: Benchmark
) -> _Loaded:
    rows, unscored = list(range(len(scenarios))), {}
    try:
        prepared = metric.prepare(collate(scenarios).to(benchmark.device))
    except UnscorableError:
        # It is not defined for some of them. One at a time, to learn which.
        rows, unscored = _scorable(metric, scenarios)
        scorable = [scenarios[row] for row in rows]
        prepared = metric.prepare(collate(scorable).to(benchmark.device)) if rows else None
    return _Loaded(
        batch=benchmark.simulated(scenarios), prepared=prepared, rows=rows, unscored=unscored
    )


def _scorable(
    metric: SimAgentsMetric, scenarios: Sequence[Scenario]
) -> tuple[list[int], dict[str, str]]:
    rows, unscored = [], {}
    for row, scenario in enumerate(scenarios):
        try:
            metric.prepare(scenario)
            rows.append(row)
        except UnscorableError as error:
            unscored[scenario.scenario_id[0]] = str(error)
    return rows, unscored
