"""Files that appear whole or not at all, and JSON in such files."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catk_sim.datasets.errors import DataError

UNFINISHED_SUFFIX = ".unfinished"


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to, whose file takes its real name when it is finished and on disk.

    Raises:
        FileNotFoundError: There is no such folder.
        IsADirectoryError: The path is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"wanted a file to write, got a folder: {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED_SUFFIX}")
    try:
        yield unfinished
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Writes a JSON file whole."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: If it is none.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"wanted JSON: {error}", str(path)) from error
