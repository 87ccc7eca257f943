import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from catk_sim.datasets import DataError, open_scenarios, prepare_if_needed
from catk_sim.datasets.conversion import convert
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datasets.tfrecord import read_records, write_records
from tests.catk_sim.datasets.arbitrary import assert_equal
from tests.catk_sim.datasets.files import womd_scenario, write_gpudrive, write_tfrecord
from tests.catk_sim.datasets.foreign import womd_log, write_argoverse, write_pickle
from tests.shared import shared_path

IDS = ["a", "b", "c"]


def ids(data: str | Path) -> list[str]:
    return [scenario.scenario_id[0] for scenario in open_scenarios(data)]


def tfrecord_file(folder: Path) -> Path:
    return write_tfrecord(folder / "some.tfrecord", IDS)


def tfrecord_shard_name(folder: Path) -> Path:
    return write_tfrecord(folder / "training.tfrecord-00000-of-01000", IDS)


def tfrecord_without_its_name(folder: Path) -> Path:
    return write_tfrecord(folder / "data", IDS)


def compressed_tfrecord(folder: Path) -> Path:
    return write_tfrecord(folder / "some.tfrecord.gz", IDS)


def compressed_tfrecord_without_its_name(folder: Path) -> Path:
    return write_tfrecord(folder / "some.gz", IDS).rename(folder / "data")


def folder_of_tfrecords(folder: Path) -> Path:
    write_tfrecord(folder / "x-00001-of-00002", IDS[2:])
    write_tfrecord(folder / "x-00000-of-00002", IDS[:2])
    return folder


def glob_of_tfrecords(folder: Path) -> Path:
    write_tfrecord(folder / "one" / "x.tfrecord", IDS[:1])
    write_tfrecord(folder / "two" / "x.tfrecord", IDS[1:])
    write_tfrecord(folder / "two" / "other", ["d"])
    return folder / "**" / "*.tfrecord"


def gpudrive_file(folder: Path) -> Path:
    # One scenario a file.
    for scenario_id in IDS:
        write_gpudrive(folder / f"{scenario_id}.json", scenario_id)
    return folder


def compressed_gpudrive_files(folder: Path) -> Path:
    for scenario_id, suffix in zip(IDS, (".json", ".json.gz", ".json.xz"), strict=True):
        write_gpudrive(folder / f"{scenario_id}{suffix}", scenario_id)
    return folder


def gpudrive_without_its_name(folder: Path) -> Path:
    return write_gpudrive(folder / "a.json", "a").rename(folder / "data")


def scenarionet_files(folder: Path) -> Path:
    for scenario_id, suffix in zip(IDS, (".pkl", ".pkl.gz", ".pkl.xz"), strict=True):
        log = womd_log(scenario_id=scenario_id)
        write_pickle(folder / f"sd_waymo_{scenario_id}{suffix}", log)
    return folder


def scenarionet_without_its_name(folder: Path) -> Path:
    for scenario_id in IDS:
        write_pickle(folder / scenario_id, womd_log(scenario_id=scenario_id))
    return folder


def prepared_cache(folder: Path) -> Path:
    source = open_scenarios(write_tfrecord(folder / "source", IDS))
    return convert(source, folder / "cache").folder


@pytest.mark.parametrize(
    "make",
    [
        tfrecord_file,
        tfrecord_shard_name,
        tfrecord_without_its_name,
        compressed_tfrecord,
        compressed_tfrecord_without_its_name,
        folder_of_tfrecords,
        glob_of_tfrecords,
        gpudrive_file,
        compressed_gpudrive_files,
        scenarionet_files,
        scenarionet_without_its_name,
        prepared_cache,
    ],
)
def test_every_form_of_data_is_recognised(make: Callable[[Path], Path], tmp_path: Path):
    data = make(tmp_path)
    assert ids(data) == IDS
    assert ids(str(data)) == IDS
    dataset = prepare_if_needed(data, tmp_path / "caches")
    assert dataset.scenario_ids == IDS
    assert dataset[2].scenario_id == ("c",)


def test_a_single_gpudrive_file_is_recognised(tmp_path: Path):
    assert ids(write_gpudrive(tmp_path / "a.json.xz", "a")) == ["a"]
    assert ids(gpudrive_without_its_name(tmp_path)) == ["a"]


def test_what_is_read_is_what_was_written(tmp_path: Path):
    [scenario] = open_scenarios(write_tfrecord(tmp_path / "file", ["a"]))
    xy = scenario.log.xy + scenario.origin[:2]
    valid = scenario.log.valid
    torch.testing.assert_close(xy[valid], womd_scenario("a").log.xy[valid])


def test_synthetic_scenarios_are_generated_by_seed():
    first, second = open_scenarios("synthetic:2")
    assert_equal(first, generate_scenario(0))
    assert_equal(second, generate_scenario(1))
    [other] = open_scenarios("synthetic:1:3")
    assert_equal(other, generate_scenario(3_000_000))


def test_scenarios_are_generated_when_they_are_asked_for():
    source = open_scenarios("synthetic:1000000:7")
    assert source.num_scenarios == 1_000_000
    assert_equal(next(iter(source)), generate_scenario(7_000_000))


