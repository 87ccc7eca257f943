"""Which format a file has, told by its content."""

import struct
from enum import StrEnum
from pathlib import Path

from catk_sim.datasets.file_content import read_start
from catk_sim.datasets.tfrecord import masked_crc32c

_START_BYTES = 4096
_GPUDRIVE_KEYS = (b'"objects"', b'"roads"', b'"tl_states"')
_SCENARIONET_KEYS = (b"version", b"length")
_SCENARIONET_PREFIX = "sd_"
"""How ScenarioNet names its logs. Its other pickles are lists of them."""


class FileFormat(StrEnum):
    """Formats of files that hold scenarios."""

    WOMD = "WOMD TFRecord"
    GPUDRIVE = "GPUDrive JSON"
    SCENARIONET = "ScenarioNet pickle"
    ARGOVERSE2 = "Argoverse 2 parquet"


def recognise_file(path: Path) -> FileFormat | None:
    """Tells which format a file has, or None if it is none that holds scenarios.

    A damaged file that bears the name of a format is taken for one, so that reading it fails
    instead of passing it over.
    """
    start = _decompressed_start(path)
    if _is_tfrecord(start):
        return FileFormat.WOMD
    if start.startswith(b"PAR1"):
        return FileFormat.ARGOVERSE2
    if _is_pickle(start):
        is_log = all(key in start for key in _SCENARIONET_KEYS)
        return FileFormat.SCENARIONET if is_log or _has_name_of_log(path) else None
    if start.lstrip()[:1] in (b"{", b"["):
        is_gpudrive = any(key in start for key in _GPUDRIVE_KEYS)
        return FileFormat.GPUDRIVE if is_gpudrive else None
    return _format_by_name(path)


def _format_by_name(path: Path) -> FileFormat | None:
    if "tfrecord" in path.name:
        return FileFormat.WOMD
    if _has_name_of_log(path):
        return FileFormat.SCENARIONET
    if path.suffix == ".parquet":
        return FileFormat.ARGOVERSE2
    return FileFormat.GPUDRIVE if ".json" in path.suffixes else None


def _has_name_of_log(path: Path) -> bool:
    return path.name.startswith(_SCENARIONET_PREFIX) and ".pkl" in path.suffixes


def _decompressed_start(path: Path) -> bytes:
    """Reads the first bytes of a file. Empty if it is damaged."""
    with open(path, "rb") as file:
        start = file.read(_START_BYTES)
    # A TFRecord whose first length looks like gzip's magic number is still a TFRecord.
    return start if _is_tfrecord(start) else read_start(path, _START_BYTES)


def _is_pickle(start: bytes) -> bool:
    """Tells whether this begins like a pickle of protocol 2 to 5."""
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _is_tfrecord(start: bytes) -> bool:
    if len(start) < 12:
        return False
    return struct.unpack_from("<I", start, 8)[0] == masked_crc32c(start[:8])
