"""Command: makes the benchmark, `python -m catk_sim.datasets.synthetic.make_benchmark`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.synthetic.benchmark import benchmark_path
from catk_sim.datasets.synthetic.generator import KINDS, generate_scenario
from catk_sim.datasets.womd import write_scenarios

FIRST_SEED = 10**9
"""The benchmark has seeds that nobody trains on by accident."""

PER_KIND = 6


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Makes the benchmark that ships with the package."""

    output: Path = field(default_factory=benchmark_path)
    """The file to make; by default the one that ships."""


def make_benchmark(path: Path) -> None:
    """Writes the scenarios of the benchmark, kind by kind."""
    seeds = range(FIRST_SEED, FIRST_SEED + PER_KIND)
    write_scenarios(path, (generate_scenario(seed, kind) for kind in KINDS for seed in seeds))


def main(arguments: list[str]) -> None:
    """Runs the command."""
    config = tyro.cli(
        BenchmarkConfig,
        args=arguments,
        prog="python -m catk_sim.datasets.synthetic.make_benchmark",
        description=f"{BenchmarkConfig.__doc__} {DEBUG}",
    )
    make_benchmark(config.output)


if __name__ == "__main__":
    sys.exit(run_command(main))
