"""What is raised when a data file does not hold what it should."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeAlias


class DataError(ValueError):
    """A data file does not hold what its format promises.

    The message is one line: where, what was wanted, what came. Nothing else is raised for a bad
    file, save `FileNotFoundError` for a missing one.

    Args:
        problem: What was wanted and what came.
        source: Where: the file, and the record's number where the file holds many.
    """

    def __init__(self, problem: str, source: str = "") -> None:
        super().__init__(f"{source}: {problem}" if source else problem)


OnError: TypeAlias = Callable[[DataError], object]
"""What a reader does about a bad record. If it returns, the reader goes on with what it can."""


def fail(error: DataError) -> NoReturn:
    """Raises the error: what readers do unless they are told otherwise."""
    raise error


def require_file(path: Path) -> None:
    """Checks that a path is a file, not absent and not a folder."""
    if path.is_dir():
        raise DataError("wanted a file, got a folder", str(path))
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
