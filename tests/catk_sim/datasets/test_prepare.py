import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from catk_sim.command import FAILED, run_command
from catk_sim.datasets import DataError, open_scenarios, prepare_if_needed
from catk_sim.datasets.cache import ScenarioCache
from catk_sim.datasets.conversion import Conversion, Team, convert
from catk_sim.datasets.part_conversion import Task, convert_parts
from catk_sim.datasets.prepare import SKIPPED, main
from catk_sim.datasets.sources import Source
from tests.catk_sim.datasets.arbitrary import assert_equal
from tests.catk_sim.datasets.files import write_gpudrive, write_tfrecord

# Converts in forked processes and kills each a little later than the one before, until one is
# done. Prints how many were killed. In a process of its own, because pytest has threads.
KILL_OFTEN = """
import os, signal, sys, time
from catk_sim.datasets import open_scenarios
from catk_sim.datasets.conversion import convert

def start(source, folder):
    child = os.fork()
    if not child:
        convert(open_scenarios(source), folder, scenarios_per_shard=2)
        os._exit(0)
    return child

source, folder, whole = sys.argv[1:]
began = time.perf_counter()
os.waitpid(start(source, whole), 0)
seconds = time.perf_counter() - began
for killed in range(1000):
    child = start(source, folder)
    time.sleep(seconds * (killed % 30) / 25)
    os.kill(child, signal.SIGKILL)
    if os.WIFEXITED(os.waitpid(child, 0)[1]):
        break
print(killed)
"""


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def ids_of(folder: Path) -> list[str]:
    return [entry.scenario_id for entry in ScenarioCache(folder).index.entries]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three files of 7, 1 and 5 scenarios."""
    for number, count in enumerate([7, 1, 5]):
        names = [f"{number}-{record}" for record in range(count)]
        write_tfrecord(tmp_path / "source" / f"{number}.tfrecord", names)
    return tmp_path / "source"


def damage(path: Path) -> None:
    """Flips a bit of a record that is neither the first nor the last."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def prepare(*arguments: Any) -> int:
    return run_command(main, [str(argument) for argument in arguments])


def test_a_prepared_cache_holds_every_scenario_in_the_order_of_the_files(
    source: Path, tmp_path: Path
):
    made = convert(open_scenarios(source), tmp_path / "cache", scenarios_per_shard=3)
    assert made == Conversion(folder=tmp_path / "cache", num_scenarios=13, skipped=[])
    cache = ScenarioCache(made.folder)
    assert len(cache) == 13
    for index, scenario in enumerate(open_scenarios(source)):
        assert_equal(cache.read(index), scenario)
    assert sorted(files_of(made.folder)) == [
        "index.json",
        "job.json",
        "part-00000-0000.safetensors",
        "part-00000-0001.safetensors",
        "part-00000-0002.safetensors",
        "part-00001-0000.safetensors",
        "part-00002-0000.safetensors",
        "part-00002-0001.safetensors",
        "skipped.json",
    ]


def test_a_cache_can_be_prepared_from_a_cache(source: Path, tmp_path: Path):
    once = convert(open_scenarios(source), tmp_path / "once", scenarios_per_shard=2).folder
    again = convert(open_scenarios(once), tmp_path / "again").folder
    assert ids_of(again) == ids_of(once)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(source: Path, tmp_path: Path):
    folder, whole = tmp_path / "cache", tmp_path / "whole"
    command = [sys.executable, "-c", KILL_OFTEN, source, folder, whole]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) >= 3
    assert files_of(folder) == files_of(whole)


