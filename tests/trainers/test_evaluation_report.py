import math

import pytest
import torch

from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.report import Report
from catk_sim.report.page import render_report
from policies.registry import make_policy
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from policies.smart.policy import SMARTPolicy
from tests.scenes import arc_vocabulary
from trainers.benchmark import Benchmark, Evaluator, Measured
from trainers.configs import RolloutConfig
from trainers.evaluation_report import TOP, Recorder, ReportSize, evaluation_report

SIZE = ReportSize(max_scenes=2, max_rollouts=2)


@pytest.fixture(scope="module")
def scenarios() -> list[Scenario]:
    return [generate_scenario(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def generated(scenarios: list[Scenario]) -> Benchmark:
    return Benchmark(
        scenarios=scenarios,
        indices=range(len(scenarios)),
        rollouts=RolloutConfig(num_rollouts=3, batch_size=2),
        seed=0,
        device=torch.device("cpu"),
    )


def smart() -> SMARTPolicy:
    torch.manual_seed(0)
    vocabulary = arc_vocabulary()
    return SMARTPolicy(SMART(SMARTConfig.preset("micro"), vocabulary).eval(), vocabulary)


@pytest.fixture(scope="module")
def measured(generated: Benchmark) -> tuple[dict[str, Measured], Recorder]:
    recorder = Recorder(SIZE, {"smart": smart(), "still": make_policy("constant_velocity")})
    results = Evaluator(generated).measure(recorder.watched, show_progress=False, watch=recorder)
    return results, recorder


@pytest.fixture(scope="module")
def report(measured: tuple[dict[str, Measured], Recorder], generated: Benchmark) -> Report:
    return evaluation_report(*measured, "synthetic", generated)


def test_every_scenario_has_figures_of_every_policy(
    report: Report, scenarios: list[Scenario]
) -> None:
    assert list(report.per_scenario) == [scenario.scenario_id[0] for scenario in scenarios]
    for policies in report.per_scenario.values():
        assert list(policies) == ["smart", "still"]
        assert set(policies["smart"]) == set(report.measures)


def test_totals_are_the_figures_that_evaluation_prints(
    report: Report, measured: tuple[dict[str, Measured], Recorder]
) -> None:
    for name, one in measured[0].items():
        figures, totals = one.figures(), report.totals[name]
        buckets = figures["sim_agents"]["bucketed"]
        expected = {
            "ade": figures["all"]["ade"],
            "min_ade": figures["all"]["min_ade"],
            "collision_rate": figures["all"]["collision_rate"],
            "offroad_rate": figures["vehicle"]["offroad_rate"],
            "realism": buckets["realism_meta_metric"],
            "kinematic": buckets["kinematic_metrics"],
            "interactive": buckets["interactive_metrics"],
            "map_based": buckets["map_based_metrics"],
        }
        for key, value in expected.items():
            assert math.isclose(totals[key].mean, value, rel_tol=1e-5), key
            assert totals[key].low is not None
            assert totals[key].low <= value + 1e-6
            assert totals[key].high >= value - 1e-6


def test_a_total_lies_between_the_scenarios(report: Report) -> None:
    for name, totals in report.totals.items():
        values = [policies[name]["realism"] for policies in report.per_scenario.values()]
        assert min(values) <= totals["realism"].mean <= max(values)


def test_as_many_scenes_and_rollouts_can_be_played_as_are_wanted(
    report: Report, scenarios: list[Scenario]
) -> None:
    assert [scene.scenario.scenario_id for scene in report.scenes] == [
        scenario.scenario_id for scenario in scenarios[:2]
    ]
    for scene in report.scenes:
        for drive in scene.drives.values():
            assert drive.simulated.valid.shape[0] == SIZE.max_rollouts


def test_a_played_rollout_is_one_that_was_measured(
    report: Report, generated: Benchmark, scenarios: list[Scenario]
) -> None:
    from trainers.benchmark import drive

    batch, driven = next(drive(smart(), generated))

    for row, scene in enumerate(report.scenes):
        shown = scene.drives["smart"]
        assert torch.equal(shown.simulated.xy, driven.simulated.xy[:2, row])
        assert scene.scenario.scenario_id == (batch.scenario_id[row],)


def test_a_token_policy_tells_what_it_found_likely_and_others_do_not(report: Report) -> None:
    drives = report.scenes[0].drives
    choices = drives["smart"].choices

    assert drives["still"].choices is None
    assert choices is not None
    num_agents = report.scenes[0].scenario.log.num_agents
    assert choices.probability.shape == (2, 16, num_agents, TOP)
    assert torch.all(choices.probability.diff(dim=-1) <= 0)
    assert torch.all(choices.probability.sum(dim=-1) <= 1 + 1e-5)


def test_what_a_token_leads_to_is_told_in_metres_ahead(report: Report) -> None:
    choices = report.scenes[0].drives["smart"].choices
    assert choices is not None
    vocabulary = arc_vocabulary()
    kinds = vocabulary.type_index(report.scenes[0].scenario.agents.type)
    for agent in (0, 3):
        token = choices.label[1, 4, agent, 2]
        expected = vocabulary.poses[kinds[agent], token, -1, :2]
        assert torch.equal(choices.offset[1, 4, agent, 2], expected)


def test_watching_changes_nothing(
    generated: Benchmark, measured: tuple[dict[str, Measured], Recorder]
) -> None:
    alone = Evaluator(generated).measure({"smart": smart()}, show_progress=False)["smart"]

    watched = measured[0]["smart"]
    assert torch.equal(alone.summary.displacement, watched.summary.displacement)


def test_histograms_have_the_log_and_every_policy(report: Report) -> None:
    titles = [histogram.title for histogram in report.histograms]

    assert "speed (m/s)" in titles
    assert all(
        list(histogram.counts) == ["log", "smart", "still"] for histogram in report.histograms
    )


def test_the_page_of_a_report_can_be_made(report: Report) -> None:
    assert "smart, still: 3 scenarios" in render_report(report)


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="got 3 and 0"):
        ReportSize(max_scenes=3, max_rollouts=0)
