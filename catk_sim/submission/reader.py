"""Reading submissions, ours and others'."""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from google.protobuf.message import DecodeError

from catk_sim.datasets.distinct import is_first
from catk_sim.datasets.errors import DataError, fail, require_file
from catk_sim.datasets.scenario_dataset import ScenarioDataset
from catk_sim.datatypes import Scenario
from catk_sim.submission.metadata import SubmissionMetadata
from catk_sim.submission.rollouts import ScenarioRollouts, decode
from catk_sim.submission.schema import message_class

_SHARD_NAME = re.compile(r"(?P<stem>.*\.binproto)(?:-\d{5}(?:-of-(?P<count>\d{5}))?)?")
_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
_VARINT, _LENGTH_DELIMITED = 0, 2
_MAX_VARINT_BYTES = 10
_PIECE_BYTES = 2**20


class _Shard(NamedTuple):
    file: IO[bytes]
    size: int
    source: str


class _Field(NamedTuple):
    """A field of a message: its number, tag and length as they stand, and its content."""

    number: int
    head: bytes
    content: bytes


def read_submission(
    path: str | Path, metadata: SubmissionMetadata | None = None
) -> Iterator[ScenarioRollouts]:
    """Streams the scenarios of a submission, one at a time in memory.

    Whether the challenge would take them is another question: see `check_rollouts`.

    Args:
        path: A tar.gz archive, a folder of shards, or a single shard.
        metadata: If given, what every shard must say of itself.

    Raises:
        DataError: It is damaged or no submission, a shard is missing, a scenario comes twice, or
            the metadata differ.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    places: dict[str, str] = {}
    try:
        for shard in _shards(path):
            for rollouts in _read_shard(shard, metadata):
                is_first(rollouts.scenario_id, shard.source, places, fail)
                yield rollouts
    except _DAMAGE as error:
        raise DataError(f"the archive is damaged: {error}", str(path)) from error
    if not places:
        raise DataError("wanted at least one scenario, got none", str(path))


def submitted_scenarios(
    path: str | Path, scenarios: ScenarioDataset, metadata: SubmissionMetadata | None = None
) -> Iterator[tuple[Scenario, ScenarioRollouts]]:
    """Streams a submission, each scenario's rollouts with the scenario.

    Args:
        path: The submission. See `read_submission`.
        scenarios: What it is for.
        metadata: See `read_submission`.

    Raises:
        DataError: As `read_submission` does; also if it has not the same scenarios.
        FileNotFoundError: If there is no such file.
    """
    missing = {scenario_id: index for index, scenario_id in enumerate(scenarios.scenario_ids)}
    for rollouts in read_submission(path, metadata):
        if rollouts.scenario_id not in missing:
            raise DataError(f"scenario {rollouts.scenario_id!r} is not in the data", str(path))
        yield scenarios[missing.pop(rollouts.scenario_id)], rollouts
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise DataError(
            f"{len(missing)} of {len(scenarios)} scenarios of the data are missing: {some}",
            str(path),
        )


def _shards(path: Path) -> Iterator[_Shard]:
    if path.is_dir():
        return _shards_of_folder(path)
    require_file(path)
    with open(path, "rb") as file:
        is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return _shards_of_archive(path) if is_gzip else _open_shard(path)


def _shards_of_folder(folder: Path) -> Iterator[_Shard]:
    found = sorted(path for path in folder.iterdir() if _SHARD_NAME.fullmatch(path.name))
    _check_names([path.name for path in found], str(folder))
    for path in found:
        yield from _open_shard(path)


def _open_shard(path: Path) -> Iterator[_Shard]:
    with open(path, "rb") as file:
        yield _Shard(file, path.stat().st_size, str(path))


def _shards_of_archive(path: Path) -> Iterator[_Shard]:
    names = []
    with gzip.open(path) as packed:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and _SHARD_NAME.fullmatch(member.name):
                    names.append(member.name)
                    yield _Shard(file, member.size, f"{path}, {member.name}")
        # The checksum is compared at the end of the file, and the archive ends before that.
        while packed.read(_PIECE_BYTES):
            pass
    _check_names(names, str(path))


def _check_names(names: list[str], source: str) -> None:
    """Checks that there are shards, and all that their names tell of."""
    if not names:
        raise DataError(
            "found no shards: their names must be like submission.binproto-00000-of-00150", source
        )
    matches = [_SHARD_NAME.fullmatch(name) for name in names]
    for stem, count in sorted(
        {(match["stem"], match["count"] or "0") for match in matches if match}
    ):
        wanted = [f"{stem}-{number:05}-of-{count}" for number in range(int(count))]
        missing = sorted(set(wanted) - set(names))
        if missing:
            raise DataError(
                f"{len(missing)} of {count} shards are missing: {', '.join(missing[:3])}", source
            )


def _read_shard(shard: _Shard, metadata: SubmissionMetadata | None) -> Iterator[ScenarioRollouts]:
    submission = message_class("SimAgentsChallengeSubmission")
    number = submission.DESCRIPTOR.fields_by_name["scenario_rollouts"].number
    rest = bytearray()
    for field in _fields(shard):
        if field.number == number:
            yield decode(field.content, shard.source)
        else:
            rest += field.head + field.content
    try:
        found = submission.FromString(bytes(rest))
    except DecodeError as error:
        raise DataError(f"not a submission: {error}", shard.source) from error
    if metadata is not None:
        _check_metadata(found, metadata.message(), shard.source)


def _check_metadata(found: Any, wanted: Any, source: str) -> None:
    values = [{field.name: value for field, value in one.ListFields()} for one in (found, wanted)]
    for name in sorted(values[0].keys() | values[1].keys()):
        got, expected = (one.get(name) for one in values)
        if got != expected:
            raise DataError(f"wanted {name} to be {expected!r}, got {got!r}", source)


def _fields(shard: _Shard) -> Iterator[_Field]:
    """Splits the outermost message of a shard, without holding it whole."""
    while shard.file.tell() < shard.size:
        head = _varint(shard)
        number, wire_type = divmod(_value(head), 8)
        if wire_type == _LENGTH_DELIMITED:
            length = _varint(shard)
            yield _Field(number, head + length, _content(shard, _value(length)))
        elif wire_type == _VARINT:
            yield _Field(number, head, _varint(shard))
        else:
            raise DataError(
                f"not a submission, or damaged: there is a field of wire type {wire_type}",
                shard.source,
            )


def _content(shard: _Shard, length: int) -> bytes:
    left = shard.size - shard.file.tell()
    if length > left:
        raise DataError(
            f"not a submission, or truncated: a field has {length} bytes and {left} are left",
            shard.source,
        )
    return shard.file.read(length)


def _varint(shard: _Shard) -> bytes:
    """Reads a number of variable length as it stands: all but its last byte have the top bit."""
    read = b""
    while not read or read[-1] & 0x80:
        byte = shard.file.read(1)
        if not byte or len(read) == _MAX_VARINT_BYTES:
            raise DataError("not a submission, or truncated: a number does not end", shard.source)
        read += byte
    return read


def _value(varint: bytes) -> int:
    return sum((byte & 0x7F) << 7 * position for position, byte in enumerate(varint))