@pytest.mark.slow
def test_a_killed_command_takes_its_workers_along_and_can_be_started_again(tmp_path: Path):
    for number in range(4):
        names = [f"{number}-{record}" for record in range(20)]
        write_tfrecord(tmp_path / "source" / f"{number}.tfrecord", names)
    folder = tmp_path / "cache"
    command = [sys.executable, "-m", "catk_sim.datasets.prepare", tmp_path / "source", folder]
    command += ["--workers", "2", "--scenarios-per-shard", "1"]
    process = subprocess.Popen(command, start_new_session=True)
    while not list(folder.glob("*.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ends(process.pid)
    source = open_scenarios(tmp_path / "source")
    convert(source, folder, workers=2, scenarios_per_shard=1)
    convert(source, tmp_path / "whole", workers=1, scenarios_per_shard=1)
    assert files_of(folder) == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_bad_record_stops_all_workers(source: Path, tmp_path: Path):
    damage(source / "2.tfrecord")
    with pytest.raises(DataError, match=r"2\.tfrecord, record 2"):
        convert(open_scenarios(source), tmp_path / "cache", workers=2)
    assert not (tmp_path / "cache" / "index.json").exists()


def ends(group: int) -> bool:
    """Waits until no process of a group is left."""
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def convert_together(source: Path, folder: Path, **options: Any) -> list[Conversion | Exception]:
    """Converts in three threads, which stand for processes. Returns what each made or raised."""
    # Python's parser, by which code is digested, now and then fails in several threads at once.
    fingerprint = open_scenarios(source).fingerprint()
    barrier = threading.Barrier(3, timeout=120)
    results: dict[int, Conversion | Exception] = {}

    def run(rank: int) -> None:
        team = Team(rank=rank, size=3, wait=barrier.wait)
        try:
            results[rank] = convert(open_scenarios(source), folder, team=team, **options)
        except Exception as error:
            # As the launcher does, which ends the others.
            barrier.abort()
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    with mock.patch.object(Source, "fingerprint", return_value=fingerprint):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return [results[rank] for rank in range(3)]


def test_a_team_makes_the_cache_that_one_process_makes(source: Path, tmp_path: Path):
    write_tfrecord(source / "3.tfrecord", ["3-0", "3-1"])
    whole = convert(open_scenarios(source), tmp_path / "whole", scenarios_per_shard=2)
    made = convert_together(source, tmp_path / "cache", scenarios_per_shard=2)
    assert (
        made
        == [Conversion(folder=tmp_path / "cache", num_scenarios=whole.num_scenarios, skipped=[])]
        * 3
    )
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "whole")
    assert convert_together(source, tmp_path / "cache", scenarios_per_shard=2) == made


def test_each_of_a_team_converts_its_share(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shares = []

    def note(tasks: list[Task], *others: Any) -> None:
        shares.append([task.number for task in tasks])
        convert_parts(tasks, *others)

    monkeypatch.setattr("catk_sim.datasets.conversion.convert_parts", note)
    write_tfrecord(source / "3.tfrecord", ["3-0"])
    convert_together(source, tmp_path / "cache")
    # When all are done the first process finds nothing left.
    assert sorted(shares) == [[], [0, 3], [1], [2]]


def test_an_id_that_two_of_a_team_find_is_an_error(source: Path, tmp_path: Path):
    write_tfrecord(source / "3.tfrecord", ["1-0"])
    first, *_ = convert_together(source, tmp_path / "cache")
    assert "scenario 1-0 has come before" in str(first)
    assert not (tmp_path / "cache" / "index.json").exists()


def test_a_team_without_a_shared_disk_is_refused(source: Path, tmp_path: Path):
    (tmp_path / "cache").mkdir()
    team = Team(rank=1, size=2, wait=lambda: None)
    with pytest.raises(DataError, match="wanted a folder that all processes share"):
        convert(open_scenarios(source), tmp_path / "cache", team=team)


@pytest.mark.slow
def test_torchrun_deals_the_files_out(source: Path, tmp_path: Path):
    folder = tmp_path / "cache"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "catk_sim.datasets.prepare", source, folder]
    done = subprocess.run([*command, "--workers", "1"], check=True, capture_output=True, text=True)
    assert done.stdout.count("13 scenarios") == 1
    convert(open_scenarios(source), tmp_path / "whole")
    assert files_of(folder) == files_of(tmp_path / "whole")


class Killed(BaseException):
    """Stands for a SIGKILL, which cannot be caught."""


def stop_before(count: int) -> Callable[..., None]:
    """Makes an `os.replace` that stops the process before a file gets its name."""
    replace, calls = os.replace, iter(range(count))

    def stop(source: Any, destination: Any) -> None:
        if next(calls, None) is None:
            raise Killed
        replace(source, destination)

    return stop


@pytest.mark.parametrize("finished_files", range(10))
def test_stopped_after_any_file_it_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_files: int
):
    convert(open_scenarios(source), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_before(finished_files))
        # What was being written stays behind.
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        try:
            convert(open_scenarios(source), tmp_path / "cache")
        except Killed:
            pass
        else:
            assert finished_files == 9, "the last file is the ninth"
    convert(open_scenarios(source), tmp_path / "cache")
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "whole")


