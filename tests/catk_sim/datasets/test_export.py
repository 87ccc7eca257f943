"""Scenarios of every source as WOMD files, and what the commands say of them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from catk_sim.command import FAILED, run_command
from catk_sim.datasets import open_scenarios
from catk_sim.datasets.export import main
from catk_sim.datasets.prepare import SKIPPED
from catk_sim.datasets.prepare import main as prepare
from catk_sim.datasets.schema import leaves
from catk_sim.datasets.womd import parse_scenario, scenario_to_proto, serialize_scenario
from catk_sim.datatypes import Scenario
from tests.catk_sim.datasets.files import write_gpudrive, write_tfrecord
from tests.catk_sim.datasets.foreign import nuscenes_log, womd_log, write_argoverse, write_pickle
from tests.catk_sim.datasets.protos import scenario_pb2
from tests.shared import shared_path


def womd(folder: Path) -> Path:
    return write_tfrecord(folder / "a.tfrecord", ["a"])


def gpudrive(folder: Path) -> Path:
    return write_gpudrive(folder / "a.json", "a")


def scenarionet_of_womd(folder: Path) -> Path:
    return write_pickle(folder / "sd_a.pkl", womd_log())


def scenarionet_of_nuscenes(folder: Path) -> Path:
    return write_pickle(folder / "sd_b.pkl.xz", nuscenes_log())


def argoverse(folder: Path) -> Path:
    pytest.importorskip("pyarrow")
    return write_argoverse(folder)


def synthetic(folder: Path) -> str:
    return "synthetic:1"


Make = Callable[[Path], Path | str]
SOURCES: list[Make] = [
    womd,
    gpudrive,
    scenarionet_of_womd,
    scenarionet_of_nuscenes,
    argoverse,
    synthetic,
]
FLOAT32 = ("log.heading", "log.velocity", "log_size", "agents.size")
"""What the proto holds in float32."""


def assert_same(one: Scenario, other: Scenario) -> None:
    """Checks that two scenarios are the same, save what the proto rounds and cannot tell."""
    assert one.scenario_id == other.scenario_id
    for leaf in leaves(Scenario):
        a, b = leaf.of(one), leaf.of(other)
        assert (leaf.name, a.dtype, a.shape) == (leaf.name, b.dtype, b.shape)
        if leaf.name in FLOAT32:
            a, b = a.float(), b.float()
        assert torch.equal(a, b), leaf.name


def run(*arguments: Any) -> int:
    return run_command(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("name", ["all.tfrecord", "all.tfrecord.gz"])
def test_what_is_exported_is_read_again(make: Make, name: str, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    assert run(source, tmp_path / name) == 0
    before, after = list(open_scenarios(source)), list(open_scenarios(tmp_path / name))
    assert len(before) == len(after) > 0
    for one, other in zip(before, after, strict=True):
        assert_same(one, other)
    # What is rounded is rounded once.
    assert run(tmp_path / name, tmp_path / "again.tfrecord") == 0
    for one, other in zip(after, open_scenarios(tmp_path / "again.tfrecord"), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("make", SOURCES)
def test_waymos_own_classes_read_what_is_written(make: Make, tmp_path: Path) -> None:
    read = scenario_pb2().Scenario.FromString
    for scenario in open_scenarios(make(tmp_path)):
        proto = read(serialize_scenario(scenario))
        assert proto == scenario_to_proto(scenario)


def test_writing_does_not_need_waymos_protos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "waymo_open_dataset.protos.scenario_pb2", None)
    assert run(gpudrive(tmp_path), tmp_path / "a.tfrecord") == 0


def test_export_says_what_the_sources_do_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(scenarionet_of_nuscenes(tmp_path), tmp_path / "all.tfrecord") == 0
    out = capsys.readouterr().out
    assert "all.tfrecord: 2 scenarios" in out
    assert "not told by the source of 2: agents to predict (chosen" in out


def test_prepare_says_what_the_sources_do_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pickle(tmp_path / "logs" / "sd_a.pkl", womd_log())
    write_pickle(tmp_path / "logs" / "sd_b.pkl", nuscenes_log())
    assert prepare([str(tmp_path / "logs"), str(tmp_path / "cache"), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'cache'}: 3 scenarios")
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "not told by the source of 2",
        "not told by the source of 1",
    ]
    assert "GUARDRAIL" in lines[2]


def test_prepare_says_nothing_of_complete_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare([str(womd(tmp_path)), str(tmp_path / "cache"), "--workers", "1"]) == 0
    assert "not told" not in capsys.readouterr().out


@pytest.mark.parametrize("make", [scenarionet_of_womd, scenarionet_of_nuscenes, argoverse])
def test_caches_hold_what_was_read(make: Make, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    assert prepare([str(source), str(tmp_path / "cache"), "--workers", "1"]) == 0
    before, after = list(open_scenarios(source)), list(open_scenarios(tmp_path / "cache"))
    assert [one.lacks for one in before] == [one.lacks for one in after]
    for one, other in zip(before, after, strict=True):
        assert_same(one, other)


def test_what_cannot_be_read_stops_the_export_or_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenarionet_of_womd(tmp_path / "in")
    (tmp_path / "in" / "sd_b.pkl").write_bytes(b"nonsense")
    destination = tmp_path / "all.tfrecord"
    assert run(tmp_path / "in", destination) == FAILED
    assert "sd_b.pkl: not a pickle" in capsys.readouterr().err
    assert not destination.exists()
    assert run(tmp_path / "in", destination, "--on-error", "skip") == SKIPPED
    assert "skipped: " in capsys.readouterr().err
    assert len(list(open_scenarios(destination))) == 1


def test_a_source_that_is_not_there_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "absent", tmp_path / "all.tfrecord") == FAILED
    assert "no such file or folder" in capsys.readouterr().err


def test_a_folder_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("synthetic:1", tmp_path) == FAILED
    assert f"wanted a file to write, got a folder: {tmp_path}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "womd_scenario_proto",
        "womd_scenarionet_pkl/*7b24d74b506c94ce*",
        "nuscenes_scenarionet_pkl/*1100*",
        "av2_motion_forecasting/**/*",
    ],
)
def test_real_scenarios_become_protos_that_load_equal(name: str) -> None:
    for scenario in open_scenarios(shared_path("data") / name):
        assert_same(parse_scenario(serialize_scenario(scenario)), scenario)
