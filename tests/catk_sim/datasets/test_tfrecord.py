import contextlib
import gzip
import random
import struct
import tracemalloc
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catk_sim.datasets.errors import DataError
from catk_sim.datasets.tfrecord import (
    enumerate_records,
    masked_crc32c,
    read_records,
    write_records,
)
from tests.shared import shared_path

RECORDS = [b"first", b"", b"\x00" * 100, bytes(range(256))]
HEADER_BYTES, FOOTER_BYTES = 12, 4

# The file is overwritten by each example, so that they do not depend on each other.
on_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.tfrecord"
    write_records(path, RECORDS)
    return path


def frame(data: bytes, length: int | None = None) -> bytes:
    """Frames a record by the definition of the format. The length may lie."""
    header = struct.pack("<Q", len(data) if length is None else length)
    return (
        header
        + struct.pack("<I", masked_crc32c(header))
        + data
        + struct.pack("<I", masked_crc32c(data))
    )


def test_the_checksum_is_that_of_the_format() -> None:
    # crc32c of "123456789" is the check value of the algorithm's definition.
    crc = 0xE3069283
    assert google_crc32c.value(b"123456789") == crc
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_a_file_is_its_framed_records(path: Path) -> None:
    assert path.read_bytes() == b"".join(frame(record) for record in RECORDS)


@on_one_file
@given(st.lists(st.binary(max_size=300), min_size=1), st.booleans())
def test_what_was_written_is_read(tmp_path: Path, records: list[bytes], compress: bool) -> None:
    write_records(tmp_path / "file", records, compress=compress)
    assert list(read_records(tmp_path / "file")) == records


def test_a_waymo_file_is_rewritten_byte_for_byte(tmp_path: Path) -> None:
    original = shared_path("data/womd_scenario_proto/motion_data_one_scenario.tfrecord")
    write_records(tmp_path / "copy", read_records(original))
    assert (tmp_path / "copy").read_bytes() == original.read_bytes()


def test_records_are_numbered_from_0(path: Path) -> None:
    assert [number for number, _ in enumerate_records(path)] == [0, 1, 2, 3]


def test_the_name_decides_whether_a_file_is_compressed(tmp_path: Path) -> None:
    write_records(tmp_path / "some.tfrecord.gz", RECORDS)
    assert gzip.decompress((tmp_path / "some.tfrecord.gz").read_bytes()).startswith(frame(b"first"))


def test_the_content_decides_how_a_file_is_read(path: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "compressed.tfrecord"
    disguised.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_records(disguised)) == RECORDS
    plain = path.rename(tmp_path / "plain.gz")
    assert list(read_records(plain)) == RECORDS


def test_a_plain_file_whose_length_looks_like_gzip_is_read(tmp_path: Path) -> None:
    record = bytes(0x8B1F)  # Its length is written 1f 8b 00 ..., and gzip's magic is 1f 8b.
    write_records(tmp_path / "file", [record])
    assert (tmp_path / "file").read_bytes().startswith(b"\x1f\x8b")
    assert list(read_records(tmp_path / "file")) == [record]


def test_equal_records_make_equal_compressed_files(tmp_path: Path) -> None:
    write_records(tmp_path / "one.gz", RECORDS)
    write_records(tmp_path / "another.gz", RECORDS)
    content = (tmp_path / "one.gz").read_bytes()
    assert content == (tmp_path / "another.gz").read_bytes()
    assert content[4:8] == bytes(4)  # The time of writing.


def test_reading_streams(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"damage")
    assert next(read_records(path)) == b"first"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_records(path, (b"%d" % (1 // k) for k in (1, 0)))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_writing_no_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one record"):
        write_records(tmp_path / "file", [])
    assert not list(tmp_path.iterdir())


def test_an_empty_file_is_an_error(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(DataError, match="wanted at least one record, got an empty file"):
        list(read_records(path))


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        list(read_records(tmp_path / "absent"))


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wanted a file, got a folder"):
        list(read_records(tmp_path))


@pytest.mark.parametrize("cut", [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 7])
def test_a_truncated_record_is_named(path: Path, cut: int) -> None:
    second = len(frame(b"first"))
    third = second + len(frame(b""))
    path.write_bytes(path.read_bytes()[: third + cut])
    with pytest.raises(DataError, match=f"some.tfrecord, record 2 at byte {third}: .*truncated"):
        list(read_records(path))


def test_a_truncated_compressed_file_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(frame(random.Random(0).randbytes(100_000)))
    (tmp_path / "file").write_bytes(packed[:-50_000])
    with pytest.raises(DataError, match=r"record 0 at byte 0: the gzip compression is damaged"):
        list(read_records(tmp_path / "file"))


def test_a_file_of_another_kind_is_an_error(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(DataError, match=r"record 0 at byte 0: .*not a TFRecord file.*<!DOCTYPE"):
        list(read_records(path))


@pytest.mark.parametrize("length", [2**31, 2**62, 2**64 - 1])
def test_a_record_that_no_proto_can_fill_is_an_error(path: Path, length: int) -> None:
    path.write_bytes(frame(b"short", length=length))
    with pytest.raises(DataError, match=f"at most {2**31 - 1} bytes, its header says {length}"):
        list(read_records(path))


@pytest.mark.parametrize("compress", [False, True])
def test_a_length_that_lies_costs_no_memory(path: Path, compress: bool) -> None:
    content = frame(b"short", length=2**31 - 1)
    path.write_bytes(gzip.compress(content) if compress else content)
    tracemalloc.start()
    with pytest.raises(DataError, match=f"wanted {2**31 + 3} bytes after its header, got 9"):
        list(read_records(path))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2**26


def test_a_wrong_data_checksum_is_an_error(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"record 0 at byte 0: the checksum of the record's data"):
        list(read_records(path))


def test_who_handles_errors_gets_the_records_around_the_bad_one(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES] ^= 1
    path.write_bytes(content)
    errors: list[DataError] = []
    assert list(enumerate_records(path, errors.append)) == list(enumerate(RECORDS))[1:]
    assert len(errors) == 1


def test_who_handles_errors_gets_the_records_before_a_bad_length(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(frame(b"first"))] ^= 1
    path.write_bytes(content)
    errors: list[DataError] = []
    assert list(read_records(path, errors.append)) == RECORDS[:1]
    assert len(errors) == 1


@on_one_file
@given(st.binary(max_size=100), st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08", frame(b"a")]))
def test_random_bytes_are_at_worst_a_data_error(
    tmp_path: Path, content: bytes, start: bytes
) -> None:
    (tmp_path / "file").write_bytes(start + content)
    with contextlib.suppress(DataError):
        list(read_records(tmp_path / "file"))


@on_one_file
@given(bit=st.integers(min_value=0), compress=st.booleans())
def test_a_flipped_bit_never_goes_unnoticed(tmp_path: Path, bit: int, compress: bool) -> None:
    path = tmp_path / "file"
    write_records(path, RECORDS, compress=compress)
    content = bytearray(path.read_bytes())
    bit %= 8 * len(content)
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        records = list(read_records(path))
    except DataError:
        return
    # Only gzip's own header has bits that mean nothing: name, time, system.
    assert compress
    assert records == RECORDS
