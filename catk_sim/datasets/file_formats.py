"""Which format a file has, told by its content."""

import gzip
import lzma
import struct
import zlib
from enum import StrEnum
from pathlib import Path

from catk_sim.datasets.tfrecord import masked_crc32c

_START_BYTES = 4096
_GPUDRIVE_KEYS = (b'"objects"', b'"roads"', b'"tl_states"')


class FileFormat(StrEnum):
    """Formats of files that hold scenarios."""

    WOMD = "WOMD TFRecord"
    GPUDRIVE = "GPUDrive JSON"


def recognise_file(path: Path) -> FileFormat | None:
    """Tells which format a file has, or None if it is none that holds scenarios.

    A damaged file that bears the name of a format is taken for one, so that reading it fails
    instead of passing it over.
    """
    start = _decompressed_start(path)
    if _is_tfrecord(start):
        return FileFormat.WOMD
    is_json = start.lstrip()[:1] in (b"{", b"[")
    if is_json:
        is_gpudrive = any(key in start for key in _GPUDRIVE_KEYS)
        return FileFormat.GPUDRIVE if is_gpudrive else None
    if "tfrecord" in path.name:
        return FileFormat.WOMD
    return FileFormat.GPUDRIVE if ".json" in path.suffixes else None


def _decompressed_start(path: Path) -> bytes:
    """Reads the first bytes of a file. Empty if it is damaged."""
    with open(path, "rb") as file:
        start = file.read(_START_BYTES)
    # A TFRecord whose first length looks like gzip's magic number is still a TFRecord.
    if _is_tfrecord(start):
        return start
    try:
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as file:
                return file.read(_START_BYTES)
        if start.startswith(b"\xfd7zXZ\x00"):
            with lzma.open(path) as file:
                return file.read(_START_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""
    return start


def _is_tfrecord(start: bytes) -> bool:
    if len(start) < 12:
        return False
    return struct.unpack_from("<I", start, 8)[0] == masked_crc32c(start[:8])
