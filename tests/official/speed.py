"""Times our Sim Agents metric beside Waymo's: `python -m tests.official.speed`.

The same scenario and rollouts, one after the other, in one process each and with two threads.
Waymo's function starts from parsed protos, and traces its graphs in the first call; ours starts
from a `Scenario` and tensors.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from catk_sim.metrics.sim_agents.__main__ import ScoreConfig, find_scenario, read_rollouts, score
from catk_sim.metrics.sim_agents.metric import SimAgentsMetric
from tests.official.conftest import PYTHON
from tests.official.drawing import Case, driven
from tests.official.whole_cases import generated_signal, real_scenario

NUM_THREADS = 2
NUM_ROLLOUTS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", action="store_true", help="WOMD's scenario, not a generated one")
    parser.add_argument("--official-calls", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    scenario = real_scenario() if arguments.real else generated_signal().scenario
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Case(scenario, driven(scenario, num_rollouts=NUM_ROLLOUTS)).write(folder)
        official = time_official(folder, arguments.official_calls)
        ours = time_ours(folder)
    best = min(official["wall_s"]), min(official["cpu_s"])
    write(f"{'':34}  wall s    CPU s   wall ratio  CPU ratio")
    for call, (wall, cpu) in enumerate(zip(official["wall_s"], official["cpu_s"], strict=True), 1):
        write(f"{f'official, call {call}':34}{wall:8.2f} {cpu:8.2f}")
    for what, (wall, cpu) in ours.items():
        ratios = f"{best[0] / wall:12.0f} {best[1] / cpu:10.0f}"
        write(f"{f'ours, {what}':34}{wall:8.4f} {cpu:8.4f} {ratios}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    write(f"peak memory (GiB): official {official['peak_memory_gib']:.2f}, ours {peak:.2f}")


def time_official(folder: Path, calls: int) -> dict:
    oracle = str(Path(__file__).parent / "oracle.py")
    options = ["--threads", str(NUM_THREADS), "--time", str(calls)]
    ran = subprocess.run(
        [str(PYTHON), oracle, str(folder), *options], capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


def time_ours(folder: Path) -> dict[str, tuple[float, float]]:
    """Returns wall and CPU seconds of each way to score a scenario."""
    config = ScoreConfig(
        scenarios=str(folder / "scenario.tfrecord"), rollouts=folder / "rollouts.npz"
    )
    metric = SimAgentsMetric(config.version)
    scenario = find_scenario(config.scenarios, None)
    prepared = metric.prepare(scenario)
    rollouts = read_rollouts(config.rollouts, prepared.scene, metric.config)
    return {
        "from files": timed(lambda: score(config)),
        "log features not cached": timed(lambda: metric(metric.prepare(scenario), rollouts)),
        "log features cached": timed(lambda: metric(prepared, rollouts)),
    }


def timed(work: Callable[[], object], repetitions: int = 9) -> tuple[float, float]:
    """Returns the medians of wall and CPU seconds, after a first call that does not count."""
    work()
    wall_seconds, cpu_seconds = [], []
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall_seconds.append(time.perf_counter() - wall)
        cpu_seconds.append(time.process_time() - cpu)
    return median(wall_seconds), median(cpu_seconds)


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
