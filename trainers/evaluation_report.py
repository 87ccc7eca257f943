"""The HTML report of an evaluation: `report.html`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from catk_sim.datatypes import Action, Scenario, SimState, Trajectory
from catk_sim.metrics.bootstrap import estimate_ratios
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.offroad import vehicles_off_road
from catk_sim.metrics.sim_agents.config import Bucket
from catk_sim.metrics.summary import GROUPS
from catk_sim.report import (
    Choices,
    Drive,
    Figure,
    Histogram,
    Measure,
    Report,
    ReportScene,
)
from catk_sim.rollout import Policy
from catk_sim.tokens import MotionVocabulary
from policies.smart.model import SMARTMemory
from policies.smart.policy import SMARTPolicy, StartMemory
from trainers.benchmark import Benchmark, Measured

MEASURES = {
    "realism": Measure(title="realism", better="up"),
    "kinematic": Measure(title="kinematic", better="up"),
    "interactive": Measure(title="interactive", better="up"),
    "map_based": Measure(title="map-based", better="up"),
    "ade": Measure(title="ADE", unit="m", better="down"),
    "min_ade": Measure(title="minADE", unit="m", better="down"),
    "collision_rate": Measure(title="collision", better="down"),
    "offroad_rate": Measure(title="vehicles off-road", better="down"),
}
"""What the tables of a report have."""

FEATURES = {
    "linear_speed": "speed (m/s)",
    "linear_acceleration": "acceleration (m/s²)",
    "angular_speed": "yaw rate (rad/s)",
    "angular_acceleration": "yaw acceleration (rad/s²)",
    "distance_to_nearest_object": "distance to nearest object (m)",
    "time_to_collision": "time to collision (s)",
    "distance_to_road_edge": "distance to road edge (m)",
}
"""What the histograms of a report are called, by Waymo's names."""

TOP = 5
"""Tokens whose probabilities a report tells."""


class _Watched:
    """Drives as SMART does, and keeps what was most likely in some rollouts."""

    def __init__(self, policy: SMARTPolicy, num_rollouts: int) -> None:
        self._policy = SMARTPolicy(policy.model, policy.vocabulary, self._sample)
        self._sampler = policy.sampler
        self._num_rollouts = num_rollouts
        self._logits: Tensor | None = None
        self.dynamics = policy.dynamics
        self.seen: list[tuple[Tensor, Tensor]] = []

    def init(self, state: SimState) -> StartMemory:
        return self._policy.init(state)

    def act(
        self, state: SimState, memory: StartMemory | SMARTMemory, generator: Generator | None
    ) -> tuple[Action, SMARTMemory]:
        action, memory = self._policy.act(state, memory, generator)
        assert self._logits is not None
        # What is sampled from are the valid agents alone, one after the other.
        valid = action.valid[: self._num_rollouts]
        likely = self._logits.reshape(-1, self._logits.shape[-1])[: int(valid.sum())]
        top = likely.softmax(dim=-1).topk(min(TOP, likely.shape[-1]))
        shape, mask = (*valid.shape, top.values.shape[-1]), valid[..., None]
        token = top.indices.new_zeros(shape).masked_scatter(mask, top.indices)
        probability = top.values.new_zeros(shape).masked_scatter(mask, top.values)
        self.seen.append((token.cpu(), probability.cpu()))
        self._logits = None
        return action, memory

    def _sample(
        self, logits: Float[Tensor, "*batch tokens"], generator: Generator | None
    ) -> Int[Tensor, "*batch"]:
        self._logits = logits
        return self._sampler(logits, generator)


@dataclass(frozen=True, kw_only=True)
class ReportSize:
    """How much of an evaluation can be played in its report."""

    max_scenes: int = 20
    """Scenarios. The tables have all of them."""
    max_rollouts: int = 4
    """Rollouts of each policy in each of them."""

    def __post_init__(self) -> None:
        if self.max_scenes < 0 or self.max_rollouts < 1:
            raise ValueError(
                f"wanted at least 0 scenes and 1 rollout, got {self.max_scenes} and "
                f"{self.max_rollouts}"
            )


