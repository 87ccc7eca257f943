"""The HTML report of planners: `report.html`."""

import math
from collections.abc import Mapping

from catk_sim.metrics.planning import summarize
from catk_sim.metrics.records import number
from catk_sim.report import Figure, Measure, Report
from trainers.evaluation_report import Recorder
from trainers.planning.evaluator import Measured

MEASURES = {
    "score": Measure(title="score", better="up"),
    "at_fault_collision": Measure(title="at-fault collision", better="down"),
    "collision": Measure(title="any collision", better="down"),
    "offroad": Measure(title="off-road", better="down"),
    "red_light_violation": Measure(title="red light", better="down"),
    "driving_direction_score": Measure(title="direction", better="up"),
    "progress_score": Measure(title="progress", better="up"),
    "time_to_collision_score": Measure(title="time to collision", better="up"),
    "comfort_score": Measure(title="comfort", better="up"),
    "ade": Measure(title="ADE", unit="m", better="down"),
    "realism": Measure(title="realism", better="up"),
    "failed": Measure(title="failed", better="down"),
}
"""What the tables of a report have."""


def planner_report(results: Mapping[str, Measured], recorder: Recorder, caption: str) -> Report:
    """Makes the report of an evaluation of planners.

    Args:
        results: What was measured of each.
        recorder: What it looked like.
        caption: How it was measured, and how to read it.
    """
    per_scenario: dict[str, dict[str, dict[str, float]]] = {}
    for name, measured in results.items():
        for record in measured.records:
            figures = {key: number(record, key) for key in MEASURES}
            per_scenario.setdefault(str(record["scenario_id"]), {})[name] = figures
    return Report(
        title=f"{', '.join(results)}: {len(per_scenario)} scenarios",
        facts={},
        measures=MEASURES,
        totals={name: _totals(measured) for name, measured in results.items()},
        per_scenario=per_scenario,
        scenes=recorder.scenes(per_scenario),
        remarks=[caption, *_failures(results)],
    )


def _totals(measured: Measured) -> dict[str, Figure]:
    estimates = summarize(measured.records)
    return {
        name: Figure(mean=one.mean, low=one.low, high=one.high)
        for name, one in estimates.items()
        if name in MEASURES and not math.isnan(one.mean)
    }


def _failures(results: Mapping[str, Measured]) -> list[str]:
    return [
        f"{name} failed in {len(measured.failures)} rollouts, such as of "
        f"{measured.failures[0].scenario_id}: {measured.failures[0].reason}"
        for name, measured in results.items()
        if measured.failures
    ]
