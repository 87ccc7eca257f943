"""One file of a cache: parsed scenarios, memory-mapped and without pickle.

A shard is a safetensors file. It holds each tensor of its scenarios end to end, in the smallest
dtype that loses nothing, and a header with the scenarios' ids, sizes and checksums. Equal scenarios
make equal bytes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import google_crc32c
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from catk_sim.datasets.errors import DataError, require_file
from catk_sim.datasets.schema import Leaf, ScenarioSize, build, leaves, size_of
from catk_sim.datasets.whole_file import whole_file
from catk_sim.datatypes import Scenario

FORMAT = "catk_sim scenarios"
VERSION = 1

_WANTED = f"wanted a shard of {FORMAT}, version {VERSION}"
_LEAVES = leaves(Scenario)
_INT_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def write_shard(path: str | Path, scenarios: Sequence[Scenario]) -> None:
    """Writes scenarios to a shard. It appears whole or not at all.

    Raises:
        ValueError: If there is no scenario, if one is a batch, or if they differ in dtype.
    """
    if not scenarios:
        raise ValueError("a shard needs at least one scenario, got none")
    stored = {leaf.name: _join(leaf, scenarios) for leaf in _LEAVES}
    header = _Header(
        format=FORMAT,
        version=VERSION,
        dtypes={leaf.name: _dtype_name(leaf.of(scenarios[0])) for leaf in _LEAVES},
        sizes=[list(size_of(scenario)) for scenario in scenarios],
        scenario_id=[list(scenario.scenario_id) for scenario in scenarios],
        lacks=[list(scenario.lacks) for scenario in scenarios],
        crc32c=[],
    )
    rows = _Rows(header, stored)
    header.crc32c.extend(rows.checksum(row) for row in range(len(scenarios)))
    # One entry only: safetensors writes several in random order.
    metadata = {"header": json.dumps(asdict(header), separators=(",", ":"))}
    with whole_file(path) as unfinished:
        unfinished.write_bytes(save(stored, metadata))


class Shard:
    """An open shard. Its tensors are mapped into memory and read when they are asked for.

    Args:
        path: A file made by `write_shard`.

    Raises:
        DataError: If the file is not a shard, of another version, or damaged.
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_file(self.path)
        try:
            with safe_open(self.path, framework="pt") as file:
                header = _parse_header((file.metadata() or {}).get("header", "null"))
                stored = {leaf.name: file.get_tensor(leaf.name) for leaf in _LEAVES}
            self._rows = _Rows(header, stored)
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{_WANTED}: {error}", str(self.path)) from error
        self.sizes = [ScenarioSize(*size) for size in header.sizes]
        self.ids = [labels[0] for labels in header.scenario_id]

    def __len__(self) -> int:
        return len(self.sizes)

    def read(self, row: int, dtype: torch.dtype | None = None) -> Scenario:
        """Reads a scenario as it was written, or with its floating tensors in another dtype.

        Raises:
            DataError: If what is stored is not what was written.
        """
        header = self._rows.header
        if self._rows.checksum(row) != header.crc32c[row]:
            raise DataError("the checksum is wrong: damaged", f"{self.path}, scenario {row}")

        def tensor(leaf: Leaf) -> Tensor:
            wanted: torch.dtype = getattr(torch, header.dtypes[leaf.name])
            if dtype is not None and wanted.is_floating_point:
                wanted = dtype
            # A copy: what is mapped must neither be kept alive by a scenario nor shared with it.
            return self._rows.tensor(leaf, row).to(wanted, copy=True)

        def label(name: str) -> tuple[str, ...]:
            return tuple(getattr(header, name)[row])

        return build(Scenario, tensor, label)


