from dataclasses import replace

import pytest
import torch

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.metrics.sim_agents import JointScenes, SimAgentsMetric
from policies.registry import make_policy
from tests.scenes import arc_vocabulary
from trainers.benchmark import Benchmark, Evaluator, Measured, drive
from trainers.configs import RolloutConfig

CPU = torch.device("cpu")
POLICIES = {name: make_policy(name) for name in ("constant_velocity", "log_replay")}


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [generate_scenario(seed) for seed in range(3)]


def without_road_edges(scenario: Scenario) -> Scenario:
    lanes = torch.full_like(scenario.roadgraph.feature_type, 2)
    return scenario.replace(
        scenario_id=("edgeless",), roadgraph=scenario.roadgraph.replace(feature_type=lanes)
    )


def benchmark_of(scenarios: list[Scenario], batch_size: int = 2) -> Benchmark:
    return Benchmark(
        scenarios=scenarios,
        indices=range(len(scenarios)),
        rollouts=RolloutConfig(num_rollouts=2, batch_size=batch_size),
        seed=0,
        device=CPU,
    )


@pytest.fixture(scope="module")
def measured(scenarios: list[Scenario]) -> dict[str, Measured]:
    return Evaluator(benchmark_of(scenarios)).measure(POLICIES, show_progress=False)


def test_realism_is_that_of_each_scenario_by_itself(
    scenarios: list[Scenario], measured: dict[str, Measured]
):
    metric = SimAgentsMetric("2025")
    benchmark = benchmark_of(scenarios, batch_size=1)
    records = []
    for scenario, (_, driven) in zip(
        scenarios, drive(POLICIES["constant_velocity"], benchmark), strict=True
    ):
        prepared = metric.prepare(scenario)
        simulated = driven.simulated.map(lambda tensor: tensor[:, 0])
        joint = JointScenes.from_rollout(simulated, prepared.scene)
        records += metric(prepared, joint).scenario_records()

    scores = measured["constant_velocity"].sim_agents
    assert scores is not None
    for one, other in zip(scores.scenario_records(), records, strict=True):
        for name, value in other.items():
            expected = value if isinstance(value, str) else pytest.approx(value, abs=1e-6)
            assert one[name] == expected


def test_figures_name_the_version_and_the_rollouts(measured: dict[str, Measured]):
    figures = measured["log_replay"].figures()["sim_agents"]

    assert figures["version"] == "2025"
    assert figures["num_rollouts"] == 2
    assert figures["num_scenarios"] == len(figures["scenarios"]) == 3
    mean = sum(one["metametric"] for one in figures["scenarios"].values()) / 3
    assert figures["bucketed"]["realism_meta_metric"] == pytest.approx(mean)


def test_who_repeats_the_log_is_the_most_realistic(measured: dict[str, Measured]):
    realism = {
        name: one.figures()["sim_agents"]["bucketed"]["realism_meta_metric"]
        for name, one in measured.items()
    }
    assert realism["log_replay"] > realism["constant_velocity"] + 0.05


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_change_nothing(
    scenarios: list[Scenario], measured: dict[str, Measured], batch_size: int
):
    other = Evaluator(benchmark_of(scenarios, batch_size)).measure(POLICIES, show_progress=False)

    for name, expected in measured.items():
        assert flat(other[name].figures()) == pytest.approx(flat(expected.figures()), nan_ok=True)


def flat(figures: dict, path: str = "") -> dict[str, float]:
    numbers = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{path}/{name}")
        elif isinstance(value, int | float):
            numbers[f"{path}/{name}"] = value
    return numbers


def test_scenarios_that_cannot_be_scored_are_named_and_the_others_are_scored(
    scenarios: list[Scenario], measured: dict[str, Measured]
):
    bare = without_road_edges(scenarios[1])
    mixed = [scenarios[0], bare, *scenarios[1:], bare.replace(scenario_id=("another",))]
    result = Evaluator(benchmark_of(mixed, batch_size=3)).measure(POLICIES, show_progress=False)

    figures = result["log_replay"].figures()["sim_agents"]
    assert list(figures["unscored"]) == ["edgeless", "another"]
    assert "road edge" in figures["unscored"]["edgeless"]
    expected = measured["log_replay"].figures()["sim_agents"]
    assert flat(figures["scenarios"]) == pytest.approx(flat(expected["scenarios"]), abs=1e-6)


