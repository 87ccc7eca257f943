"""Reference material that lies beside the project, for those who have it."""

import os
from pathlib import Path

import pytest


def shared_path(name: str) -> Path:
    """Finds a file or folder of the reference material, or skips the test."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("CATK_SHARED", beside)) / name
    if not path.exists():
        pytest.skip(f"needs {name} of the reference material ($CATK_SHARED), which is absent")
    return path
