"""How the commands of this project end."""

import sys
from collections.abc import Callable

FAILED = 2
INTERRUPTED = 130

DEBUG = "With --debug an error shows its traceback."
"""What the help of a command adds."""


class UserError(RuntimeError):
    """What a user can mend: this machine lacks something, or a program of the user's fails."""


def run_command(
    command: Callable[[list[str]], int | None], arguments: list[str] | None = None
) -> int:
    """Runs a command and returns its exit code, 0 where the command returns none.

    What a user can mend is said in one line, and 2 is returned. With `--debug` anywhere among the
    arguments the error is raised instead, for the whole traceback. Ctrl-C returns 130.

    Args:
        command: What takes the arguments.
        arguments: Those of the command line, by default this process's.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return command([argument for argument in given if argument != "--debug"]) or 0
    except (ValueError, OSError, ImportError, FloatingPointError, UserError) as error:
        if "--debug" in given:
            raise
        sys.stderr.write(f"error: {error}  (--debug shows where)\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
