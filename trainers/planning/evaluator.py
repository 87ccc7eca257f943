"""Measures planners: drives them, and tells what they did in every scenario."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from catk_sim.constants import NUM_STEPS
from catk_sim.datasets.scenario_dataset import ScenarioDataset
from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.metrics.planning import (
    EgoMetrics,
    Estimate,
    ego_joint_scenes,
    evaluate_ego,
    only_ego_evaluated,
    paired_differences,
    summarize,
)
from catk_sim.metrics.sim_agents.metric import PreparedScene, SimAgentsMetric
from catk_sim.metrics.sim_agents.scene import UnscorableError
from catk_sim.planning.drivers import EgoDriver
from catk_sim.planning.route import Route
from catk_sim.planning.simulation import Driven, Failure, TrafficGroup, drive
from trainers.benchmark import Benchmark, Watch
from trainers.distributed import gather_shares, is_main, share
from trainers.planning.films import Films, Record
from trainers.seeds import seed_of


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a planner did.

    Attributes:
        records: What was measured, scenario by scenario.
        failures: Where it failed.
        seconds: How long each call took (s).
        start_seconds: How long it took to prepare for each scenario (s).
    """

    records: list[Record]
    failures: list[Failure]
    seconds: list[float]
    start_seconds: list[float]

    @classmethod
    def merge(cls, parts: Sequence["Measured"]) -> "Measured":
        """Joins what was measured on several batches."""
        return cls(
            records=[record for part in parts for record in part.records],
            failures=[failure for part in parts for failure in part.failures],
            seconds=[seconds for part in parts for seconds in part.seconds],
            start_seconds=[seconds for part in parts for seconds in part.start_seconds],
        )

    def figures(self, first: "Measured | None" = None) -> dict[str, Any]:
        """Makes what `metrics.json` holds of a planner.

        Args:
            first: What another planner did on the same scenarios: differences to it are added.
        """
        figures: dict[str, Any] = {
            "measures": _as_dicts(summarize(self.records)),
            "plan_seconds": _durations(self.seconds),
            "initialize_seconds": _durations(self.start_seconds),
            "failures": [asdict(failure) for failure in self.failures],
        }
        if first is not None:
            differences = paired_differences(self.records, first.records)
            figures["differences_to_first"] = _as_dicts(differences)
        return figures


