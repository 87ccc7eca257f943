import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from catk_sim.datasets import (
    BucketBatchSampler,
    DataError,
    ScenarioDataset,
    ScenarioSize,
    collate,
    uncollate,
)
from catk_sim.datasets.cache import CacheEntry, CacheIndex, ScenarioCache
from catk_sim.datasets.schema import size_of
from catk_sim.datasets.shard import Shard, write_shard
from catk_sim.datatypes import Scenario
from tests.catk_sim.datasets.arbitrary import arbitrary_scenario, assert_equal, sizes

SIZE = ScenarioSize(agents=3, steps=4, points=5, features=2, links=1, lights=1)


def scenarios_of(count: int) -> list[Scenario]:
    return [arbitrary_scenario(SIZE._replace(agents=1 + seed), seed) for seed in range(count)]


def write_cache(folder: Path, shards: Sequence[Sequence[Scenario]]) -> Path:
    index = CacheIndex(shards=[], entries=[])
    for number, scenarios in enumerate(shards):
        index.shards.append(f"{number}.safetensors")
        write_shard(folder / index.shards[-1], scenarios)
        for row, one in enumerate(scenarios):
            index.entries.append(CacheEntry(one.scenario_id[0], number, row, size_of(one)))
    index.write(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    scenarios = scenarios_of(4)
    return write_cache(tmp_path, [scenarios[:3], scenarios[3:]])


def test_what_sources_do_not_tell_is_counted(cache: Path):
    opened = ScenarioCache(cache)
    opened.index.entries.pop(1)
    assert opened.count_lacks() == {"": 2, "a map": 1}
    (cache / "1.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"1\.safetensors: wanted a shard of catk_sim scenarios"):
        opened.count_lacks()


def stored_dtype(path: Path, name: str) -> torch.dtype:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name).dtype


@given(some=st.lists(sizes, min_size=1, max_size=3), dtype=st.sampled_from([32, 64]))
def test_what_was_written_is_read(
    some: list[ScenarioSize], dtype: int, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("cache") / "shard"
    scenarios = [
        arbitrary_scenario(size, seed, getattr(torch, f"float{dtype}"))
        for seed, size in enumerate(some)
    ]
    write_shard(path, scenarios)
    shard = Shard(path)
    assert shard.sizes == some
    assert shard.ids == [scenario.scenario_id[0] for scenario in scenarios]
    for row, scenario in enumerate(scenarios):
        assert_equal(shard.read(row), scenario)


@pytest.mark.parametrize("number", [-0.0, float("nan"), float("inf"), 1e300, 5e-324, 1 / 3])
def test_every_float_comes_back_bit_for_bit(tmp_path: Path, number: float):
    scenario = arbitrary_scenario(SIZE, 0)
    scenario.timestamps[1] = number
    write_shard(tmp_path / "shard", [scenario])
    assert_equal(Shard(tmp_path / "shard").read(0), scenario)


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        (255, torch.uint8),
        (-128, torch.int8),
        (256, torch.int16),
        (-(2**15), torch.int16),
        (2**15, torch.int32),
        (2**31, torch.int64),
        (-(2**63), torch.int64),
    ],
)
def test_integers_take_the_least_room(tmp_path: Path, number: int, dtype: torch.dtype):
    scenario = arbitrary_scenario(SIZE, 0)
    scenario.agents.agent_id[:] = number
    write_shard(tmp_path / "shard", [scenario])
    assert stored_dtype(tmp_path / "shard", "agents.agent_id") == dtype
    assert_equal(Shard(tmp_path / "shard").read(0), scenario)


def test_floats_take_half_the_room_where_that_loses_nothing(tmp_path: Path):
    scenario = arbitrary_scenario(SIZE, 0)
    scenario.log.heading[:] = 0.5
    write_shard(tmp_path / "shard", [scenario])
    assert stored_dtype(tmp_path / "shard", "log.heading") == torch.float32
    assert stored_dtype(tmp_path / "shard", "log.xy") == torch.float64


def test_equal_scenarios_make_equal_bytes(tmp_path: Path):
    for name in ("one", "other"):
        write_shard(tmp_path / name, scenarios_of(3))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_shard_is_readable_by_whom_a_new_file_is(tmp_path: Path):
    write_shard(tmp_path / "shard", scenarios_of(1))
    (tmp_path / "new").touch()
    assert (tmp_path / "shard").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_failed_write_leaves_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="both"):
        write_shard(
            tmp_path / "shard",
            [arbitrary_scenario(SIZE, 0), arbitrary_scenario(SIZE, 1).to(torch.float32)],
        )
    with pytest.raises(ValueError, match="at least one"):
        write_shard(tmp_path / "shard", [])
    with pytest.raises(ValueError, match="has shape"):
        write_shard(tmp_path / "shard", [Scenario.stack(2 * [arbitrary_scenario(SIZE, 0)])])
    assert os.listdir(tmp_path) == []


def test_changing_a_scenario_does_not_change_the_next_reading(cache: Path):
    opened = ScenarioCache(cache)
    opened.read(0).log.valid[:] = False
    opened.read(0).log.xy[:] = 7
    assert_equal(opened.read(0), scenarios_of(1)[0])


