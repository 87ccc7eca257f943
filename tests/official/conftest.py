"""Asks the official package, and tells how far we were from it at the most."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("CATK_OFFICIAL_PYTHON", ROOT / ".venv-official/bin/python"))
LARGEST_DIFFERENCES: dict[str, tuple[float, str]] = {}
"""By field: the largest difference seen, and in which case."""


@dataclass(frozen=True)
class OfficialAnswer:
    """What the official package said of a case.

    Attributes:
        metrics: `{version: {"scenario": ..., "bucketed": ...}}`, or `{"error": ...}`.
        features: By "log/NAME" or "simulated/NAME"; nothing after an error.
    """

    metrics: dict[str, Any]
    features: dict[str, np.ndarray]


class OfficialPackage:
    """The official package in a process of its own environment, kept for all cases."""

    def __init__(self, python: Path) -> None:
        command = [str(python), str(Path(__file__).parent / "oracle.py")]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, folder: Path) -> OfficialAnswer:
        """Evaluates the case that was written to a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        if said != str(folder):
            raise RuntimeError(f"the official package ended: run oracle.py {folder} to see why")
        metrics = json.loads((folder / "official.json").read_text())
        if "error" in metrics:
            return OfficialAnswer(metrics, {})
        with np.load(folder / "official.npz") as features:
            return OfficialAnswer(metrics, dict(features))

    def close(self) -> None:
        # Closes its input, which ends it, and reads what is left.
        self._process.communicate()


@pytest.fixture(scope="session")
def official() -> Iterator[OfficialPackage]:
    package = OfficialPackage(PYTHON)
    yield package
    package.close()


def note_difference(name: str, difference: float, case: str) -> None:
    """Remembers the largest difference of a field, for the end of the run."""
    if difference >= LARGEST_DIFFERENCES.get(name, (0.0, ""))[0]:
        LARGEST_DIFFERENCES[name] = (difference, case)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not LARGEST_DIFFERENCES:
        return
    terminalreporter.section("largest differences from the official package")
    for name, (difference, case) in LARGEST_DIFFERENCES.items():
        where = f"  ({case})" if difference else ""
        terminalreporter.write_line(f"{difference:9.2e}  {name}{where}")
