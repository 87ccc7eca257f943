"""TFRecord files, without TensorFlow.

A file is a list of records. Each is framed as: length (uint64), masked crc32c of the length
(uint32), data, masked crc32c of the data (uint32), all little-endian. A file may be
gzip-compressed as a whole.
"""

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path

import google_crc32c

from catk_sim.datasets.errors import DataError, OnError, fail, require_file
from catk_sim.datasets.whole_file import whole_file

_LENGTH = struct.Struct("<Q")
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_RECORD_BYTES = 2**31 - 1  # A protocol buffer holds no more.
_PIECE_BYTES = 2**24


def read_records(path: str | Path, on_error: OnError = fail) -> Iterator[bytes]:
    """Streams the records of a file.

    Args:
        path: A TFRecord file, plain or gzip-compressed; its content tells which.
        on_error: What to do about damage. If it returns, a record with a wrong checksum is left
            out, and damage that hides where the next record starts ends the file.

    Raises:
        DataError: From `on_error`, if the file is damaged, empty or not a TFRecord.
        FileNotFoundError: If there is no such file.
    """
    for _, record in enumerate_records(path, on_error):
        yield record


def enumerate_records(path: str | Path, on_error: OnError = fail) -> Iterator[tuple[int, bytes]]:
    """Streams the records of a file with their numbers, counted from 0. See `read_records`."""
    path = Path(path)
    require_file(path)
    number = 0
    with gzip.GzipFile(path) if _is_gzip(path) else open(path, "rb") as file:
        while True:
            where = f"{path}, record {number} at byte {file.tell()}"
            try:
                header = _read(file, _HEADER.size, where)
                if not header:
                    break
                data, checksum = _read_body(file, header, where)
            except DataError as error:
                on_error(error)
                return
            if checksum == masked_crc32c(data):
                yield number, data
            else:
                on_error(DataError("the checksum of the record's data is wrong", where))
            number += 1
    if number == 0:
        on_error(DataError("wanted at least one record, got an empty file", str(path)))


def write_records(
    path: str | Path, records: Iterable[bytes], *, compress: bool | None = None
) -> None:
    """Writes a TFRecord file. It appears whole or not at all.

    Equal records make equal files, compressed ones too.

    Args:
        path: The file to make or to replace.
        records: At least one record.
        compress: Whether to compress with gzip; by default if the name ends in ".gz".
    """
    path = Path(path)
    compress = path.suffix == ".gz" if compress is None else compress
    with whole_file(path) as unfinished, open(unfinished, "xb") as file:
        if compress:
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
                count = _write(packed, records)
        else:
            count = _write(file, records)
        if not count:
            raise ValueError(f"{path}: wanted at least one record to write, got none")


def masked_crc32c(data: bytes) -> int:
    """Computes the checksum of TFRecord files: a crc32c, rotated and offset."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(_HEADER.size)
    # The length of a plain file's first record can look like gzip's magic number; then its
    # checksum tells.
    return start.startswith(_GZIP_MAGIC) and not _is_header(start)


def _is_header(header: bytes) -> bool:
    if len(header) < _HEADER.size:
        return False
    return _HEADER.unpack(header)[1] == masked_crc32c(header[: _LENGTH.size])


def _read_body(file: BufferedIOBase, header: bytes, where: str) -> tuple[bytes, int]:
    length = _check_header(header, where)
    data, checksum = _read(file, length, where), _read(file, _CHECKSUM.size, where)
    if len(checksum) < _CHECKSUM.size:
        raise DataError(
            f"the record is truncated: wanted {length + _CHECKSUM.size} bytes after its header, "
            f"got {len(data) + len(checksum)}",
            where,
        )
    return data, _CHECKSUM.unpack(checksum)[0]


def _check_header(header: bytes, where: str) -> int:
    if len(header) < _HEADER.size:
        raise DataError(
            f"the record is truncated: wanted a header of {_HEADER.size} bytes, got {len(header)}",
            where,
        )
    length = _LENGTH.unpack_from(header)[0]
    if not _is_header(header):
        raise DataError(
            f"the checksum of the record's length is wrong: not a TFRecord file, or damaged "
            f"(got {header!r})",
            where,
        )
    if length > _MAX_RECORD_BYTES:
        raise DataError(
            f"wanted a record of at most {_MAX_RECORD_BYTES} bytes, its header says {length}", where
        )
    return length


def _read(file: BufferedIOBase, size: int, where: str) -> bytes:
    """Reads up to `size` bytes, in pieces, so that a header that lies costs no memory."""
    pieces = []
    try:
        while size > 0 and (piece := file.read(min(size, _PIECE_BYTES))):
            pieces.append(piece)
            size -= len(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the gzip compression is damaged: {error}", where) from error
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write(file: BufferedIOBase, records: Iterable[bytes]) -> int:
    count = 0
    for data in records:
        count += 1  # enumerate leaves no count where there are no records.
        length = _LENGTH.pack(len(data))
        file.write(length + _CHECKSUM.pack(masked_crc32c(length)))
        file.write(data)
        file.write(_CHECKSUM.pack(masked_crc32c(data)))
    return count