def test_a_cache_reads_by_index(cache: Path):
    opened = ScenarioCache(cache)
    assert len(opened) == 4
    for index, scenario in enumerate(scenarios_of(4)):
        assert_equal(opened.read(index), scenario)
    for index in (-1, 4):
        with pytest.raises(IndexError, match=f"scenario {index} of a cache of 4"):
            opened.read(index)


def test_a_cache_of_many_shards_keeps_few_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("catk_sim.datasets.cache._MAX_OPEN_SHARDS", 2)
    scenarios = scenarios_of(5)
    opened = ScenarioCache(write_cache(tmp_path, [[one] for one in scenarios]))
    for index in (0, 1, 0, 2, 3, 4, 0):
        assert_equal(opened.read(index), scenarios[index])
        assert len(opened._open) <= 2


@given(data=st.data())
def test_a_changed_byte_is_an_error_and_never_a_wrong_number(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("cache") / "shard"
    scenarios = scenarios_of(2)
    write_shard(path, scenarios)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    problem: DataError | None = None
    try:
        shard = Shard(path)
        found = [shard.read(row) for row in range(2)]
    except DataError as error:
        problem = error
    else:
        # A space more or less in the header changes nothing.
        for one, scenario in zip(found, scenarios, strict=True):
            assert_equal(one, scenario)
    assert problem is None or str(path) in str(problem)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_shard_is_an_error(cache: Path, share: float):
    path = cache / "0.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"0\.safetensors: wanted a shard of catk_sim scenarios"):
        ScenarioCache(cache).read(0)


@pytest.mark.parametrize(
    ("column", "problem"),
    [("sizes", "its scenarios have"), ("lacks", r"its columns have \[3, 3, 2, 3\] entries")],
)
def test_a_header_that_does_not_fit_is_an_error(cache: Path, column: str, problem: str):
    path = cache / "0.safetensors"
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if column == "sizes":
        header["sizes"][0][0] += 1
    else:
        header[column].pop()
    save_file(tensors, path, metadata={"header": json.dumps(header)})
    with pytest.raises(DataError, match=rf"wanted a shard of catk_sim scenarios.*{problem}"):
        Shard(path)


def test_a_missing_shard_is_an_error(cache: Path):
    (cache / "0.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.safetensors"):
        ScenarioCache(cache).read(0)


def test_a_shard_of_another_cache_is_an_error(cache: Path):
    os.replace(cache / "1.safetensors", cache / "0.safetensors")
    for index in range(3):
        with pytest.raises(DataError, match=r"wanted .*scenario .* as index\.json says, got"):
            ScenarioCache(cache).read(index)


def test_another_version_is_refused(cache: Path):
    path = cache / "index.json"
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(DataError, match=r"index\.json: wanted .*version 1: it has version 2"):
        ScenarioCache(cache)
    shard = cache / "0.safetensors"
    shard.write_bytes(shard.read_bytes().replace(b'\\"version\\":1', b'\\"version\\":2'))
    with pytest.raises(DataError, match=r"0\.safetensors: wanted .*version 1: it has version 2"):
        Shard(shard)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": "catk_sim scenarios"}', "\xff"]
)
def test_a_damaged_index_is_an_error(cache: Path, content: str):
    (cache / "index.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"index\.json"):
        ScenarioCache(cache)


def test_an_index_that_lacks_a_column_is_an_error(cache: Path):
    index = json.loads((cache / "index.json").read_text())
    index["scenarios"][2].pop()
    (cache / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"index\.json"):
        ScenarioCache(cache)


def test_a_dataset_gives_float32_or_what_was_asked_for(cache: Path):
    scenario = scenarios_of(2)[1]
    assert_equal(ScenarioDataset(cache)[1], scenario.to(torch.float32))
    assert_equal(ScenarioDataset(cache, dtype=torch.float64)[1], scenario)


def test_a_dataset_tells_ids_and_sizes_without_reading_a_shard(cache: Path):
    for shard in cache.glob("*.safetensors"):
        shard.unlink()
    dataset = ScenarioDataset(cache)
    assert len(dataset) == 4
    assert dataset.scenario_ids == [f"scenario {seed}" for seed in range(4)]
    assert dataset.sizes == [size_of(scenario) for scenario in scenarios_of(4)]


def without_source(scenario: Scenario) -> Scenario:
    return scenario.replace(lacks=("everything",))


def test_a_dataset_applies_its_transform(cache: Path):
    assert ScenarioDataset(cache, transform=without_source)[0].lacks == ("everything",)


def test_a_dataset_iterates_and_then_stops(cache: Path):
    dataset = ScenarioDataset(cache)
    assert [scenario.scenario_id for scenario in dataset] == [
        (f"scenario {seed}",) for seed in range(4)
    ]


def test_a_pickled_dataset_reads_the_same_and_carries_no_data(cache: Path):
    dataset = ScenarioDataset(cache, transform=without_source)
    dataset[0]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 1000
    assert_equal(pickle.loads(pickled)[3], dataset[3])


def test_a_loader_gives_padded_batches(cache: Path):
    dataset = ScenarioDataset(cache)
    sampler = BucketBatchSampler(dataset.sizes, 3, seed=0)
    planned = sampler.batches(0)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate)
    for indices, batch in zip(planned, loader, strict=True):
        for index, scenario in zip(indices, uncollate(batch), strict=True):
            assert_equal(scenario, dataset[index])
