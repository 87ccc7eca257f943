"""What a run ends with: a table, plots, a film and a page of the policy before and after."""

from collections.abc import Mapping

import torch
from rich.console import Console

from catk_sim.datatypes import Scenario
from catk_sim.metrics.summary import summarize_rollouts
from catk_sim.report import write_report
from catk_sim.rollout import Policy, rollout
from catk_sim.visualization import write_rollout_grid
from catk_sim.visualization.figures import plot_learning_curves, plot_rollouts_over_log
from policies.checkpoint import load_checkpoint
from trainers.benchmark import Evaluator, Measured
from trainers.distributed import is_main
from trainers.evaluate import (
    describe,
    held_out_benchmark,
    print_table,
    result_record,
    sampled,
    write_json,
)
from trainers.evaluation_report import Recorder, ReportSize, evaluation_report
from trainers.run import Run
from trainers.run_log import read_log

STAGES = {"BC": "bc", "CAT-K": "catk"}
"""The policies of a run: their names in reports, and their folders."""

CURVES = ("loss", "accuracy", "closed_loop_ade")
"""What is drawn over the steps of training."""

SHOWN_ROLLOUTS = 4
"""Rollouts of each policy in the plot and in the film."""

PLAYED_SCENES = 8
"""Scenarios that can be played in the HTML report."""

PICTURES = ("learning_curves.png", "rollouts.png", "rollouts.mp4")


def compare(run: Run) -> None:
    """Measures both policies of a run, prints the table and writes everything to its folder."""
    benchmark = held_out_benchmark(run)
    policies = {
        name: sampled(load_checkpoint(run.folder / stage).to(run.device), benchmark.rollouts)
        for name, stage in STAGES.items()
    }
    rules = benchmark.rollouts.metric_version
    recorder = Recorder(ReportSize(max_scenes=PLAYED_SCENES), policies)
    results = Evaluator(benchmark, rules=rules).measure(recorder.watched, watch=recorder)
    if not is_main():
        return
    figures = {name: measured.figures() for name, measured in results.items()}
    data = run.config.validation_data or run.config.data
    write_json(run.folder / "metrics.json", result_record(data, benchmark, figures))
    plot_learning_curves(
        {"run": read_log(run.folder / "log.jsonl")},
        run.folder / "learning_curves.png",
        metrics=CURVES,
    )
    position = _most_telling(results)
    _show(run, policies, benchmark.simulated([run.held_out.scenarios[benchmark.indices[position]]]))
    report = evaluation_report(results, recorder, data, benchmark)
    write_report(report, run.folder / "report.html")
    print_table(figures, describe(data, benchmark, len(run.held_out.indices)))
    for name in ("metrics.json", "report.html", *PICTURES):
        Console(emoji=False).print(f"{run.folder / name}", highlight=False)


def _most_telling(results: Mapping[str, Measured]) -> int:
    """Picks the scenario in which the two policies differ by the median of all differences.

    Not the best one: a reader should see what is usual.
    """
    before, after = (
        measured.summary.displacement[:, 0] / measured.summary.num_logged[:, 0]
        for measured in results.values()
    )
    gain = (before - after).nan_to_num()
    return int(gain.argsort()[len(gain) // 2])


def _show(run: Run, policies: Mapping[str, Policy], scenario: Scenario) -> None:
    world = scenario.select(0).to("cpu")
    episodes, captions = {}, {}
    for name, policy in policies.items():
        generator = torch.Generator(run.device).manual_seed(run.config.seed)
        driven = rollout(policy, scenario, num_rollouts=SHOWN_ROLLOUTS, generator=generator)
        episodes[name] = driven.map(lambda tensor: tensor[:, 0].cpu())
        controlled = episodes[name].select(0).final.controlled
        summary = summarize_rollouts(episodes[name].simulated, world, controlled)
        captions[name] = f"ADE {summary.table()['all']['ade']:.2f} m"
    plot_rollouts_over_log(world, episodes, run.folder / "rollouts.png", captions=captions)
    write_rollout_grid(world, episodes, run.folder / "rollouts.mp4")
