"""Command: writes scenarios as a WOMD file, `python -m catk_sim.datasets.export SRC DST.tfrecord`.

Whatever reads the scenario release of WOMD then reads scenarios of any source.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from catk_sim.command import DEBUG, run_command
from catk_sim.datasets.errors import DataError, fail
from catk_sim.datasets.prepare import SKIPPED, report_lacks
from catk_sim.datasets.sources import ACCEPTED, Source, open_scenarios
from catk_sim.datasets.womd import write_scenarios
from catk_sim.datatypes import Scenario


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Writes scenarios as a WOMD file: `Scenario` protos in a TFRecord.

    The protos have no place for what a source does not tell. It is printed.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SRC")]
    """What to write."""

    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DST")]
    """The file to make or to replace. It is compressed if its name ends in ".gz"."""

    on_error: Literal["raise", "skip"] = "raise"
    """Whether what cannot be read stops everything, or is left out and listed."""


def main(arguments: list[str]) -> int:
    """Runs the command. Returns its exit code."""
    description = f"Writes scenarios as a WOMD file. SRC is {ACCEPTED}."
    config = tyro.cli(
        ExportConfig,
        args=arguments,
        prog="python -m catk_sim.datasets.export",
        description=f"{description} {DEBUG}",
    )
    skipped: list[DataError] = []
    lacks: Counter[str] = Counter()
    on_error = skipped.append if config.on_error == "skip" else fail
    source = open_scenarios(config.source, on_error=on_error)
    write_scenarios(config.destination, _counted(source, lacks))
    sys.stdout.write(f"{config.destination}: {lacks.total()} scenarios\n")
    report_lacks(lacks)
    for error in skipped:
        sys.stderr.write(f"skipped: {error}\n")
    return SKIPPED if skipped else 0


def _counted(source: Source, lacks: Counter[str]) -> Iterator[Scenario]:
    for scenario in tqdm(source, total=source.num_scenarios, unit=" scenarios", disable=None):
        lacks.update(scenario.lacks)
        yield scenario


if __name__ == "__main__":
    sys.exit(run_command(main))
