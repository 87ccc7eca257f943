"""Asks Waymo's own package for the metrics of rollouts: `oracle.py [FOLDER ...]`.

Runs in the environment of the extra `official`, not in the project's, and imports nothing of the
project. A folder holds

- `scenario.tfrecord`, one `Scenario` proto, and
- `rollouts.npz`: `object_id [A]` and `x`, `y`, `z`, `heading` `[R, A, 80]` (m, rad). For scenario
  generation they have 91 steps, beside `length`, `width`, `height` `[A, 91]` (m) and
  `object_type [A]`.

Into it go `official.json`, the scenario's metrics for each configuration in the package, or what it
raised; and `official.npz`, the features of the log (`log/NAME`) and of the rollouts
(`simulated/NAME`). Without folders it reads them from standard input, one a line, and prints each
when it is done: TensorFlow takes long to start.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportMissingModuleSource=false
# What is imported here is no part of the project's environment.

import argparse
import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from waymo_open_dataset.protos import (
    scenario_pb2,
    sim_agents_metrics_pb2,
    sim_agents_submission_pb2,
)
from waymo_open_dataset.utils.sim_agents.submission_specs import ChallengeType
from waymo_open_dataset.wdl_limited.sim_agents_metrics import metric_features, metrics

CONFIGS = {
    ChallengeType.SIM_AGENTS: {
        "2025": "challenge_2025_sim_agents_config.textproto",
        "2024": "challenge_2024_config.textproto",
    },
    ChallengeType.SCENARIO_GEN: {
        "2025_scenario_gen": "challenge_2025_scenario_gen_config.textproto"
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", type=int, default=0, help="only time, this many times")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    for folder in arguments.folders or (Path(line.strip()) for line in sys.stdin):
        if arguments.time:
            time_metrics(folder, arguments.time)
        else:
            write_metrics(folder)
            print(folder, flush=True)  # noqa: T201


def write_metrics(folder: Path) -> None:
    scenario, rollouts, challenge = read_case(folder)
    answer: dict[str, Any] = {}
    try:
        log, simulated = metric_features.compute_scenario_rollouts_features(
            scenario, rollouts, challenge
        )
        for version, config in load_configs(challenge).items():
            result = metrics.compute_scenario_metrics_for_features_bundle(
                config, scenario.scenario_id, log, simulated
            )
            answer[version] = {
                "scenario": as_dict(result),
                "bucketed": as_dict(metrics.aggregate_metrics_to_buckets(config, result)),
            }
        np.savez_compressed(
            folder / "official.npz",
            allow_pickle=False,
            **as_arrays("log", log),
            **as_arrays("simulated", simulated),
        )
    except Exception as error:  # Whatever it raises is its answer.
        answer = {"error": f"{type(error).__name__}: {error}"}
    (folder / "official.json").write_text(json.dumps(answer, indent=1))


def time_metrics(folder: Path, repetitions: int) -> None:
    """Prints the seconds of the public function, and the memory of the process."""
    scenario, rollouts, challenge = read_case(folder)
    config = next(iter(load_configs(challenge).values()))
    wall_seconds, cpu_seconds = [], []
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), time.process_time()
        metrics.compute_scenario_metrics_for_bundle(config, scenario, rollouts, challenge)
        wall_seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timing = {"wall_s": wall_seconds, "cpu_s": cpu_seconds, "peak_memory_gib": kibibytes / 2**20}
    print(json.dumps(timing))  # noqa: T201


def read_case(folder: Path) -> tuple[Any, Any, ChallengeType]:
    scenario = scenario_pb2.Scenario()
    file = folder / "scenario.tfrecord"
    scenario.ParseFromString(next(iter(tf.data.TFRecordDataset([str(file)]).as_numpy_iterator())))
    with np.load(folder / "rollouts.npz") as arrays:
        saved = dict(arrays)
    if saved["x"].shape[-1] == 80:
        challenge, extent = ChallengeType.SIM_AGENTS, no_extent
    else:
        challenge, extent = ChallengeType.SCENARIO_GEN, extent_of(saved)
    rollouts = sim_agents_submission_pb2.ScenarioRollouts(scenario_id=scenario.scenario_id)
    for rollout in range(saved["x"].shape[0]):
        scene = rollouts.joint_scenes.add()
        for agent, agent_id in enumerate(saved["object_id"].tolist()):
            scene.simulated_trajectories.add(
                object_id=agent_id,
                center_x=saved["x"][rollout, agent],
                center_y=saved["y"][rollout, agent],
                center_z=saved["z"][rollout, agent],
                heading=saved["heading"][rollout, agent],
                **extent(agent),
            )
    return scenario, rollouts, challenge


def no_extent(agent: int) -> dict[str, Any]:
    return {}


def extent_of(saved: dict[str, np.ndarray]) -> Callable[[int], dict[str, Any]]:
    def extent(agent: int) -> dict[str, Any]:
        sizes = {name: saved[name][agent] for name in ("length", "width", "height")}
        num_steps = saved["x"].shape[-1]
        return {
            **sizes,
            "valid": [True] * num_steps,
            "object_type": int(saved["object_type"][agent]),
        }

    return extent


def load_configs(challenge: ChallengeType) -> dict[str, Any]:
    folder = Path(metrics.__file__).parent
    return {
        version: text_format.Parse(
            (folder / name).read_text(), sim_agents_metrics_pb2.SimAgentMetricsConfig()
        )
        for version, name in CONFIGS[challenge].items()
    }


def as_dict(message: Any) -> dict[str, Any]:
    return {
        field.name: getattr(message, field.name)
        for field in message.DESCRIPTOR.fields
        if message.HasField(field.name)
    }


def as_arrays(prefix: str, features: Any) -> dict[str, np.ndarray]:
    return {
        f"{prefix}/{field.name}": np.asarray(getattr(features, field.name))
        for field in dataclasses.fields(features)
    }


if __name__ == "__main__":
    main()
