"""Our Sim Agents metric beside Waymo's own, live: `make test-official`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.official.cases import CASES
from tests.official.conftest import PYTHON, OfficialPackage, note_difference
from tests.official.ours import our_features, our_metrics

if not PYTHON.exists():
    pytest.skip(f"needs Waymo's package in {PYTHON}: make test-official", allow_module_level=True)

METRIC_TOLERANCE = 1e-5
FEATURE_TOLERANCE = 1e-4
CORNER_TOLERANCE = 1e-3
"""Of distances. Kilometres from the origin the corner of a box now and then rounds to another
float32, 0.5 mm off, since two libraries' sines differ in the last bit."""
MAX_CORNERS = 0.002
"""The fraction of distances that may be that far off."""
KINEMATICS = ("linear_speed", "linear_acceleration", "angular_speed", "angular_acceleration")

Arrays = dict[str, np.ndarray]


def differences(ours: Any, official: Any) -> np.ndarray:
    """Returns the absolute ones, relative to hundreds beyond; infinity between NaN and a number."""
    first, second = np.asarray(ours, np.float64), np.asarray(official, np.float64)
    assert first.shape == second.shape
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    apart = np.where(same, 0.0, np.abs(first - second) / np.maximum(1, np.abs(second) / 100))
    return np.where(np.isnan(apart), np.inf, apart)


def wrong_metrics(version: str, ours: dict, official: dict, case: str) -> dict[str, float]:
    """Returns the fields that differ, and by how much."""
    assert ours.keys() == official.keys()
    found = {name: float(differences(ours[name], official[name])) for name in official}
    for name, value in found.items():
        note_difference(f"{version}/{name}", value, case)
    return {f"{version}/{name}": value for name, value in found.items() if value > METRIC_TOLERANCE}


def wrong_features(ours: Arrays, official: Arrays, case: str) -> dict[str, float]:
    """Likewise, for features."""
    wrong = {}
    for name, values in ours.items():
        apart = differences(values, official[name])
        if name.removeprefix("log/") in KINEMATICS:
            # Elsewhere they are what the file has in its invalid states: not always zeros.
            apart = apart[neighbors_valid(official["log/valid"])]
        note_difference(name, float(apart.max(initial=0)), case)
        if not is_close(name, apart):
            wrong[name] = float(apart.max())
    return wrong


def neighbors_valid(valid: np.ndarray) -> np.ndarray:
    """Tells at which steps the log has the agent as well as one step before and after."""
    padded = np.pad(valid, ((0, 0), (0, 0), (1, 1)))
    return valid & padded[..., :-2] & padded[..., 2:]


def is_close(name: str, apart: np.ndarray) -> bool:
    far = apart > FEATURE_TOLERANCE
    if "distance_to" not in name:
        return not far.any()
    return far.mean() <= MAX_CORNERS and apart.max(initial=0) <= CORNER_TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_metrics_and_features_are_the_official_ones(
    official: OfficialPackage, tmp_path: Path, case: str
) -> None:
    CASES[case]().write(tmp_path)
    answer = official.ask(tmp_path)
    if "error" in answer.metrics:
        with pytest.raises(ValueError, match=r"."):
            our_metrics(tmp_path, "2025")
        return
    wrong = {}
    for version, metrics in answer.metrics.items():
        ours = our_metrics(tmp_path, version)
        assert ours["scenario"].pop("scenario_id") == metrics["scenario"].pop("scenario_id")
        for part in ("scenario", "bucketed"):
            wrong |= wrong_metrics(version, ours[part], metrics[part], case)
    features = our_features(tmp_path, next(iter(answer.metrics)))
    assert wrong | wrong_features(features, answer.features, case) == {}


def test_the_command_prints_the_official_metrics(official: OfficialPackage, tmp_path: Path) -> None:
    CASES["ordinary"]().write(tmp_path)
    command = [sys.executable, "-m", "catk_sim.metrics.sim_agents"]
    files = [str(tmp_path / name) for name in ("scenario.tfrecord", "rollouts.npz")]
    ran = subprocess.run(
        [*command, *files, "--version", "2024", "--json"], capture_output=True, check=True
    )
    printed = json.loads(ran.stdout)
    assert printed["version"] == "2024"
    expected = official.ask(tmp_path).metrics["2024"]
    for part in ("scenario", "bucketed"):
        assert printed[part] == pytest.approx(expected[part], abs=METRIC_TOLERANCE)