def read_lacks(path: str | Path) -> list[str]:
    """Tells what the source of each scenario of a shard did not. Only the header is read.

    Raises:
        DataError: If the file is not a shard, of another version, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = _parse_header((file.metadata() or {}).get("header", "null"))
        return [labels[0] for labels in header.lacks]
    except (SafetensorError, ValueError, TypeError, KeyError, IndexError) as error:
        raise DataError(f"{_WANTED}: {error}", str(path)) from error


@dataclass(frozen=True)
class _Header:
    format: str
    version: int
    dtypes: dict[str, str]
    """Dtype that each tensor had before it was stored."""
    sizes: list[list[int]]
    scenario_id: list[list[str]]
    lacks: list[list[str]]
    crc32c: list[int]


class _Rows:
    """The tensors of a shard, addressed by scenario."""

    def __init__(self, header: _Header, stored: dict[str, Tensor]) -> None:
        self.header = header
        sizes = [ScenarioSize(*size) for size in header.sizes]
        # Slicing is several times faster in numpy.
        self._stored: dict[str, NDArray[Any]] = {}
        self._shapes: dict[str, list[tuple[int, ...]]] = {}
        self._ends: dict[str, list[int]] = {}
        for leaf in _LEAVES:
            shapes = [leaf.shape(size) for size in sizes]
            ends = list(accumulate(map(math.prod, shapes), initial=0))
            if stored[leaf.name].shape != (ends[-1],):
                shape = tuple(stored[leaf.name].shape)
                raise ValueError(f"{leaf.name} has shape {shape}, its scenarios have {ends[-1]}")
            self._stored[leaf.name] = stored[leaf.name].numpy()
            self._shapes[leaf.name] = shapes
            self._ends[leaf.name] = ends

    def tensor(self, leaf: Leaf, row: int) -> Tensor:
        return torch.from_numpy(self._flat(leaf, row)).view(self._shapes[leaf.name][row])

    def checksum(self, row: int) -> int:
        """Computes the checksum over all that is known of a scenario."""
        header = self.header
        stored_dtypes = [self._stored[leaf.name].dtype.str for leaf in _LEAVES]
        known = [header.dtypes, stored_dtypes, header.sizes[row]]
        known += [header.scenario_id[row], header.lacks[row]]
        crc = google_crc32c.value(json.dumps(known).encode())
        for leaf in _LEAVES:
            # It reads any buffer, though it is annotated for bytes alone.
            crc = google_crc32c.extend(crc, cast(bytes, self._flat(leaf, row)))
        return crc

    def _flat(self, leaf: Leaf, row: int) -> NDArray[Any]:
        ends = self._ends[leaf.name]
        return self._stored[leaf.name][ends[row] : ends[row + 1]]


def _join(leaf: Leaf, scenarios: Sequence[Scenario]) -> Tensor:
    """Puts a tensor of all scenarios end to end, in the smallest dtype that loses nothing."""
    tensors = [leaf.of(scenario) for scenario in scenarios]
    for tensor in tensors:
        if tensor.ndim != len(leaf.dimensions):
            raise ValueError(f"{leaf.name} has shape {tuple(tensor.shape)}, not {leaf.dimensions}")
        if tensor.dtype != tensors[0].dtype:
            raise ValueError(f"{leaf.name} is both {tensors[0].dtype} and {tensor.dtype}")
    flat = torch.cat([tensor.detach().cpu().reshape(-1) for tensor in tensors])
    if flat.dtype == torch.bool:
        return flat
    return _as_float(flat) if flat.is_floating_point() else _as_int(flat)


def _as_float(flat: Tensor) -> Tensor:
    if flat.dtype != torch.float64:
        return flat
    narrow = flat.to(torch.float32)
    # Bit by bit, so that -0.0 and NaN come back too.
    lossless = torch.equal(narrow.to(torch.float64).view(torch.int64), flat.view(torch.int64))
    return narrow if lossless else flat


def _as_int(flat: Tensor) -> Tensor:
    low, high = (int(end) for end in flat.aminmax()) if len(flat) else (0, 0)
    fitting = (
        dtype
        for dtype in _INT_DTYPES
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max
    )
    return flat.to(next(fitting))


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _parse_header(text: str) -> _Header:
    fields = json.loads(text)
    check_version(fields)
    header = _Header(**fields)
    columns = [header.sizes, header.scenario_id, header.lacks, header.crc32c]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"its columns have {[len(column) for column in columns]} entries")
    return header


def check_version(fields: Any) -> None:
    """Checks what a header or an index says about its own format."""
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError("it has another format")
    if fields.get("version") != VERSION:
        raise ValueError(f"it has version {fields.get('version')}")
