import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from catk_sim.command import FAILED, run_command
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datatypes import AgentType, Scenario
from catk_sim.metrics.sim_agents.__main__ import main
from catk_sim.metrics.sim_agents.scene import EvaluatedScene
from tests.catk_sim.metrics.sim_agents.goldens import (
    GENERATED,
    SCENARIO_ID,
    SCENARIOS,
    golden_json,
)
from tests.shared import shared_path

SYNTHETIC = "synthetic:1:5"


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    scene = EvaluatedScene.from_scenario(next(iter(open_scenarios(SYNTHETIC))))
    now = scene.logged.slice(10, 11)
    held = {
        name: getattr(now, name).expand(3, -1, 80).numpy() for name in ("x", "y", "z", "heading")
    }
    path = tmp_path / "rollouts.npz"
    np.savez(path, object_id=scene.object_id.numpy(), **held)
    return path


@pytest.mark.parametrize(
    ("case", "version"),
    [
        ("e_accelerate", "2024"),
        pytest.param(GENERATED, "2025_scenario_gen", marks=pytest.mark.slow),
    ],
)
def test_json_has_the_form_and_the_numbers_of_the_goldens(
    case: str, version: str, capsys: pytest.CaptureFixture[str]
):
    rollouts = shared_path(f"golden/wosac/{SCENARIO_ID}_{case}_sim.npz")

    arguments = [str(shared_path(SCENARIOS)), str(rollouts), "--version", version, "--json"]
    assert run_command(main, arguments) == 0

    record = json.loads(capsys.readouterr().out)
    golden = golden_json(f"{SCENARIO_ID}_{case}_metrics")[version]
    assert set(record) == {"version", "scenario", "bucketed"}
    assert record["version"] == version
    for part in ("scenario", "bucketed"):
        assert set(record[part]) == set(golden[part])
        for name, value in golden[part].items():
            expected = value if isinstance(value, str) else pytest.approx(value, abs=1e-5)
            assert record[part][name] == expected


def test_without_json_it_prints_a_table(rollouts: Path, capsys: pytest.CaptureFixture[str]):
    assert run_command(main, [SYNTHETIC, str(rollouts)]) == 0

    shown = capsys.readouterr().out
    assert "version 2025" in shown
    assert "realism_meta_metric" in shown
    assert "linear_speed_likelihood" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"object_id": None}, "lacks object_id"),
        ({"x": "nan"}, "x is not finite"),
        ({"x": "short"}, "80 steps"),
        ({"object_id": "other"}, "lack the sim agents"),
    ],
)
def test_wrong_rollouts_are_refused_in_one_line(
    rollouts: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str | None], message: str
):
    with np.load(rollouts) as file:
        arrays = dict(file)
    for name, what in change.items():
        if what is None:
            del arrays[name]
        elif what == "nan":
            arrays[name][0, 0, 0] = np.nan
        elif what == "short":
            arrays[name] = arrays[name][..., :79]
        else:
            arrays[name] = arrays[name] + 1
    np.savez(rollouts, **arrays)

    assert run_command(main, [SYNTHETIC, str(rollouts), "--json"]) == FAILED

    shown = capsys.readouterr()
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not shown.out


def test_wrong_files_and_names_are_refused(
    rollouts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    junk = tmp_path / "junk.npz"
    junk.write_bytes(b"not a zip")
    damaged = tmp_path / "damaged.npz"
    content = bytearray(rollouts.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    for arguments, message in (
        ([SYNTHETIC, str(junk)], "not a readable npz"),
        ([SYNTHETIC, str(damaged)], "damaged.npz is not a readable npz file: Bad CRC-32"),
        ([SYNTHETIC, str(tmp_path / "absent.npz")], "absent.npz"),
        (["synthetic:2:5", str(rollouts)], "several scenarios"),
        ([SYNTHETIC, str(rollouts), "--scenario-id", "nobody"], "no scenario nobody"),
        ([SYNTHETIC, str(rollouts), "--version", "2022"], "2022"),
        ([SYNTHETIC, str(rollouts), "--max-memory", "0"], "max_memory"),
    ):
        assert run_command(main, arguments) == FAILED
        assert message in capsys.readouterr().err


def test_a_scenario_is_found_by_its_id(rollouts: Path, capsys: pytest.CaptureFixture[str]):
    first = next(iter(open_scenarios(SYNTHETIC))).scenario_id[0]

    assert (
        run_command(main, ["synthetic:2:5", str(rollouts), "--scenario-id", first, "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["scenario"]["scenario_id"] == first


def test_what_is_not_defined_is_null_in_json(
    rollouts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def without_vehicles(source: str) -> Iterator[Scenario]:
        for scenario in open_scenarios(source):
            everybody = torch.full_like(scenario.agents.type, AgentType.PEDESTRIAN)
            yield scenario.replace(agents=scenario.agents.replace(type=everybody))

    monkeypatch.setattr("catk_sim.metrics.sim_agents.__main__.open_scenarios", without_vehicles)

    assert run_command(main, [SYNTHETIC, str(rollouts), "--json"]) == 0
    record = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert record["scenario"]["time_to_collision_likelihood"] is None
    assert record["bucketed"]["realism_meta_metric"] is None
    assert record["scenario"]["linear_speed_likelihood"] > 0
