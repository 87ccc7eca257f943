"""What `write_submission` writes and `read_submission` reads."""

import contextlib
import gzip
import io
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catk_sim.datasets.errors import DataError
from catk_sim.submission import read_submission, write_submission, writer
from tests.catk_sim.submission.made import (
    FIELDS,
    METADATA,
    assert_same,
    changed,
    named_road,
    noise,
    roads,
    write,
)
from tests.shared import shared_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "s.tar.gz")


def shards(path: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            files[member.name] = file.read()
    return files


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def read(path: Path) -> str:
    return "".join(rollouts.scenario_id for rollouts in read_submission(path))


def test_what_is_written_is_read(path: Path) -> None:
    found = list(read_submission(path, METADATA))
    assert len(found) == 5
    for rollouts, name in zip(found, "abcde", strict=True):
        assert_same(rollouts, noise(name))


def test_shards_are_named_as_the_server_wants(path: Path) -> None:
    assert list(shards(path)) == [f"submission.binproto-0000{k}-of-00003" for k in range(3)]


def test_shards_are_alike_in_size(tmp_path: Path) -> None:
    sizes = [len(data) for data in shards(write(tmp_path / "s.tar.gz", "abcdefg")).values()]
    one = min(sizes) // 2
    assert [round(size / one) for size in sizes] == [2, 2, 3]


def test_there_are_no_empty_shards(tmp_path: Path) -> None:
    assert len(shards(write(tmp_path / "s.tar.gz", "ab", num_shards=150))) == 2


def test_equal_submissions_are_equal_files(path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "elsewhere.tar.gz")
    assert other.read_bytes() == path.read_bytes()
    # Where gzip tells the time and, if a flag says so, a name.
    assert path.read_bytes()[3:8] == bytes(5)


def test_waymos_classes_read_every_shard(path: Path) -> None:
    proto = pytest.importorskip("waymo_open_dataset.protos.sim_agents_submission_pb2")
    found = []
    for data in shards(path).values():
        shard = proto.SimAgentsChallengeSubmission.FromString(data)
        assert shard.submission_type == shard.SIM_AGENTS_SUBMISSION
        assert shard.account_name == "someone@example.org"
        assert list(shard.authors) == ["Some One", "Any Öne"]
        assert shard.HasField("uses_lidar_data")
        assert shard.acknowledge_complies_with_closed_loop_requirement
        # To the bit what Waymo's classes write.
        assert shard.SerializeToString(deterministic=True) == data
        found.extend(shard.scenario_rollouts)
    assert [one.scenario_id for one in found] == list("abcde")
    for one in found:
        expected = noise(one.scenario_id)
        for rollout, scene in enumerate(one.joint_scenes):
            for agent, trajectory in enumerate(scene.simulated_trajectories):
                assert trajectory.object_id == expected.object_id[agent]
                values = [trajectory.center_x, trajectory.center_y, trajectory.center_z]
                for name, theirs in zip(FIELDS, [*values, trajectory.heading], strict=True):
                    np.testing.assert_array_equal(theirs, getattr(expected, name)[rollout, agent])


def test_waymos_own_submission_is_read() -> None:
    path = shared_path("data/womd_scenario_proto/test_submission.binproto")
    golden = shared_path("golden/wosac/637f20cafde22ff8_t_test_submission_sim.npz")
    [rollouts] = read_submission(path)
    assert rollouts.scenario_id == "637f20cafde22ff8"
    with np.load(golden) as arrays:
        for name in ("object_id", *FIELDS):
            np.testing.assert_array_equal(getattr(rollouts, name), arrays[name])


def test_a_folder_of_shards_is_read(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in shards(path).items():
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("not a shard")
    assert read(folder) == "abcde"


def test_a_single_shard_is_read(path: Path, tmp_path: Path) -> None:
    name, data = list(shards(path).items())[1]
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == "bc"


@pytest.mark.parametrize("name", ["s.binproto", "s.binproto-00007", "inner/s.binproto"])
def test_other_names_of_shards_are_known(path: Path, tmp_path: Path, name: str) -> None:
    data = shards(path)["submission.binproto-00000-of-00003"]
    assert read(pack(tmp_path / "other.tar.gz", {name: data, "notes.txt": b"?"})) == "a"


def broken(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        files = shards(path)
        change(files)
        pack(path, files)

    return apply


FIRST, SECOND, THIRD = (f"submission.binproto-0000{k}-of-00003" for k in range(3))

DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard is missing": (
        broken(lambda files: files.pop(SECOND)),
        f"s.tar.gz: 1 of 00003 shards are missing: {SECOND}",
    ),
    "there is no shard": (
        broken(lambda files: [files.clear(), files.update(part0=b"")]),
        "found no shards: their names must be like",
    ),
    "shards are empty": (
        broken(lambda files: files.update(dict.fromkeys(files, b""))),
        "wanted at least one scenario, got none",
    ),
    "a scenario comes twice": (
        broken(lambda files: files.update({THIRD: files[SECOND]})),
        f"{THIRD}: scenario b has come before, in .*{SECOND}",
    ),
    "a shard is truncated": (
        broken(lambda files: files.update({SECOND: files[SECOND][:-50_000]})),
        f"{SECOND}: not a submission, or truncated: a field has .* bytes and .* are left",
    ),
    "a shard ends within a number": (
        broken(lambda files: files.update({SECOND: b"\x0a\xff"})),
        "a number does not end",
    ),
    "a number goes on": (
        broken(lambda files: files.update({SECOND: b"\x0a" + b"\xff" * 20 + b"\x01"})),
        "a number does not end",
    ),
    "a shard is something else": (
        broken(lambda files: files.update({SECOND: b"<html>"})),
        "there is a field of wire type 4",
    ),
    "a shard has a fixed-size field": (
        broken(lambda files: files.update({SECOND: b"\x0d1234"})),
        "there is a field of wire type 5",
    ),
    "the metadata are damaged": (
        broken(lambda files: files.update({SECOND: files[SECOND] + b"\x00\x01"})),
        "not a submission",
    ),
    "the archive is truncated": (
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        "s.tar.gz: the archive is damaged",
    ),
    "the archive has no end": (
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        "s.tar.gz: the archive is damaged",
    ),
    "the archive's checksum is wrong": (
        lambda path: path.write_bytes(path.read_bytes()[:-8] + bytes(8)),
        "s.tar.gz: the archive is damaged",
    ),
    "it is no archive": (
        lambda path: path.write_bytes(gzip.compress(b"something" * 1000)),
        "s.tar.gz: the archive is damaged",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_told(name: str, path: Path) -> None:
    damage, complaint = DAMAGED[name]
    damage(path)
    with pytest.raises(DataError, match=complaint):
        list(read_submission(path))


def test_damaged_compression_is_told(path: Path) -> None:
    data, other = path.read_bytes(), bytes(range(256)) * 12
    for start in range(20, len(data) - len(other), len(data) // 20):
        path.write_bytes(data[:start] + other + data[start + len(other) :])
        with pytest.raises(DataError, match=r"s\.tar\.gz"):
            list(read_submission(path))


def test_damage_anywhere_is_told(path: Path, tmp_path: Path) -> None:
    # A scenario is small enough here that damage often falls on what is not a coordinate.
    data = shards(path)[FIRST]
    generator = random.Random(0)
    file = tmp_path / "s.binproto"
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 3)):
            where = generator.choice([generator.randrange(len(data)), generator.randrange(60)])
            damaged[where] = generator.randrange(256)
        file.write_bytes(damaged[: generator.choice([len(data), generator.randrange(len(data))])])
        with contextlib.suppress(DataError):
            list(read_submission(file))


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(read_submission(tmp_path / "s.tar.gz"))
    with pytest.raises(DataError, match="found no shards"):
        list(read_submission(tmp_path))


def test_other_metadata_are_told(path: Path) -> None:
    other = replace(METADATA, affiliation="somewhere")
    with pytest.raises(DataError, match="affiliation to be 'somewhere', got 'nowhere'"):
        list(read_submission(path, other))


def test_every_shard_is_asked_for_its_metadata(path: Path) -> None:
    files = shards(path)
    files[THIRD] = files[THIRD].replace(b"nowhere", b"NOWHERE")
    pack(path, files)
    assert read(path) == "abcde"
    with pytest.raises(DataError, match=f"{THIRD}: wanted affiliation"):
        list(read_submission(path, METADATA))


def test_metadata_that_are_missing_are_told(path: Path) -> None:
    files = shards(path)
    files[FIRST] = files[FIRST].removesuffix(METADATA.message().SerializeToString())
    pack(path, files)
    with pytest.raises(DataError, match=f"{FIRST}: wanted account_name to be .*, got None"):
        list(read_submission(path, METADATA))


def test_bad_rollouts_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    bad = [*roads("ab"), (named_road("c"), changed(noise("c"), z=noise("c").z * np.nan))]
    with pytest.raises(ValueError, match=r"scenario 'c': z is not finite .*\[100 102\]"):
        write_submission(tmp_path / "s.tar.gz", METADATA, bad, num_scenarios=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "num_scenarios", "complaint"),
    [
        ("ab", 3, "wanted 3 scenarios, got 2"),
        ("abc", 2, "wanted 2 scenarios, got more: 'c'"),
        ("aba", 3, "scenario 'a' comes twice"),
        ("", 0, "wanted at least one scenario"),
    ],
)
def test_every_scenario_comes_once(
    names: str, num_scenarios: int, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.tar.gz"
    path.write_text("an earlier one")
    with pytest.raises(ValueError, match=complaint):
        write_submission(path, METADATA, roads(names), num_scenarios=num_scenarios)
    assert path.read_text() == "an earlier one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_the_server_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in .tar.gz, got s.tar"):
        write(tmp_path / "s.tar")


def test_no_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one scenario and one shard, got 5 and 0"):
        write(tmp_path / "s.tar.gz", num_shards=0)


def test_a_shard_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_SHARD_BYTES", 100_000)
    with pytest.raises(ValueError, match=r"at most 100000: use more shards"):
        write(tmp_path / "s.tar.gz", "ab", num_shards=1)
    assert not list(tmp_path.iterdir())


def peak_memory(do: Callable[[], object]) -> int:
    tracemalloc.start()
    do()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_more_scenarios_take_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "s.tar.gz"
    writing, reading = [], []
    for names in ("abcdefg", "abcdefghijklmnopqrstuvwxyz"):
        rollouts = ((named_road(name), noise(name)) for name in names)
        count = len(names)
        writing.append(
            peak_memory(
                lambda given=rollouts, count=count: write_submission(
                    path, METADATA, given, num_scenarios=count, num_shards=1
                )
            )
        )
        reading.append(peak_memory(lambda: sum(1 for _ in read_submission(path))))
    assert writing[1] < 1.2 * writing[0]
    assert reading[1] < 1.2 * reading[0]
