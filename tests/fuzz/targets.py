"""What is fuzzed: readers, and inputs that are nearly good."""

import gzip
import hashlib
import json
import lzma
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save

from catk_sim.datasets import argoverse2, gpudrive, scenarionet, tfrecord, womd
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.file_content import read_content
from catk_sim.datasets.plain_pickle import load_plain
from catk_sim.datasets.sources import open_scenarios
from catk_sim.datasets.womd_schema import writing_class
from catk_sim.datatypes import Scenario
from policies.checkpoint import load_checkpoint, save_checkpoint
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests import scenes
from tests.catk_sim.datasets.files import gpudrive_json
from tests.catk_sim.datasets.foreign import (
    argoverse_map,
    argoverse_rows,
    nuscenes_log,
    womd_log,
    write_argoverse,
)
from tests.fuzz.mutations import damage_bytes, damage_message, damage_value


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: What is read.
        share: How many of the inputs it gets, relative to others.
        make: Makes a damaged input.
        read: Reads it, in a folder for files. Whatever it raises but `allowed` is a fault.
        allowed: The errors that a bad input may raise.
    """

    name: str
    share: int
    make: Callable[[Random], Any]
    read: Callable[[Any, Path], object]
    allowed: tuple[type[Exception], ...] = (DataError,)


def targets() -> list[Target]:
    """Lists all targets."""
    return [
        _tfrecord(),
        _proto(),
        _proto_values(),
        _compressed(),
        _gpudrive_text(),
        _gpudrive_values(),
        _pickle_machine(),
        _scenarionet_bytes(),
        _scenarionet_values(),
        _argoverse_bytes(),
        _argoverse_values(),
        _files(),
        _checkpoint(),
    ]


def _womd_scenarios() -> list[Scenario]:
    road = scenes.straight_road().to(torch.float64)
    return [road, *scenarionet.parse_scenarios(pickle.dumps(womd_log()))]


def _written(data: bytes, folder: Path, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _damaged(*seeds: bytes) -> Callable[[Random], bytes]:
    return lambda chance: damage_bytes(chance.choice(seeds), chance)


def _tfrecord() -> Target:
    framed = b"".join(map(_frame, [b"first", b"", bytes(range(200))]))

    def read(data: bytes, folder: Path) -> object:
        return list(tfrecord.read_records(_written(data, folder)))

    return Target("TFRecord", 20, _damaged(framed, gzip.compress(framed)), read)


def _frame(data: bytes) -> bytes:
    length = len(data).to_bytes(8, "little")
    sums = [tfrecord.masked_crc32c(part).to_bytes(4, "little") for part in (length, data)]
    return length + sums[0] + data + sums[1]


def _proto() -> Target:
    seeds = [womd.serialize_scenario(scenario) for scenario in _womd_scenarios()]
    return Target(
        "Scenario proto, bytes", 15, _damaged(*seeds), lambda data, _: womd.parse_scenario(data)
    )


def _proto_values() -> Target:
    seeds = [womd.serialize_scenario(scenario) for scenario in _womd_scenarios()]
    messages = [writing_class("Scenario").FromString(seed) for seed in seeds]

    def make(chance: Random) -> bytes:
        return damage_message(chance.choice(messages), chance).SerializeToString()

    return Target("Scenario proto, values", 10, make, lambda data, _: womd.parse_scenario(data))


def _compressed() -> Target:
    content = b"".join(number.to_bytes(2, "little") for number in range(500))
    make = _damaged(gzip.compress(content), lzma.compress(content))
    return Target("gzip and xz", 5, make, lambda data, folder: read_content(_written(data, folder)))


def _gpudrive_text() -> Target:
    text = json.dumps(_gpudrive_seed()).encode()
    return Target(
        "GPUDrive JSON, bytes", 10, _damaged(text), lambda data, _: gpudrive.parse_scenario(data)
    )


def _gpudrive_seed() -> dict[str, Any]:
    light = {"state": ["go", "stop"], "time_index": [3, 4], "x": [1, 1], "y": [0, 0], "z": [0, 0]}
    return gpudrive_json("a") | {"tl_states": {"5": light}}


def _gpudrive_values() -> Target:
    seed = _gpudrive_seed()

    def make(chance: Random) -> bytes:
        return json.dumps(damage_value(seed, chance)).encode()

    return Target("GPUDrive JSON, values", 10, make, lambda data, _: gpudrive.parse_scenario(data))


def _pickle_machine() -> Target:
    seeds = [pickle.dumps(womd_log(), protocol)[:20_000] for protocol in (2, 4, 5)]
    small = {
        "a": [1, 2.5, None, ("x", b"y")],
        "b": {"c", 3},
        "d": scenes.straight_road().scenario_id,
    }
    seeds += [pickle.dumps(small, protocol) for protocol in (2, 4, 5)]
    return Target("pickle", 15, _damaged(*seeds), lambda data, _: load_plain(data))


def _logs() -> list[dict[str, Any]]:
    """Two at 10 Hz, and one at 2 Hz."""
    slow = womd_log(20)
    slow["metadata"]["ts"] = [0.5 * step for step in range(20)]
    return [womd_log(), nuscenes_log(100), slow]


def _scenarionet_bytes() -> Target:
    make = _damaged(*map(pickle.dumps, _logs()))
    return Target("ScenarioNet, bytes", 8, make, lambda data, _: scenarionet.parse_scenarios(data))


def _scenarionet_values() -> Target:
    seeds = _logs()

    def make(chance: Random) -> bytes:
        return pickle.dumps(damage_value(chance.choice(seeds), chance))

    return Target("ScenarioNet, values", 8, make, lambda data, _: scenarionet.parse_scenarios(data))


def _argoverse_bytes() -> Target:
    def make(chance: Random) -> float:
        return chance.random()

    def read(seed: float, folder: Path) -> object:
        path = folder / "good" / "scenario_some-scenario.parquet"
        if not path.exists():
            write_argoverse(path.parent)
        chance = Random(seed)
        damaged = folder / "damaged"
        damaged.mkdir(exist_ok=True)
        for file in path.parent.iterdir():
            is_hurt = (file == path) == (chance.random() < 0.7)
            content = file.read_bytes()
            content = damage_bytes(content, chance) if is_hurt else content
            (damaged / file.name).write_bytes(content)
        return argoverse2.read_scenario(damaged / path.name)

    return Target("Argoverse 2, bytes", 5, make, read)


def _argoverse_values() -> Target:
    rows, content = argoverse_rows(), argoverse_map()

    def make(chance: Random) -> tuple[Any, Any]:
        if chance.random() < 0.5:
            return rows, damage_value(content, chance)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        damaged = damage_value(columns, chance)
        return damaged, content

    def read(damaged: tuple[Any, Any], folder: Path) -> object:
        import pyarrow
        import pyarrow.parquet

        table, found = damaged
        path = write_argoverse(folder / "values", rows=rows[:1], content=found)
        try:
            wanted = pyarrow.table(table) if isinstance(table, dict) else None
        except (pyarrow.ArrowException, TypeError, OverflowError, ValueError):
            return None  # No such file can be written.
        if wanted is None:
            wanted = pyarrow.Table.from_pylist(table)
        pyarrow.parquet.write_table(wanted, path)
        return argoverse2.read_scenario(path)

    return Target("Argoverse 2, values", 4, make, read)


def _files() -> Target:
    """Files of any kind, recognised by their content."""
    framed = b"".join(_frame(womd.serialize_scenario(one)) for one in _womd_scenarios())
    text, log = json.dumps(_gpudrive_seed()).encode(), pickle.dumps(womd_log())
    seeds = [framed, text, log, gzip.compress(framed), lzma.compress(text), lzma.compress(log)]
    names = ("x", "x.json", "x.tfrecord", "sd_x.pkl", "x.parquet", "x.json.xz")

    def make(chance: Random) -> tuple[str, bytes]:
        return chance.choice(names), _damaged(*seeds)(chance)

    def read(named: tuple[str, bytes], folder: Path) -> object:
        name, data = named
        path = _written(data, folder, name)
        try:
            return list(open_scenarios(path))
        finally:
            path.unlink()

    return Target("any file", 8, make, read)


def _checkpoint() -> Target:
    vocabulary = scenes.arc_vocabulary()
    torch.manual_seed(0)
    model = SMART(SMARTConfig(hidden_dim=16, num_map_layers=1, num_agent_layers=1), vocabulary)

    def read(seed: float, folder: Path) -> object:
        run = folder / "run"
        if not run.exists():
            save_checkpoint(run, model, vocabulary)
        chance, damaged = Random(seed), folder / "damaged run"
        damaged.mkdir(exist_ok=True)
        content = {file.name: file.read_bytes() for file in run.iterdir()}
        _hurt_checkpoint(content, chance)
        for name, data in content.items():
            (damaged / name).write_bytes(data)
        return load_checkpoint(damaged)

    return Target(
        "checkpoint", 2, lambda chance: chance.random(), read, (ValueError, FileNotFoundError)
    )


def _hurt_checkpoint(content: dict[str, bytes], chance: Random) -> None:
    note, weights = "config.json", "model.safetensors"
    kind = chance.randrange(3)
    if kind == 0:
        content[note] = damage_bytes(content[note], chance)
        return
    described = json.loads(content[note])
    if kind == 1:
        # Sizes that cannot be allocated are the machine's to refuse.
        content[note] = json.dumps(damage_value(described, chance)).encode()
        return
    content[weights] = damage_bytes(content[weights], chance)
    if chance.random() < 0.5:
        content[weights] = save({"a": torch.zeros(chance.randint(0, 3))})
    described["weights_sha256"] = hashlib.sha256(content[weights]).hexdigest()
    content[note] = json.dumps(described).encode()