class PlannerEvaluator:
    """Measures who drives the ego, one batch of scenarios in memory at a time.

    Several processes share the batches, and all get the results.

    Args:
        benchmark: What is driven.
        traffic: Who drives the others.
        only: Ids of scenarios to leave it at; empty for all. Batches stay as they are.
        num_films: Films to keep of each, of the worst scenarios.
        watch: Sees everything that is driven. Of several processes each calls its own.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        traffic: Sequence[TrafficGroup] = (),
        *,
        only: Sequence[str] = (),
        num_films: int = 0,
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._benchmark = benchmark
        self._traffic = traffic
        self._only = frozenset(only)
        self._metric = SimAgentsMetric(benchmark.rollouts.metric_version)
        self.films = Films(num_films)

    def measure(
        self, drivers: Mapping[str, EgoDriver], *, show_progress: bool = True
    ) -> dict[str, Measured]:
        """Lets all drive, with the same seeds.

        Raises:
            ValueError: A scenario that was asked for is not there, or has no future.
        """
        parts = []
        hidden = not (show_progress and is_main())
        numbers = self._batches()
        for number in tqdm(share(numbers), desc="drive", unit="batch", disable=hidden):
            loaded = _Loaded.of(self._benchmark.read(number), self._metric, self._benchmark)
            parts.append(
                {name: self._drive(name, one, loaded, number) for name, one in drivers.items()}
            )
        parts = gather_shares(parts)
        return {name: Measured.merge([part[name] for part in parts]) for name in drivers}

    def _batches(self) -> list[int]:
        benchmark = self._benchmark
        everything = list(range(benchmark.num_batches))
        if not self._only:
            return everything
        scenarios = benchmark.scenarios
        if isinstance(scenarios, ScenarioDataset):  # It knows without reading.
            ids = [scenarios.scenario_ids[index] for index in benchmark.indices]
        else:
            ids = [scenarios[index].scenario_id[0] for index in benchmark.indices]
        missing = sorted(self._only.difference(ids))
        if missing:
            raise ValueError(f"there are no scenarios {', '.join(missing)} among the {len(ids)}")
        size = benchmark.rollouts.batch_size
        return sorted({ids.index(scenario_id) // size for scenario_id in self._only})

    def _drive(self, name: str, driver: EgoDriver, loaded: "_Loaded", number: int) -> Measured:
        benchmark = self._benchmark
        driven = [
            drive(
                driver,
                loaded.scenarios,
                traffic=self._traffic,
                seed=seed_of(benchmark.seed, "planning", number, index),
                device=benchmark.device,
            )
            for index in range(benchmark.rollouts.num_rollouts)
        ]
        simulated = Trajectory.stack([one.rollout.simulated for one in driven])
        scenario = driven[0].rollout.final.scenario
        if self._watch is not None:
            self._watch(name, scenario, simulated, driven[0].rollout.final.controlled)
        metrics = _failures_score_nothing(evaluate_ego(simulated, scenario, loaded.route), driven)
        realism = loaded.realism(self._metric, simulated)
        records = [
            {"planner": name, **record, **_failed(str(record["scenario_id"]), driven), **real}
            for record, real in zip(metrics.scenario_records(), realism, strict=True)
        ]
        kept = []
        for place, record in enumerate(records):
            if not self._only or record["scenario_id"] in self._only:
                kept.append(record)
                worst = driven[_worst_rollout(metrics, place)]
                self.films.offer(name, record, worst.rollout, place)
        wanted = {record["scenario_id"] for record in kept}
        return Measured(
            records=kept,
            failures=[
                failure
                for one in driven
                for failure in one.failures
                if failure.scenario_id in wanted
            ],
            seconds=[seconds for one in driven for seconds in one.seconds],
            start_seconds=[seconds for one in driven for seconds in one.start_seconds],
        )


def _worst_rollout(metrics: EgoMetrics, place: int) -> int:
    return int(metrics.score[:, place].nan_to_num(2.0).argmin())


@dataclass(frozen=True, eq=False, kw_only=True)
class _Loaded:
    """A batch of scenarios, and what metrics need of it.

    Attributes:
        scenarios: As they were read.
        route: Where their egos are to go.
        prepared: What Waymo's metric needs; None where it is not defined.
    """

    scenarios: list[Scenario]
    route: Route
    prepared: list[PreparedScene | None]

    @classmethod
    def of(
        cls, scenarios: list[Scenario], metric: SimAgentsMetric, benchmark: Benchmark
    ) -> "_Loaded":
        """Prepares a batch.

        Raises:
            ValueError: A log has no future, as in WOMD's test split.
        """
        for scenario in scenarios:
            if scenario.log.num_steps != NUM_STEPS:
                raise ValueError(
                    f"planners want scenarios of {NUM_STEPS} steps, and {scenario.scenario_id[0]} "
                    f"has {scenario.log.num_steps}: route and goal are those of the logged "
                    "future, which WOMD's test split does not have"
                )
        device = benchmark.device
        routes = [Route.from_scenario(scenario.to(torch.float32)) for scenario in scenarios]
        return cls(
            scenarios=scenarios,
            route=Route.stack(routes).to(device),
            prepared=[_prepared(metric, scenario.to(device)) for scenario in scenarios],
        )

    def realism(self, metric: SimAgentsMetric, simulated: Trajectory) -> Iterator[Record]:
        """Tells how realistic each ego drives; nothing where that is not defined."""
        for place, (scenario, prepared) in enumerate(
            zip(self.scenarios, self.prepared, strict=True)
        ):
            if prepared is None:
                yield {}
                continue
            count = scenario.log.num_agents
            mine: Trajectory = simulated.map(
                lambda tensor, place=place, count=count: tensor[:, place, :count]
            )
            scored = metric(prepared, ego_joint_scenes(mine, prepared.scene))
            yield {"realism": scored.scenario_records()[0]["metametric"]}


def _prepared(metric: SimAgentsMetric, scenario: Scenario) -> PreparedScene | None:
    try:
        return metric.prepare(only_ego_evaluated(scenario))
    except UnscorableError:
        return None


def _failures_score_nothing(metrics: EgoMetrics, driven: Sequence[Driven]) -> EgoMetrics:
    ids = metrics.scenario_id[: metrics.score.shape[-1]]
    failed = [[_has_failed(one, scenario_id) for scenario_id in ids] for one in driven]
    mask = torch.tensor(failed, device=metrics.score.device)
    return metrics.replace(score=metrics.score.masked_fill(mask, 0.0))


def _has_failed(driven: Driven, scenario_id: str) -> bool:
    return any(failure.scenario_id == scenario_id for failure in driven.failures)


def _failed(scenario_id: str, driven: Sequence[Driven]) -> Record:
    reasons = [
        f"step {failure.step}: {failure.reason}" if failure.step is not None else failure.reason
        for one in driven
        for failure in one.failures
        if failure.scenario_id == scenario_id
    ]
    return {"failed": len(reasons) / len(driven), "failure": reasons[0] if reasons else ""}


def _as_dicts(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: asdict(estimate) for name, estimate in estimates.items()}


def _durations(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {"calls": 0.0}
    return {
        "calls": float(len(seconds)),
        "mean": float(np.mean(seconds)),
        "p95": float(np.quantile(seconds, 0.95)),
        "max": float(np.max(seconds)),
    }
