"""The command line that all trainers share."""

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import tyro

from catk_sim.command import DEBUG, run_command
from trainers.distributed import leave

Config = TypeVar("Config")


def parse_preset(
    presets: Mapping[str, Callable[[], Config]],
    default: str,
    args: list[str],
    *,
    prog: str | None = None,
) -> Config:
    """Reads a preset's name and any changes to its fields.

    `debug --catk.num-steps 10` is the preset `debug` with one field changed. Without a name the
    default preset is meant. `prog` is how the command is called.

    Raises:
        ValueError: There is no such preset.
    """
    named = args and not args[0].startswith("-")
    if named and args[0] not in presets:
        raise ValueError(f"wanted a preset, one of {', '.join(presets)}; got {args[0]!r}")
    asks = args and args[0] in ("-h", "--help")
    options = {name: (inspect.getdoc(preset) or "", preset()) for name, preset in presets.items()}
    return tyro.extras.overridable_config_cli(
        options,
        args=args if named or asks else [default, *args],
        prog=prog,
        description=f"Each preset has fields to change; without one, {default} is run. {DEBUG}",
    )


def run_trainer(trainer: Callable[[list[str]], None]) -> None:
    """Runs a trainer on the arguments of this process, and ends the process with its exit code.

    See `catk_sim.command.run_command`.
    """
    ask_for_large_pages()

    def command(arguments: list[str]) -> None:
        trainer(arguments)
        leave()

    sys.exit(run_command(command))


def ask_for_large_pages() -> None:
    """Has torch ask Linux for pages of 2 MB, unless the environment says otherwise.

    A step takes and gives back a gigabyte, and to hand that out in pages of 4 kB takes up to a
    third of its time. To be called before the first tensor is made: torch looks once.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