def test_a_folder_is_converted_into_by_one_process_at_a_time(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "cache"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    other = threading.Thread(target=convert, args=(open_scenarios(source), folder))
    other.start()
    while "waiting for another process" not in caplog.text:
        assert other.is_alive()
        time.sleep(0.01)
    assert list(folder.iterdir()) == []
    os.close(descriptor)
    other.join()
    assert len(ids_of(folder)) == 13


def test_a_finished_cache_is_not_made_again(source: Path, tmp_path: Path):
    made = convert(open_scenarios(source), tmp_path / "cache")
    times = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    assert convert(open_scenarios(source), tmp_path / "cache") == made
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == times


def test_a_cache_of_something_else_is_left_alone(source: Path, tmp_path: Path):
    folder = tmp_path / "cache"
    convert(open_scenarios(source), folder)
    before = files_of(folder)
    with pytest.raises(DataError, match="begun with other data: delete it"):
        convert(open_scenarios(source / "0.tfrecord"), folder)
    with pytest.raises(DataError, match="begun with other scenarios_per_shard: delete it"):
        convert(open_scenarios(source), folder, scenarios_per_shard=5)
    write_gpudrive(tmp_path / "a.json", "a")
    with pytest.raises(DataError, match="begun with other format, data, code: delete it"):
        convert(open_scenarios(tmp_path / "a.json"), folder)
    assert files_of(folder) == before


def test_a_folder_that_holds_something_else_is_left_alone(source: Path, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    with pytest.raises(DataError, match="new or empty folder for the cache, got chapter"):
        convert(open_scenarios(source), tmp_path / "thesis")
    with pytest.raises(DataError, match="wanted a folder for the cache, got a file"):
        convert(open_scenarios(source), tmp_path / "thesis" / "chapter")
    assert files_of(tmp_path / "thesis") == {"chapter": b""}


def test_impossible_settings_are_refused(source: Path, tmp_path: Path):
    for workers, scenarios_per_shard in [(0, 1), (1, 0)]:
        with pytest.raises(ValueError, match="wanted at least one worker and one scenario"):
            convert(
                open_scenarios(source),
                tmp_path / "cache",
                workers=workers,
                scenarios_per_shard=scenarios_per_shard,
            )


def test_a_bad_record_stops_the_conversion(source: Path, tmp_path: Path):
    damage(source / "2.tfrecord")
    for _ in range(2):
        with pytest.raises(DataError, match=r"2\.tfrecord, record 2"):
            convert(open_scenarios(source), tmp_path / "cache")


def test_a_bad_record_can_be_skipped_and_is_listed(source: Path, tmp_path: Path):
    damage(source / "2.tfrecord")
    made = convert(open_scenarios(source), tmp_path / "cache", on_error="skip")
    assert made.num_scenarios == 12
    [reason] = made.skipped
    assert f"{source / '2.tfrecord'}, record 2" in reason
    assert json.loads((made.folder / "skipped.json").read_text()) == [reason]
    assert "2-2" not in ids_of(made.folder)
    assert ids_of(made.folder)[-2:] == ["2-3", "2-4"]


def test_what_was_skipped_is_an_error_for_who_does_not_skip(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    damage(source / "0.tfrecord")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_before(4))
        with pytest.raises(Killed):
            convert(open_scenarios(source), tmp_path / "cache", on_error="skip")
    with pytest.raises(DataError, match=r"0\.tfrecord, record 3"):
        convert(open_scenarios(source), tmp_path / "cache")
    convert(open_scenarios(source), tmp_path / "cache", on_error="skip")
    with pytest.raises(DataError, match=r"0\.tfrecord, record 3"):
        convert(open_scenarios(source), tmp_path / "cache")


def test_a_stopped_conversion_may_go_on_skipping(source: Path, tmp_path: Path):
    damage(source / "0.tfrecord")
    with pytest.raises(DataError):
        convert(open_scenarios(source), tmp_path / "cache", scenarios_per_shard=2)
    for name in ("cache", "whole"):
        convert(open_scenarios(source), tmp_path / name, scenarios_per_shard=2, on_error="skip")
    assert files_of(tmp_path / "cache") == files_of(tmp_path / "whole")


def test_nothing_but_bad_records_is_an_error(tmp_path: Path):
    write_gpudrive(tmp_path / "source" / "a.json", "a").write_text("nonsense")
    with pytest.raises(DataError, match=r"no scenario could be read: .*a\.json"):
        convert(open_scenarios(tmp_path / "source"), tmp_path / "cache", on_error="skip")


@pytest.mark.parametrize(
    "files", [["a", "b", "a", "c"], ["ab", "cad"], ["abac"], ["c", "a", "baa"]]
)
def test_an_id_that_comes_twice_is_an_error_or_is_skipped(tmp_path: Path, files: list[str]):
    for number, names in enumerate(files):
        write_tfrecord(tmp_path / "source" / f"{number}.tfrecord", list(names))
    with pytest.raises(
        DataError,
        match=r"tfrecord, record \d: scenario a has come before, in .*tfrecord, record \d",
    ):
        convert(open_scenarios(tmp_path / "source"), tmp_path / "cache")
    made = convert(open_scenarios(tmp_path / "source"), tmp_path / "cache", on_error="skip")
    names = "".join(files)
    assert ids_of(made.folder) == list(dict.fromkeys(names))
    assert len(made.skipped) == len(names) - len(set(names))
    errors: list[DataError] = []
    list(open_scenarios(tmp_path / "source", on_error=errors.append))
    assert len(made.skipped) == len(errors)
    assert [one.scenario_id[0] for one in open_scenarios(made.folder)] == ids_of(made.folder)


def test_the_command_tells_by_its_exit_code(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert prepare(source, tmp_path / "cache", "--workers", "1") == 0
    assert "13 scenarios" in capsys.readouterr().out
    damage(source / "0.tfrecord")
    assert prepare(source, tmp_path / "other", "--workers", "1") == FAILED
    error = capsys.readouterr().err
    assert "0.tfrecord, record 3" in error
    assert "Traceback" not in error
    assert prepare(source, tmp_path / "other", "--on-error", "skip", "--workers", "1") == SKIPPED
    error = capsys.readouterr().err
    assert "skipped 1, listed in" in error
    assert "0.tfrecord, record 3" in error
    assert prepare(tmp_path / "absent", tmp_path / "third") == FAILED
    assert "absent: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--workers", "0"], ["--on-error", "ignore"], ["--what", "1"]]
)
def test_the_command_refuses_wrong_arguments(
    source: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        prepare(source, tmp_path / "cache", *arguments)
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_data_is_prepared_once_and_again_when_it_changes(source: Path, tmp_path: Path):
    caches = tmp_path / "caches"
    assert len(prepare_if_needed(source, caches)) == 13
    before = files_of(caches)
    assert len(prepare_if_needed(source, caches)) == 13
    assert files_of(caches) == before
    write_tfrecord(source / "3.tfrecord", ["another"])
    assert len(prepare_if_needed(source, caches)) == 14
    assert len(list(caches.iterdir())) == 2


def test_a_cache_is_not_prepared_again(source: Path, tmp_path: Path):
    made = convert(open_scenarios(source), tmp_path / "cache")
    assert len(prepare_if_needed(made.folder, tmp_path / "caches")) == 13
    assert not (tmp_path / "caches").exists()
