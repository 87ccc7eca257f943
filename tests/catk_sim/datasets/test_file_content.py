import gzip
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from catk_sim.datasets import file_content
from catk_sim.datasets.errors import DataError
from catk_sim.datasets.file_content import read_content, read_start

COMPRESS = [bytes, gzip.compress, lzma.compress]
CONTENT = bytes(range(256)) * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("compress", COMPRESS)
@pytest.mark.parametrize("content", [b"", b"a", CONTENT])
def test_the_content_decides_how_a_file_is_read(
    path: Path, compress: Callable[[bytes], bytes], content: bytes
) -> None:
    path.write_bytes(compress(content))
    assert read_content(path) == content
    assert read_start(path, 10) == content[:10]


@pytest.mark.parametrize("compress", COMPRESS[1:])
def test_joined_files_are_one(path: Path, compress: Callable[[bytes], bytes]) -> None:
    path.write_bytes(compress(b"one ") + compress(b"two"))
    assert read_content(path) == b"one two"


@pytest.mark.parametrize("compress", COMPRESS[1:])
@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_truncated_file_is_an_error(
    path: Path, compress: Callable[[bytes], bytes], cut: int
) -> None:
    path.write_bytes(compress(CONTENT)[:-cut])
    with pytest.raises(DataError, match="file: the compression is damaged"):
        read_content(path)


@pytest.mark.parametrize("start", [b"\x1f\x8bdamaged", b"\xfd7zXZ\x00damaged and more than that"])
def test_a_damaged_file_is_an_error_and_has_no_start(path: Path, start: bytes) -> None:
    path.write_bytes(start)
    with pytest.raises(DataError, match="file: the compression is damaged"):
        read_content(path)
    assert read_start(path, 10) == b""


@pytest.mark.parametrize("compress", COMPRESS)
def test_a_file_has_a_greatest_length(
    path: Path, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_content, "MAX_BYTES", 1000)
    path.write_bytes(compress(bytes(1000)))
    assert len(read_content(path)) == 1000
    path.write_bytes(compress(bytes(1001)))
    with pytest.raises(DataError, match="file: wanted at most 1000 bytes, decompressed"):
        read_content(path)


@pytest.mark.parametrize("compress", COMPRESS[1:])
def test_what_is_decompressed_is_bounded(
    path: Path, compress: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_content, "MAX_BYTES", 2**20)
    path.write_bytes(compress(bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(DataError, match="wanted at most"):
        read_content(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # xz keeps a dictionary of 8 MiB.
    assert peak_bytes < 2**25


def test_a_dictionary_that_takes_much_memory_is_refused(path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    path.write_bytes(lzma.compress(b"short", filters=filters))
    with pytest.raises(DataError, match="the compression is damaged: Memory usage limit"):
        read_content(path)
    assert read_start(path, 5) == b""


def test_the_strongest_compression_is_read(path: Path) -> None:
    path.write_bytes(lzma.compress(CONTENT, preset=9 | lzma.PRESET_EXTREME))
    assert read_content(path) == CONTENT


def test_the_start_of_a_long_file_is_read(path: Path) -> None:
    content = b"".join(number.to_bytes(4, "little") for number in range(300_000))
    for compress in COMPRESS:
        path.write_bytes(compress(content))
        assert read_start(path, 4096) == content[:4096]


def test_a_folder_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wanted a file, got a folder"):
        read_content(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        read_content(tmp_path / "absent")
