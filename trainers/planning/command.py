"""The command: evaluates planners, prints what came of it and writes it down."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from catk_sim.metrics.planning import worst_scenarios, write_records
from catk_sim.metrics.records import number
from catk_sim.planning.drivers import EgoDriver
from catk_sim.planning.simulation import TrafficGroup
from catk_sim.report import write_report
from trainers.benchmark import Benchmark
from trainers.distributed import is_main
from trainers.evaluation_report import Recorder, ReportSize
from trainers.planning.config import PlannerEvaluationConfig
from trainers.planning.evaluator import Measured, PlannerEvaluator
from trainers.planning.films import Film
from trainers.planning.report import planner_report

ROWS = {
    "score": "score",
    "at-fault collision": "at_fault_collision",
    "any collision": "collision",
    "off-road": "offroad",
    "red light": "red_light_violation",
    "direction": "driving_direction_score",
    "progress": "progress_score",
    "time to collision": "time_to_collision_score",
    "speed limit": "speed_limit_score",
    "comfort": "comfort_score",
    "ADE (m)": "ade",
    "minADE (m)": "min_ade",
    "FDE (m)": "fde",
    "realism": "realism",
    "failed": "failed",
}
"""What the printed table shows: the heading, and the measure."""

MISHAPS = {
    "failed": "failed",
    "at-fault collision": "at_fault_collision",
    "off-road": "offroad",
    "red light": "red_light_violation",
}
"""What is told of the worst scenarios where it happened, at least in one rollout."""

LISTED = 5
"""Scenarios that are listed of each planner, the worst ones."""


def evaluate_planners(
    config: PlannerEvaluationConfig,
    benchmark: Benchmark,
    drivers: Mapping[str, EgoDriver],
    traffic: Sequence[TrafficGroup],
) -> dict[str, Any]:
    """Drives and measures, prints the table, and writes scenarios and films to the output.

    Args:
        config: What was asked for.
        benchmark: What is driven.
        drivers: Who drives the ego, one after the other. See `load_drivers`.
        traffic: Who drives the others. See `parse_traffic`.

    Returns:
        What `metrics.json` is to hold.
    """
    recorder = Recorder(ReportSize(max_scenes=config.report_scenes))
    evaluator = PlannerEvaluator(
        benchmark,
        traffic,
        only=config.scenario,
        num_films=config.render,
        watch=recorder,
    )
    results = evaluator.measure(drivers)
    first = next(iter(results.values()))
    figures = {
        name: {"spec": spec, **measured.figures(None if measured is first else first)}
        for spec, (name, measured) in zip(config.planner, results.items(), strict=True)
    }
    for name, measured in results.items():
        write_films(measured, evaluator.films.of(name), name, config)
    if is_main():
        write_scenarios(results, config)
        # Narrow terminals may not cut numbers off.
        needed = 24 + sum(max(32, len(name) + 3) for name in results)
        console = Console(width=max(Console().width, needed), emoji=False)
        print_table(console, figures, describe(config, first))
        for spec, (name, measured) in zip(config.planner, results.items(), strict=True):
            print_worst(console, name, spec, measured, config)
        _say(console, f"Every scenario: {scenarios_path(config)}")
        report = planner_report(results, recorder, describe(config, first))
        _say(console, f"To look at: {write_report(report, config.output / 'report.html')}")
    return {
        "data": config.data,
        "scenarios": len(first.records),
        "traffic": config.traffic,
        "tracker": config.tracker,
        "time_limit": config.time_limit,
        "rollouts": {
            one.name: getattr(config.rollouts, one.name) for one in fields(config.rollouts)
        },
        "seed": config.seed,
        "planners": figures,
    }


def scenarios_path(config: PlannerEvaluationConfig) -> Path:
    """Tells where the table of scenarios is written."""
    return config.output / f"scenarios.{config.table}"


def write_scenarios(results: Mapping[str, Measured], config: PlannerEvaluationConfig) -> None:
    """Writes the table of scenarios, all planners one after the other."""
    records = [record for measured in results.values() for record in measured.records]
    config.output.mkdir(parents=True, exist_ok=True)
    write_records(records, scenarios_path(config))


def write_films(
    measured: Measured, films: Mapping[str, Film], planner: str, config: PlannerEvaluationConfig
) -> None:
    """Writes the films of a planner's worst scenarios: each process those of its own share."""
    for record in worst_scenarios(measured.records, count=config.render):
        scenario_id = str(record["scenario_id"])
        if scenario_id in films:
            films[scenario_id].write(film_path(config.output, planner, scenario_id))


