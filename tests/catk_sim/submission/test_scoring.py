import json
from pathlib import Path
from typing import Any

import pytest
import torch

from catk_sim.command import FAILED, run_command
from catk_sim.datasets import DataError, ScenarioDataset, prepare_if_needed
from catk_sim.datasets.batching import collate
from catk_sim.metrics.sim_agents import SimAgentsMetric
from catk_sim.rollout import rollout
from catk_sim.submission import (
    NUM_ROLLOUTS,
    simulated_rollouts,
    submitted_scenarios,
    write_submission,
)
from catk_sim.submission.__main__ import main
from catk_sim.submission.scoring import score_submission
from policies.registry import make_policy
from tests.catk_sim.submission.made import METADATA
from tests.shared import shared_path

DATA = "synthetic:2"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(cache: Path) -> ScenarioDataset:
    return prepare_if_needed(DATA, cache, dtype=torch.float64)


@pytest.fixture(scope="module")
def path(dataset: ScenarioDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission, whose scenarios are in another order than the data's."""
    path = tmp_path_factory.mktemp("submission") / "s.tar.gz"
    batch = collate([dataset[1], dataset[0]]).to(torch.float32)
    driven = rollout(make_policy("constant_velocity"), batch, num_rollouts=NUM_ROLLOUTS)
    rollouts = simulated_rollouts(driven.simulated, batch)
    write_submission(path, METADATA, rollouts, num_scenarios=2)
    return path


def test_rollouts_meet_their_scenarios(path: Path, dataset: ScenarioDataset) -> None:
    found = [
        (scenario.scenario_id[0], rollouts.scenario_id)
        for scenario, rollouts in submitted_scenarios(path, dataset)
    ]
    first, second = dataset.scenario_ids
    assert found == [(second, second), (first, first)]


def test_a_scenario_without_rollouts_is_told(path: Path, cache: Path) -> None:
    larger = prepare_if_needed("synthetic:3", cache)
    with pytest.raises(DataError, match="1 of 3 scenarios of the data are missing: "):
        list(submitted_scenarios(path, larger))


def test_rollouts_without_a_scenario_are_told(path: Path, cache: Path) -> None:
    smaller = prepare_if_needed("synthetic:1", cache)
    with pytest.raises(DataError, match="is not in the data"):
        list(submitted_scenarios(path, smaller))


def test_a_submission_is_scored_scenario_by_scenario(path: Path, dataset: ScenarioDataset) -> None:
    metrics = score_submission(path, dataset, SimAgentsMetric("2025"))
    assert metrics.scenario_id == tuple(reversed(dataset.scenario_ids))
    assert metrics.metametric.shape == (2,)
    assert ((metrics.metametric > 0.2) & (metrics.metametric < 1)).all()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run_command(main, [*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_scores_a_submission(
    path: Path, dataset: ScenarioDataset, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run(capsys, path, DATA, "--cache", cache, "--version", "2024")
    metrics = score_submission(path, dataset, SimAgentsMetric("2024"))
    assert record == {
        "version": "2024",
        "num_scenarios": 2,
        "mean": metrics.aggregate(),
        "bucketed": metrics.buckets(),
    }


def test_the_command_prints_a_table(
    path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [str(path), DATA, "--cache", str(cache)]) == 0
    printed = capsys.readouterr().out
    assert "version 2025: 2 scenarios" in printed
    names = [line.split()[1] for line in printed.splitlines() if line.startswith("│")]
    assert len(set(names)) == len(names)
    assert {"realism_meta_metric", "min_ade", "linear_speed_likelihood"} <= set(names)
    assert not {"metametric", "min_average_displacement_error"} & set(names)


def test_the_command_says_in_one_line_what_a_user_can_mend(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, ["no/such.tar.gz", DATA, "--cache", str(cache)]) == FAILED
    assert capsys.readouterr().err.startswith("error: no/such.tar.gz: no such file  (")


def test_an_unknown_version_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(path), DATA, "--version", "2025_scenario_gen"])
    assert "wanted one of" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["2025", "2024", "2023"])
def test_waymos_own_submission_has_waymos_score(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_path("data/womd_scenario_proto")
    golden = shared_path("golden/wosac/637f20cafde22ff8_t_test_submission_metrics.json")
    expected = json.loads(golden.read_text())[{"2023": "2023_pkg161"}.get(version, version)]
    record = run(
        capsys,
        folder / "test_submission.binproto",
        folder / "motion_data_one_scenario.tfrecord",
        *("--cache", tmp_path, "--version", version),
    )
    for name, value in expected["bucketed"].items():
        assert record["bucketed"][name] == pytest.approx(value, abs=1e-5), name
