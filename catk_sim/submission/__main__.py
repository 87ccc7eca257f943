"""Command: scores a submission locally, as the Sim Agents Challenge does.

python -m catk_sim.submission SUBMISSION SCENARIOS --version 2025 --json
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.scenario_dataset import prepare_if_needed
from catk_sim.metrics.sim_agents import VERSIONS, SimAgentsMetric
from catk_sim.metrics.sim_agents.printing import print_json, print_table
from catk_sim.submission.scoring import score_submission


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scores a submission locally, as the Sim Agents Challenge does."""

    submission: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SUBMISSION")]
    """A tar.gz archive, a folder of shards, or a single shard."""

    scenarios: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SCENARIOS")]
    """Exactly the scenarios that it is for, with their logged futures: WOMD's folder
    scenario/validation, or anything else that trainers take as --data."""

    version: str = "2025"
    """Which year's metric."""

    json: bool = False
    """Prints one JSON object instead of a table."""

    cache: Path = Path("runs/cache")
    """Folder for parsed scenarios, so that a source is read once."""

    def __post_init__(self) -> None:
        # Scenario generation has submissions of another form.
        versions = [version for version, rules in VERSIONS.items() if not rules.whole_scene]
        if self.version not in versions:
            raise ValueError(f"--version: wanted one of {', '.join(versions)}, got {self.version}")


def main(arguments: list[str]) -> None:
    """Runs the command."""
    torch.set_num_threads(1)
    config = tyro.cli(
        ScoreConfig,
        args=arguments,
        prog="python -m catk_sim.submission",
        description=f"{ScoreConfig.__doc__} {DEBUG}",
    )
    record = score(config)
    if config.json:
        print_json(record)
    else:
        title = f"Sim Agents metric, version {record['version']}"
        print_table(
            record["bucketed"] | record["mean"], f"{title}: {record['num_scenarios']} scenarios"
        )


def score(config: ScoreConfig) -> dict[str, Any]:
    """Scores what a command line names."""
    # The challenge computes with the file's own coordinates, which float64 keeps.
    scenarios = prepare_if_needed(config.scenarios, config.cache, dtype=torch.float64)
    metrics = score_submission(config.submission, scenarios, SimAgentsMetric(config.version))
    return {
        "version": metrics.version,
        "num_scenarios": len(scenarios),
        "mean": metrics.aggregate(),
        "bucketed": metrics.buckets(),
    }


if __name__ == "__main__":
    sys.exit(run_command(main))