@pytest.mark.parametrize(
    "name",
    [
        "synthetic:",
        "synthetic:0",
        "synthetic:-1",
        "synthetic:x",
        "synthetic:1:",
        "synthetic:1000001",
    ],
)
def test_a_malformed_synthetic_name_is_refused(name: str):
    with pytest.raises(ValueError, match=f"wanted synthetic:COUNT .* got '{name}'"):
        open_scenarios(name)


def test_the_shipped_benchmark_is_readable():
    source = open_scenarios("synthetic")
    assert len({scenario.scenario_id for scenario in source}) > 1


def test_the_number_of_scenarios_is_told_where_it_is_cheap(tmp_path: Path):
    assert open_scenarios(gpudrive_file(tmp_path / "json")).num_scenarios == 3
    assert open_scenarios(prepared_cache(tmp_path / "cache")).num_scenarios == 3
    assert open_scenarios(tfrecord_file(tmp_path / "tfrecord")).num_scenarios is None


def test_opening_reads_no_scenario(tmp_path: Path):
    path = tfrecord_file(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    source = open_scenarios(path)
    with pytest.raises(DataError, match=r"record 0.* truncated"):
        list(source)


def test_parts_pickle(tmp_path: Path):
    for data in (tfrecord_file(tmp_path), "synthetic:70"):
        parts = open_scenarios(data).parts
        assert pickle.loads(pickle.dumps(parts)) == parts


def test_other_files_in_a_folder_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tfrecord_file(tmp_path)
    for name in ("notes.txt", ".hidden", "other.json", "empty.binproto"):
        (tmp_path / name).write_text("{}" if name == "other.json" else "")
    with caplog.at_level(logging.WARNING):
        assert ids(tmp_path) == IDS
    assert "left out what holds no scenarios: empty.binproto, notes.txt, other.json" in caplog.text
    assert ".hidden" not in caplog.text


@pytest.mark.parametrize(
    "name", ["b.tfrecord", "b.tfrecord-00000-of-00001", "b.tfrecord.gz", "b.json", "b.json.xz"]
)
@pytest.mark.parametrize("content", [b"", b"\x1f\x8bdamaged", b"\xfd7zXZ\x00damaged", b"nonsense"])
def test_a_damaged_file_is_not_passed_over(tmp_path: Path, name: str, content: bytes):
    make = write_gpudrive if ".json" in name else lambda path, name: write_tfrecord(path, [name])
    make(tmp_path / name.replace("b", "a", 1).removesuffix(".gz").removesuffix(".xz"), "a")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        list(open_scenarios(tmp_path))


@pytest.mark.parametrize("name", ["sd_b.pkl", "sd_b.pkl.xz"])
@pytest.mark.parametrize("content", [b"", b"\x80\x04damaged", b"\xfd7zXZ\x00damaged", b"nonsense"])
def test_a_damaged_log_is_not_passed_over(tmp_path: Path, name: str, content: bytes):
    write_pickle(tmp_path / "sd_a.pkl", womd_log())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        list(open_scenarios(tmp_path))


def test_what_cannot_be_read_can_be_collected_instead(tmp_path: Path):
    for scenario_id in IDS:
        write_gpudrive(tmp_path / f"{scenario_id}.json", scenario_id)
    (tmp_path / "b.json").write_text("nonsense")
    errors: list[DataError] = []
    found = [
        scenario.scenario_id[0] for scenario in open_scenarios(tmp_path, on_error=errors.append)
    ]
    assert found == ["a", "c"]
    assert [str(tmp_path / "b.json") in str(error) for error in errors] == [True]


def test_a_record_that_is_no_scenario_is_named_by_its_number(tmp_path: Path):
    path = tfrecord_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    errors: list[DataError] = []
    found = [scenario.scenario_id[0] for scenario in open_scenarios(path, on_error=errors.append)]
    assert found == ["a", "c"]
    assert [f"{path}, record 1" in str(error) for error in errors] == [True]


def test_a_whole_record_that_is_no_scenario_can_be_left_out(tmp_path: Path):
    records = [*read_records(tfrecord_file(tmp_path))]
    path = tmp_path / "mixed.tfrecord"
    write_records(path, [records[0], b"nonsense", records[2]])
    errors: list[DataError] = []
    found = [scenario.scenario_id[0] for scenario in open_scenarios(path, on_error=errors.append)]
    assert found == ["a", "c"]
    assert [f"{path}, record 1" in str(error) for error in errors] == [True]


def test_a_damaged_scenario_of_a_cache_can_be_left_out(tmp_path: Path):
    cache = convert(open_scenarios(tfrecord_file(tmp_path)), tmp_path / "cache").folder
    [shard] = cache.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # It belongs to the last.
    shard.write_bytes(content)
    errors: list[DataError] = []
    found = [scenario.scenario_id[0] for scenario in open_scenarios(cache, on_error=errors.append)]
    assert found == ["a", "b"]
    assert [f"{shard}, scenario 2" in str(error) for error in errors] == [True]


def test_an_id_that_comes_twice_names_both_places(tmp_path: Path):
    write_tfrecord(tmp_path / "1.tfrecord", ["a", "b"])
    write_tfrecord(tmp_path / "2.tfrecord", ["c", "b", "d"])
    with pytest.raises(
        DataError, match=r"2\.tfrecord, record 1: scenario b .* before, in .*1\.tfrecord, record 1"
    ):
        ids(tmp_path)
    errors: list[DataError] = []
    found = [
        scenario.scenario_id[0] for scenario in open_scenarios(tmp_path, on_error=errors.append)
    ]
    assert found == ["a", "b", "c", "d"]
    assert len(errors) == 1


def test_a_mix_of_formats_is_an_error_that_lists_it(tmp_path: Path):
    tfrecord_file(tmp_path)
    gpudrive_file(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError,
        match=r"wanted .*TFRecord.*JSON.*synthetic.* got 3 of GPUDrive JSON \(a\.json, b\.json, "
        r"c\.json\), 1 of WOMD TFRecord \(some\.tfrecord\), 1 of no known format \(notes\.txt\)",
    ):
        open_scenarios(tmp_path)


@pytest.mark.parametrize("names", [[], ["notes.txt"], ["1", "2", "3", "4"], ["inner/x.tfrecord"]])
def test_a_folder_without_scenarios_is_an_error(tmp_path: Path, names: list[str]):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"wanted .* got (no files|\d of no known format)"):
        open_scenarios(tmp_path)