def film_path(output: Path, planner: str, scenario_id: str) -> Path:
    """Tells where a film is written."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in planner)
    return output / "films" / f"{name}-{scenario_id}.mp4"


def describe(config: PlannerEvaluationConfig, measured: Measured) -> str:
    """Tells in a few lines what was measured on, and how to read it."""
    rollouts = config.rollouts
    return (
        f"{len(measured.records)} scenarios of {config.data}, {rollouts.num_rollouts} rollout(s) "
        f"of each, seed {config.seed}. Traffic: {config.traffic}. Tracker: {config.tracker}. In "
        "brackets: 95 % of the bootstrap over scenarios. Score, direction, progress, time to "
        "collision, speed limit and comfort are nuPlan's scores: 1 is best. Collisions, off-road, "
        "red light and failed are shares of scenarios. Realism: Sim Agents metric of the ego "
        f"alone, version {rollouts.metric_version}."
    )


def print_table(console: Console, figures: Mapping[str, Any], caption: str) -> None:
    """Prints a column for each planner."""
    table = Table()
    table.add_column("", no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for heading, measure in ROWS.items():
        cells = [_cell(one["measures"], measure) for one in figures.values()]
        table.add_row(heading, *cells)
    for duration in ("mean", "p95", "max"):
        times = [one["plan_seconds"].get(duration) for one in figures.values()]
        cells = ["-" if time is None else f"{1000 * time:.3g}" for time in times]
        table.add_row(f"plan, {duration} (ms)", *cells)
    console.print(table)
    _say(console, caption)


def print_worst(
    console: Console, name: str, spec: str, measured: Measured, config: PlannerEvaluationConfig
) -> None:
    """Lists failures, and the worst scenarios with a command that films one."""
    failures, hidden = measured.failures[:LISTED], len(measured.failures) - LISTED
    for failure in failures:
        when = "before the first step" if failure.step is None else f"at step {failure.step}"
        _say(console, f"{name} failed in {failure.scenario_id} {when}: {failure.reason}")
    if hidden > 0:
        _say(console, f"{name} failed {hidden} times more: see metrics.json")
    worst = worst_scenarios(measured.records, count=LISTED)
    _say(console, f"{name}: worst scenarios")
    for record in worst:
        happened = [name for name, measure in MISHAPS.items() if number(record, measure) > 0]
        happened += ["no progress"] if number(record, "making_progress_score") < 1 else []
        happened += ["wrong way"] if number(record, "driving_direction_score") < 1 else []
        score = number(record, "score")
        _say(console, f"  {score:.2f}  {record['scenario_id']}  {', '.join(happened)}")
    if worst:
        _say(console, f"  {render_command(config, spec, str(worst[0]['scenario_id']))}")


def render_command(config: PlannerEvaluationConfig, spec: str, scenario_id: str) -> str:
    """Makes the command that drives one scenario again, and films it."""
    changes = {
        "--planner": spec,
        "--traffic": config.traffic,
        "--data": config.data,
        "--scenario": scenario_id,
        "--render": "1",
        "--output": str(config.output / "scenarios" / scenario_id),
    }
    default = PlannerEvaluationConfig(planner=("any",))
    for settings, usual in ((config, default), (config.rollouts, default.rollouts)):
        for one in fields(settings):
            flag, value = "--" + one.name.replace("_", "-"), getattr(settings, one.name)
            known = flag in changes or one.name in ("rollouts", "table")
            if not known and value != getattr(usual, one.name):
                changes[flag] = str(value)
    parts = [part for change in changes.items() for part in change]
    return shlex.join(["python", "-m", "trainers.evaluate", *parts])


def _cell(measures: Mapping[str, Mapping[str, float]], measure: str) -> str:
    estimate = measures.get(measure)
    if estimate is None or not estimate["count"]:
        return "-"
    text = f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
    # Over fewer scenarios than the others, where it is not always defined.
    fewer = estimate["count"] < measures["failed"]["count"]
    return f"{text} of {estimate['count']}" if fewer else text


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
