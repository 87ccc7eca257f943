"""Command: makes the benchmark, `python -m catk_sim.datasets.synthetic.make_benchmark`."""

from pathlib import Path

import tyro

from catk_sim.datasets.synthetic.benchmark import benchmark_path
from catk_sim.datasets.synthetic.generator import KINDS, generate_scenario
from catk_sim.datasets.womd import write_scenarios

FIRST_SEED = 10**9
"""The benchmark has seeds that nobody trains on by accident."""

PER_KIND = 6


def make_benchmark(path: Path) -> None:
    """Writes the scenarios of the benchmark, kind by kind."""
    seeds = range(FIRST_SEED, FIRST_SEED + PER_KIND)
    write_scenarios(path, (generate_scenario(seed, kind) for kind in KINDS for seed in seeds))


def main(output: Path | None = None) -> None:
    """Makes the benchmark that ships with the package.

    Args:
        output: Where to write it; by default where it ships from.
    """
    make_benchmark(output or benchmark_path())


if __name__ == "__main__":
    tyro.cli(main)