def test_a_file_of_no_known_format_is_an_error(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"1 of no known format \(x\.png\)"):
        open_scenarios(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["absent", "absent*", "synthetics"])
def test_what_is_not_there_is_a_file_not_found_error(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match="no such file or folder; wanted"):
        open_scenarios(tmp_path / name)


def test_an_unfinished_cache_is_an_error(tmp_path: Path):
    cache = prepared_cache(tmp_path)
    (cache / "index.json").unlink()
    with pytest.raises(DataError, match="a cache that is not finished"):
        open_scenarios(cache)


def test_a_fingerprint_changes_with_the_files_and_not_with_their_place(tmp_path: Path):
    folder_of_tfrecords(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    before = open_scenarios(tmp_path / "here").fingerprint()
    assert open_scenarios(tmp_path / "there").fingerprint() == before
    path = tmp_path / "there" / "x-00001-of-00002"
    os.utime(path, (0, 0))
    changed = open_scenarios(tmp_path / "there").fingerprint()
    assert (changed.kind, changed.code) == (before.kind, before.code)
    assert changed.data != before.data
    path.unlink()
    assert open_scenarios(tmp_path / "there").fingerprint().data != before.data


def test_fingerprints_of_synthetic_scenarios_differ_by_count_and_seed():
    names = ["synthetic:1", "synthetic:2", "synthetic:1:1", "synthetic:65"]
    assert len({open_scenarios(name).fingerprint() for name in names}) == 4
    assert (
        open_scenarios("synthetic:2").fingerprint() == open_scenarios("synthetic:2:0").fingerprint()
    )


def test_the_windows_of_a_log_are_scenarios_of_their_own(tmp_path: Path):
    path = write_pickle(tmp_path / "sd_a.pkl", womd_log(200))
    assert ids(path) == ["log-0", "log-91"]
    assert open_scenarios(path).num_scenarios is None


def test_the_lists_of_a_scenarionet_folder_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    scenarionet_files(tmp_path)
    write_pickle(tmp_path / "dataset_summary.pkl", {"sd_waymo_a.pkl": {"track_length": 91}})
    write_pickle(tmp_path / "dataset_mapping.pkl", {"sd_waymo_a.pkl": ""})
    with caplog.at_level(logging.WARNING):
        assert ids(tmp_path) == IDS
    assert "dataset_mapping.pkl, dataset_summary.pkl" in caplog.text


def test_scenarios_of_argoverse_are_recognised_with_their_maps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    pytest.importorskip("pyarrow")
    path = write_argoverse(tmp_path / "one")
    with caplog.at_level(logging.WARNING):
        for data in (path, path.parent, tmp_path / "**" / "*", tmp_path / "*" / "*.parquet"):
            assert ids(data) == ["some-scenario"]
    assert "left out" not in caplog.text
    assert open_scenarios(path).num_scenarios == 1


def test_the_real_files_are_recognised():
    [scenario] = open_scenarios(shared_path("data/womd_scenario_proto"))
    assert scenario.scenario_id == ("637f20cafde22ff8",)
    source = open_scenarios(shared_path("data/womd_gpudrive_json"))
    assert source.num_scenarios == 122
    assert next(iter(source)).scenario_id == ("11c369e4c0b932ff",)


@pytest.mark.slow
def test_the_real_files_of_other_data_sets_are_recognised():
    source = open_scenarios(shared_path("data/nuscenes_scenarionet_pkl"))
    assert next(iter(source)).scenario_id == ("scene-0553-0",)
    pytest.importorskip("pyarrow")
    [scenario] = open_scenarios(shared_path("data/av2_motion_forecasting") / "**" / "*")
    assert scenario.scenario_id == ("0a1e6f0a-1817-4a98-b02e-db8c9327d151",)
