"""The command line that all trainers share."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import tyro

from trainers.distributed import leave

Config = TypeVar("Config")


def parse_preset(
    presets: Mapping[str, Callable[[], Config]], default: str, args: list[str]
) -> Config:
    """Reads a preset's name and any changes to its fields.

    `debug --catk.num-steps 10` is the preset `debug` with one field changed. Without a name the
    default preset is meant.
    """
    named = args and not args[0].startswith("-")
    asks = args and args[0] in ("-h", "--help")
    options = {name: (inspect.getdoc(preset) or "", preset()) for name, preset in presets.items()}
    return tyro.extras.overridable_config_cli(
        options, args=args if named or asks else [default, *args]
    )


def run_command(command: Callable[[list[str]], None]) -> None:
    """Runs a command on the arguments of this process, and ends the process with its exit code.

    What a user can mend is said in one line: exit code 2. With `--debug` anywhere among the
    arguments the whole traceback is shown instead. Ctrl-C ends with 130.
    """
    args = [arg for arg in sys.argv[1:] if arg != "--debug"]
    try:
        command(args)
        leave()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(_say(f"error: {error}  (--debug shows where)", 2))
    except KeyboardInterrupt:
        sys.exit(_say("interrupted", 130))


def _say(text: str, code: int) -> int:
    sys.stderr.write(text + "\n")
    return code
