"""What is installed has all that it needs."""

import subprocess
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("catk_sim", "policies", "trainers")
DATA = (
    "catk_sim/datasets/synthetic/data/benchmark.tfrecord.gz",
    "catk_sim/tokens/data/synthetic.safetensors",
    "policies/pretrained/smart_nano/config.json",
    "policies/pretrained/smart_nano/model.safetensors",
)
"""Without these commands fail."""


@pytest.fixture(scope="module")
def packed() -> set[str]:
    files = WheelBuilder(str(ROOT)).recurse_included_files()
    return {file.distribution_path for file in files}


def test_the_wheel_has_every_file_of_the_packages(packed: set[str]) -> None:
    git = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if git.returncode:
        pytest.skip("needs a git checkout")
    assert packed == {name for name in git.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_has_what_git_may_overlook(packed: set[str]) -> None:
    assert {Path(name).suffix for name in packed} >= {".py", ".c", ".h", ".js", ".css", ".html"}
    assert packed >= set(DATA)