class Recorder:
    """Keeps what the first scenarios of an evaluation looked like.

    Args:
        size: How much is kept.
        policies: Who is evaluated, if policies are. Evaluate `watched` in their place, so that what
            they find likely is kept too.
    """

    def __init__(self, size: ReportSize, policies: Mapping[str, Policy] | None = None) -> None:
        self._size = size
        self._watched: dict[str, _Watched] = {}
        self._vocabularies: dict[str, MotionVocabulary] = {}
        self._scenarios: dict[str, Scenario] = {}
        self._drives: dict[str, dict[str, Drive]] = {}
        self.watched = {
            name: self._watch(name, policy) for name, policy in (policies or {}).items()
        }

    def __call__(
        self,
        name: str,
        batch: Scenario,
        simulated: Trajectory,
        controlled: Bool[Tensor, "scenarios agents"],
    ) -> None:
        """Keeps what was driven; see `Watch`."""
        policy = self._watched.get(name)
        seen = [] if policy is None else policy.seen
        wanted = self._size.max_scenes - len(self._scenarios.keys() - set(batch.scenario_id))
        for row in range(min(wanted, batch.batch_size)):
            scenario = batch.select(row).to("cpu")
            episodes = simulated.map(partial(_take, rollouts=self._size.max_rollouts, row=row))
            self._scenarios[scenario.scenario_id[0]] = scenario
            self._drives.setdefault(scenario.scenario_id[0], {})[name] = Drive(
                simulated=episodes,
                controlled=controlled[row].cpu(),
                collided=collision_indication(episodes, scenario).value > 0,
                offroad=vehicles_off_road(episodes, scenario),
                figures={},
                choices=self._choices(name, scenario, seen, row),
            )
        seen.clear()

    def scenes(self, figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[ReportScene]:
        """Lists what was kept of the scenarios that there are figures of, with these."""
        return [
            ReportScene(
                scenario=scenario,
                drives={
                    name: _with_figures(drive, figures[scenario_id][name])
                    for name, drive in self._drives[scenario_id].items()
                },
            )
            for scenario_id, scenario in self._scenarios.items()
            if scenario_id in figures
        ]

    def _watch(self, name: str, policy: Policy) -> Policy:
        if not isinstance(policy, SMARTPolicy):
            return policy
        self._vocabularies[name] = policy.vocabulary.to("cpu")
        self._watched[name] = _Watched(policy, self._size.max_rollouts)
        return self._watched[name]

    def _choices(
        self, name: str, scenario: Scenario, seen: Sequence[tuple[Tensor, Tensor]], row: int
    ) -> Choices | None:
        if not seen:
            return None
        vocabulary = self._vocabularies[name]
        token = torch.stack([each[:, row] for each, _ in seen], dim=1)
        probability = torch.stack([each[:, row] for _, each in seen], dim=1)
        kind = vocabulary.type_index(scenario.agents.type)[:, None]
        end = vocabulary.poses[..., -1, :2]
        return Choices(label=token, probability=probability, offset=end[kind, token])


def _take(tensor: Tensor, *, rollouts: int, row: int) -> Tensor:
    return tensor[:rollouts, row].cpu()


def evaluation_report(
    results: Mapping[str, Measured], recorder: Recorder, data: str, benchmark: Benchmark
) -> Report:
    """Makes the report of an evaluation of sim agents.

    Args:
        results: What was measured of each policy.
        recorder: What it looked like.
        data: Where the scenarios come from.
        benchmark: How it was measured.
    """
    per_policy = {name: _per_scenario(measured) for name, measured in results.items()}
    per_scenario: dict[str, dict[str, dict[str, float]]] = {}
    for name, records in per_policy.items():
        for scenario_id, record in records.items():
            per_scenario.setdefault(scenario_id, {})[name] = record
    first = next(iter(results.values()))
    return Report(
        title=f"{', '.join(results)}: {len(first.scenario_id)} scenarios",
        facts={
            "data": data,
            "rollouts": str(benchmark.rollouts.num_rollouts),
            "seed": str(benchmark.seed),
            "metric": f"Sim Agents {benchmark.rollouts.metric_version}",
        },
        measures=MEASURES,
        totals={name: _totals(measured) for name, measured in results.items()},
        per_scenario=per_scenario,
        histograms=_histograms(results),
        scenes=recorder.scenes(per_scenario),
        remarks=[
            "Intervals hold 95 % of bootstrap resamples of the scenarios. Realism and its parts "
            "are those of Waymo's Sim Agents metric; ADE and the rates are means over agents, "
            "minADE is one over scenarios.",
            *_remarks(first),
        ],
    )


def _remarks(measured: Measured) -> list[str]:
    if not measured.unscored:
        return []
    scenario_id, reason = next(iter(measured.unscored.items()))
    return [
        f"Realism is without {len(measured.unscored)} scenarios that it is not defined for, such "
        f"as {scenario_id}: {reason}"
    ]


def _with_figures(drive: Drive, figures: Mapping[str, float]) -> Drive:
    return Drive(**{**vars(drive), "figures": figures})


def _totals(measured: Measured) -> dict[str, Figure]:
    estimates = estimate_ratios(_ratios(measured))
    return {
        name: Figure(mean=one.mean, low=one.low, high=one.high) for name, one in estimates.items()
    }


def _per_scenario(measured: Measured) -> dict[str, dict[str, float]]:
    ratios = _ratios(measured)
    return {
        scenario_id: {
            name: float(above[row] / below[row]) if below[row] > 0 else math.nan
            for name, (above, below) in ratios.items()
        }
        for row, scenario_id in enumerate(measured.scenario_id)
    }


def _ratios(measured: Measured) -> dict[str, tuple[Tensor, Tensor]]:
    """Tells each measure as a ratio of sums over scenarios, by what each scenario adds to both."""
    summary = measured.summary
    everyone, vehicles = (list(GROUPS).index(group) for group in ("all", "vehicle"))
    return _realism(measured) | {
        "ade": (summary.displacement[:, everyone], summary.num_logged[:, everyone]),
        "min_ade": (
            summary.scene_min_displacement[:, everyone],
            (summary.num_logged[:, everyone] > 0).double(),
        ),
        "collision_rate": (summary.num_collided[:, everyone], summary.num_agents[:, everyone]),
        "offroad_rate": (summary.num_offroad[:, vehicles], summary.num_agents[:, vehicles]),
    }


def _realism(measured: Measured) -> dict[str, tuple[Tensor, Tensor]]:
    scores = measured.sim_agents
    if scores is None:
        return {}
    columns = {"realism": scores.metametric.double()} | {
        bucket.value.removesuffix("_metrics"): scores.bucket(bucket) for bucket in Bucket
    }
    rows = {scenario_id: row for row, scenario_id in enumerate(measured.scenario_id)}
    places = torch.tensor([rows[scenario_id] for scenario_id in scores.scenario_id])
    ratios = {}
    for name, values in columns.items():
        known = ~values.isnan()
        above, below = torch.zeros(2, len(rows), dtype=torch.float64)
        above[places[known]], below[places[known]] = values[known], 1.0
        ratios[name] = (above, below)
    return ratios


def _histograms(results: Mapping[str, Measured]) -> list[Histogram]:
    found = {name: measured.features for name, measured in results.items() if measured.features}
    if not found:
        return []
    first = next(iter(found.values()))
    return [
        Histogram(
            title=title,
            edges=first[feature].edges.numpy(),
            counts={
                "log": first[feature].log.numpy(),
                **{name: counts[feature].simulated.numpy() for name, counts in found.items()},
            },
        )
        for feature, title in FEATURES.items()
        if feature in first
    ]
