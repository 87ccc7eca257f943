"""Command: scores rollouts of a scenario as the Sim Agents Challenge does.

python -m catk_sim.metrics.sim_agents SCENARIOS ROLLOUTS.npz --version 2025 --json
"""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import Scenario
from catk_sim.metrics.box_trajectory import BoxTrajectory
from catk_sim.metrics.sim_agents.config import VERSIONS, SimAgentsConfig, sim_agents_config
from catk_sim.metrics.sim_agents.joint_scenes import JointScenes, generated_scenes
from catk_sim.metrics.sim_agents.metric import DEFAULT_MAX_MEMORY, SimAgentsMetric
from catk_sim.metrics.sim_agents.printing import print_json, print_table
from catk_sim.metrics.sim_agents.scene import EvaluatedScene

STATES = ("x", "y", "z", "heading")
SIZES = ("length", "width", "height")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scores rollouts of one scenario with the Sim Agents realism metric."""

    scenarios: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SCENARIOS")]
    """The logged scenario: a WOMD TFRecord, or anything else that trainers take as --data."""

    rollouts: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ROLLOUTS.npz")]
    """The rollouts: object_id [A], and x, y, z, heading [R, A, 80] in metres and radians, in the
    scenario's own coordinates. For 2025_scenario_gen they have 91 steps, and length, width and
    height [A, 91] are there too. Types are those of the log."""

    version: str = "2025"
    """Which year's metric."""

    scenario_id: str | None = None
    """Which scenario was simulated. Needed if SCENARIOS holds several."""

    json: bool = False
    """Prints one JSON object instead of a table. What is not defined is null in it."""

    max_memory: int = DEFAULT_MAX_MEMORY >> 20
    """How many MiB the work may take, roughly."""


def main(arguments: list[str]) -> None:
    """Runs the command."""
    torch.set_num_threads(1)
    config = tyro.cli(
        ScoreConfig,
        args=arguments,
        prog="python -m catk_sim.metrics.sim_agents",
        description=f"{ScoreConfig.__doc__} Versions: {', '.join(VERSIONS)}. {DEBUG}",
    )
    record = score(config)
    if config.json:
        print_json(record)
    else:
        scores = record["bucketed"] | record["scenario"]
        scenario_id = scores.pop("scenario_id")
        title = f"Sim Agents metric, version {record['version']}"
        print_table(scores, f"{title}: scenario {scenario_id}")


def score(config: ScoreConfig) -> dict:
    """Reads and scores what a command line names."""
    rules = sim_agents_config(config.version)
    scenario = find_scenario(config.scenarios, config.scenario_id)
    metric = SimAgentsMetric(rules, max_memory=config.max_memory << 20)
    prepared = metric.prepare(scenario)
    metrics = metric(prepared, read_rollouts(config.rollouts, prepared.scene, rules))
    return {
        "version": metrics.version,
        "scenario": metrics.scenario_records()[0],
        "bucketed": metrics.buckets(),
    }


def find_scenario(source: str, scenario_id: str | None) -> Scenario:
    """Reads the one scenario of a source, or the one with an id.

    Raises:
        ValueError: The source has several scenarios and none is named, or not the one that is.
    """
    found = None
    for scenario in open_scenarios(source):
        if scenario_id is None and found is not None:
            raise ValueError(
                f"{source} has several scenarios: say with --scenario-id which is meant"
            )
        if scenario_id == scenario.scenario_id[0]:
            return scenario
        if scenario_id is None:
            found = scenario
    if found is None:
        raise ValueError(f"{source} has no scenario {scenario_id or ''}".rstrip())
    return found


def read_rollouts(
    path: Path, scene: EvaluatedScene, rules: SimAgentsConfig
) -> JointScenes | BoxTrajectory:
    """Reads and checks the rollouts of a scenario.

    Raises:
        ValueError: The file is no npz, lacks an array, or does not fit the scenario.
    """
    names = ("object_id", *STATES, *(SIZES if rules.whole_scene else ()))
    if not zipfile.is_zipfile(path):
        path.stat()
        raise ValueError(f"{path} is not a readable npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise ValueError(f"{path} lacks {', '.join(missing)}: it has {', '.join(file)}")
            arrays = {name: file[name] for name in names}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is not a readable npz file: {error}") from error
    object_id, states = arrays["object_id"], {name: arrays[name] for name in STATES}
    if rules.whole_scene:
        return generated_scenes(object_id, states, {name: arrays[name] for name in SIZES}, scene)
    return JointScenes.from_arrays(object_id, **states, scene=scene)


if __name__ == "__main__":
    sys.exit(run_command(main))