def test_nothing_may_be_scorable(scenarios: list[Scenario]):
    bare = [without_road_edges(scenarios[0])]
    result = Evaluator(benchmark_of(bare)).measure(POLICIES, show_progress=False)

    figures = result["log_replay"].figures()
    assert figures["sim_agents"]["num_scenarios"] == 0
    assert "bucketed" not in figures["sim_agents"]
    assert figures["all"]["ade"] == pytest.approx(0, abs=1e-3)


def test_kept_scenarios_give_the_same_again(scenarios: list[Scenario]):
    counted = Counted(scenarios)
    benchmark = replace(benchmark_of(scenarios), scenarios=counted)
    evaluator = Evaluator(benchmark, keep=True)

    first, again = (
        flat(evaluator.measure(POLICIES, show_progress=False)["log_replay"].figures())
        for _ in range(2)
    )

    assert first == pytest.approx(again, nan_ok=True)
    assert counted.reads == 3


class Counted:
    """Scenarios that count how often they are read."""

    def __init__(self, scenarios: list[Scenario]) -> None:
        self.scenarios, self.reads = scenarios, 0

    def __getitem__(self, index: int) -> Scenario:
        self.reads += 1
        return self.scenarios[index]

    def __len__(self) -> int:
        return len(self.scenarios)


def test_the_version_may_be_chosen(scenarios: list[Scenario]):
    evaluator = Evaluator(benchmark_of(scenarios[:1]), rules="2023")

    figures = evaluator.measure(POLICIES, show_progress=False)["log_replay"].figures()["sim_agents"]
    assert figures["version"] == "2023"
    assert "traffic_light_violation_likelihood" not in figures["mean"]


def test_nobody_is_seen_who_comes_later(scenarios: list[Scenario]):
    """Policies would see the future, and Waymo's metric does not know such agents."""
    benchmark = benchmark_of(scenarios)
    for batch, driven in drive(POLICIES["constant_velocity"], benchmark):
        present = batch.log.valid[..., CURRENT_STEP]
        assert not driven.simulated.valid[..., HISTORY_STEPS:][:, ~present].any()
    late = [one.log.valid[:, HISTORY_STEPS:].any(-1) & ~one.log.valid[:, 10] for one in scenarios]
    assert any(each.any() for each in late)


def test_draws_are_those_of_the_seed(scenarios: list[Scenario]):
    policies = {"random": make_policy("random_token", vocabulary=arc_vocabulary())}
    benchmark = benchmark_of(scenarios[:1])
    first, again, other = (
        Evaluator(replace(benchmark, seed=seed)).measure(policies, show_progress=False)["random"]
        for seed in (1, 1, 2)
    )

    assert flat(first.figures()) == pytest.approx(flat(again.figures()), nan_ok=True)
    assert flat(first.figures()) != pytest.approx(flat(other.figures()), nan_ok=True)


def test_the_metric_reads_the_numbers_of_the_file(scenarios: list[Scenario]):
    """And not those that the simulation rounded: the origin of this file is far away."""
    far = torch.tensor([20_000.0, -30_000.0, 0.0], dtype=torch.float64)
    scenario = scenarios[0].replace(origin=scenarios[0].origin + far)
    evaluator = Evaluator(benchmark_of([scenario]), keep=True)
    evaluator.measure({"log": POLICIES["log_replay"]}, show_progress=False)

    prepared = evaluator._load(0).prepared
    assert prepared is not None
    exact = (scenario.log.xy[prepared.scene.track[0], :, 0] + scenario.origin[0]).float()
    assert torch.equal(prepared.scene.logged.x[0], exact)
