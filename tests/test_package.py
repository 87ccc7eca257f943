"""What is installed has all that it needs."""

import subprocess
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("catk_sim", "policies", "trainers")


def test_the_wheel_has_every_file_of_the_packages() -> None:
    git = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if git.returncode:
        pytest.skip("needs a git checkout")
    wanted = {name for name in git.stdout.splitlines() if (ROOT / name).exists()}
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert packed == wanted
    # Data without which commands fail, if git should ever overlook it.
    assert {Path(name).suffix for name in packed} >= {".py", ".c", ".h", ".js", ".css", ".html"}
    assert "catk_sim/tokens/data/synthetic.safetensors" in packed
    assert "catk_sim/datasets/synthetic/data/benchmark.tfrecord.gz" in packed
