"""Whole files, plain or compressed, within bounds: a small file may claim to be huge."""

import gzip
import io
import lzma
import zlib
from pathlib import Path

from catk_sim.datasets.errors import DataError, require_file

MAX_BYTES = 2**28
"""How long a file may be, decompressed. A scenario takes a few million bytes."""

_MAX_LZMA_BYTES = 2**27
"""Memory that xz may take to decompress: twice what its strongest setting needs."""

_DAMAGE = (EOFError, OSError, lzma.LZMAError, zlib.error)


def read_content(path: str | Path) -> bytes:
    """Reads a file, and decompresses it if it is compressed with gzip or xz.

    Raises:
        DataError: If the compression is damaged, or there is more than `MAX_BYTES`.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    require_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise _too_long(path)
    try:
        content = decompressed_start(path.read_bytes(), MAX_BYTES + 1)
    except _DAMAGE as error:
        raise DataError(f"the compression is damaged: {error}", str(path)) from error
    if len(content) > MAX_BYTES:
        raise _too_long(path)
    return content


def read_start(path: Path, length: int) -> bytes:
    """Reads the first bytes of a file, decompressed. Empty if they cannot be."""
    with open(path, "rb") as file:
        # Compressed data must be longer than what comes of it by a block that is not compressible.
        packed = file.read(length + 2**16)
    try:
        return decompressed_start(packed, length, whole=False)
    except _DAMAGE:
        return b""


def decompressed_start(data: bytes, length: int, *, whole: bool = True) -> bytes:
    """Decompresses what is compressed with gzip or xz, up to a length; other data is cut to it.

    Args:
        data: A file, or its start.
        length: Bytes to return at most.
        whole: Whether data that ends too early is an error.

    Raises:
        EOFError, OSError, lzma.LZMAError, zlib.error: If the data is damaged.
    """
    if data.startswith(b"\x1f\x8b"):
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(length) if whole else file.read1(length)
    if data.startswith(b"\xfd7zXZ\x00"):
        return _decompress_xz(data, length, whole)
    return data[:length]


def _decompress_xz(data: bytes, length: int, whole: bool) -> bytes:
    pieces: list[bytes] = []
    while data and length > 0:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_LZMA_BYTES)
        pieces.append(stream.decompress(data, length))
        length -= len(pieces[-1])
        if whole and length > 0 and not stream.eof:
            raise EOFError("it ends too early")
        # Between streams xz allows padding with zeros.
        data = stream.unused_data.lstrip(b"\x00") if stream.eof else b""
    return b"".join(pieces)


def _too_long(path: Path) -> DataError:
    return DataError(f"wanted at most {MAX_BYTES} bytes, decompressed", str(path))
