import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainers import bc, catk, cli, evaluate
from trainers.presets import BC_PRESETS, CATK_PRESETS


@pytest.mark.parametrize("name", CATK_PRESETS)
def test_a_preset_is_taken_whole(name: str) -> None:
    assert cli.parse_preset(CATK_PRESETS, "demo", [name]) == CATK_PRESETS[name]()


def test_without_a_name_the_default_preset_is_meant() -> None:
    assert cli.parse_preset(CATK_PRESETS, "demo", []) == CATK_PRESETS["demo"]()
    assert cli.parse_preset(CATK_PRESETS, "demo", ["--k", "7"]).k == 7


def test_a_flag_changes_one_field() -> None:
    config = cli.parse_preset(
        CATK_PRESETS, "demo", ["debug", "--bc.optimizer.learning-rate", "0.1"]
    )
    assert config.bc.optimizer.learning_rate == 0.1
    assert config.catk == CATK_PRESETS["debug"]().catk


def test_behavior_cloning_is_the_first_stage_of_a_preset() -> None:
    assert BC_PRESETS["debug"]().bc == CATK_PRESETS["debug"]().bc


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["debug", "--k", "0"], "k must be at least 1, got 0"),
        (["debug", "--nonsense", "1"], "--nonsense"),
        (["debug", "--bc.num-steps", "0"], "num_steps must be at least 1, got 0"),
    ],
)
def test_what_cannot_run_is_refused_at_once(
    args: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse_preset(CATK_PRESETS, "demo", args)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_what_is_no_preset_is_said_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"one of demo, .*debug.*; got 'no-such-preset'"):
        cli.parse_preset(CATK_PRESETS, "demo", ["no-such-preset", "--data", "synthetic:2"])


def test_what_a_user_can_mend_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["catk", "debug", "--data", "no/such/place"])
    with pytest.raises(SystemExit) as ended:
        cli.run_trainer(catk.main)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "no/such/place" in message
    assert message.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["catk", "debug", "--data", "no/such/place", "--debug"])
    with pytest.raises((ValueError, OSError)):
        cli.run_trainer(catk.main)


TINY_BC = [
    "debug",
    *("--data", "synthetic:3", "--bc.num-steps", "2", "--bc.batch-size", "1"),
    *("--model.hidden-dim", "16", "--model.num-agent-layers", "1"),
    *("--model.map-agent-radius", "8", "--rollouts.num-rollouts", "1"),
]
TINY = [*TINY_BC, "--catk.num-steps", "2", "--catk.batch-size", "1"]


@pytest.mark.slow
def test_the_main_job_leaves_everything_behind(tmp_path: Path) -> None:
    folder, cache = tmp_path / "run", ("--cache", str(tmp_path / "cache"))
    catk.main([*TINY, "--output", str(folder), *cache])
    for name in (
        "metrics.json",
        "learning_curves.png",
        "rollouts.png",
        "rollouts.mp4",
        "log.jsonl",
    ):
        assert (folder / name).stat().st_size > 0
    figures = json.loads((folder / "metrics.json").read_text())["policies"]
    assert figures["BC"]["all"]["ade"] > 0
    assert figures["CAT-K"]["all"]["ade"] > 0
    with pytest.raises(ValueError, match="has a run in it"):
        catk.main([*TINY, "--output", str(folder), *cache])

    # What was saved is what was measured.
    again = tmp_path / "again"
    evaluate.main(
        [
            *(str(folder / "bc"), "constant_velocity"),
            *("--data", "synthetic:2:50", "--rollouts.num-rollouts", "1"),
            *("--output", str(again), *cache),
        ]
    )
    evaluated = json.loads((again / "metrics.json").read_text())["policies"]
    assert set(evaluated) == {str(folder / "bc"), "constant_velocity"}


@pytest.mark.slow
def test_behavior_cloning_alone_saves_a_policy(tmp_path: Path) -> None:
    bc.main([*TINY_BC, "--output", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")])
    assert (tmp_path / "run/bc/model.safetensors").exists()


def test_a_run_that_is_not_there_cannot_be_resumed(tmp_path: Path) -> None:
    args = [*TINY_BC, "--output", str(tmp_path / "typo"), "--cache", str(tmp_path), "--resume"]
    with pytest.raises(ValueError, match="there is no run to resume in"):
        bc.main(args)


def test_more_tokens_than_there_are_are_refused_before_any_training(tmp_path: Path) -> None:
    args = [*TINY, "--k", "5000", "--output", str(tmp_path / "run"), "--cache", str(tmp_path)]
    with pytest.raises(ValueError, match="k must be at most 2048"):
        catk.main(args)


def test_what_was_measured_on_nothing_is_null(tmp_path: Path) -> None:
    evaluate.write_json(tmp_path / "metrics.json", {"a": {"b": float("nan")}, "c": 1.0})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": {"b": None}, "c": 1.0}


def test_a_seed_between_colons_is_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"policy": {"sim_agents": {"unscored": {}}}}

    evaluate.print_table(figures, "100 scenarios of synthetic:100:1")

    assert "synthetic:100:1" in capsys.readouterr().out


PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MAPPED = Path("/proc/self/smaps_rollup")


@pytest.mark.skipif(
    not MAPPED.exists() or not PAGES.exists() or "[madvise]" not in PAGES.read_text(),
    reason="the system gives large pages to all who need memory, or to nobody",
)
@pytest.mark.parametrize(("wish", "least"), [("", 60), ("0", 0)])
def test_trainers_get_their_memory_in_large_pages(wish: str, least: int) -> None:
    """Torch reads the wish when the first tensor is made: none must be on import."""
    script = f"""
import torch
from trainers import bc, catk, cli, evaluate, ppo, submit
def measure(arguments):
    kept = torch.ones(2**24)
    print(next(line for line in open({str(MAPPED)!r}) if "AnonHuge" in line))
cli.run_trainer(measure)
"""
    environment = {name: value for name, value in os.environ.items() if "THP" not in name}
    if wish:
        environment["THP_MEM_ALLOC_ENABLE"] = wish
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    megabytes = int(done.stdout.split()[1]) // 1024
    assert least <= megabytes <= least + 8
