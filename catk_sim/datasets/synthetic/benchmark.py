"""The benchmark: some generated scenarios that ship as a file.

numpy may change the random numbers that follow from a seed, so numbers that are to be compared
between machines come from this file and not from the generator.
"""

from pathlib import Path

from catk_sim.datasets.womd import read_scenarios
from catk_sim.datatypes import Scenario


def benchmark_path() -> Path:
    """Returns the WOMD file of the benchmark: gzip-compressed `Scenario` protos in a TFRecord."""
    return Path(__file__).parent / "data" / "benchmark.tfrecord.gz"


def load_benchmark() -> list[Scenario]:
    """Reads the scenarios of the benchmark, in float64 and without padding."""
    return list(read_scenarios(benchmark_path()))
