"""Command: writes scenarios, `python -m catk_sim.datasets.synthetic OUT.tfrecord --count N`."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.synthetic.generator import KINDS, generate_scenario
from catk_sim.datasets.womd import write_scenarios
from catk_sim.datatypes import Scenario


@dataclass(frozen=True, kw_only=True)
class WriteConfig:
    """Writes generated scenarios as a WOMD file: `Scenario` protos in a TFRecord."""

    output: tyro.conf.Positional[Path]
    """The file to make. It is compressed if the name ends in ".gz"."""

    count: int = 100
    """How many scenarios."""

    seed: int = 0
    """The first scenario's seed; the others follow."""

    kind: str | None = None
    """One of the kinds of scene; by default each seed chooses."""

    def __post_init__(self) -> None:
        """Refuses what cannot be generated."""
        if self.count < 1:
            raise ValueError(f"count: wanted at least 1, got {self.count}")
        if self.seed < 0:
            raise ValueError(f"seed: wanted at least 0, got {self.seed}")
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"kind: wanted one of {', '.join(KINDS)}, got {self.kind!r}")

    def scenarios(self) -> Iterator[Scenario]:
        """Generates the scenarios with a progress bar."""
        for seed in tqdm(range(self.seed, self.seed + self.count), unit="scenario"):
            yield generate_scenario(seed, self.kind)


def main(arguments: list[str]) -> None:
    """Runs the command."""
    config = tyro.cli(
        WriteConfig,
        args=arguments,
        prog="python -m catk_sim.datasets.synthetic",
        description=f"{WriteConfig.__doc__} {DEBUG}",
    )
    write_scenarios(config.output, config.scenarios())


if __name__ == "__main__":
    sys.exit(run_command(main))
