"""Writing the archive that the challenge takes."""

import gzip
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from catk_sim.datasets.whole_file import whole_file
from catk_sim.datatypes import Scenario
from catk_sim.submission.metadata import SubmissionMetadata
from catk_sim.submission.rollouts import ScenarioRollouts, check_rollouts, encode
from catk_sim.submission.schema import message_class

SUFFIX = ".tar.gz"
"""What the server wants the archive's name to end with."""

NUM_SHARDS = 150
"""Files in the archive: as many as WOMD's validation and test splits have."""

MAX_SHARD_BYTES = 2**31 - 1
"""A protocol buffer holds no more."""


def write_submission(
    path: str | Path,
    metadata: SubmissionMetadata,
    rollouts: Iterable[tuple[Scenario, ScenarioRollouts]],
    *,
    num_scenarios: int,
    num_shards: int = NUM_SHARDS,
) -> None:
    """Writes a submission, which appears whole or not at all.

    It holds one scenario at a time in memory, and one uncompressed shard on the disk, beside the
    archive. Equal rollouts make equal files.

    Args:
        path: The archive to make or to replace: a name that ends in ".tar.gz".
        metadata: What the submission says of itself; every shard does.
        rollouts: Each scenario of the split, not as a batch, with what is submitted for it.
        num_scenarios: How many there are. The challenge wants all of a split.
        num_shards: Files to spread them over; no more than there are scenarios.

    Raises:
        ValueError: The server would reject it: see `check_rollouts`. Also if an id comes twice, if
            there are not `num_scenarios`, or if a shard gets too large for a protocol buffer.
    """
    path = Path(path)
    check_archive_name(path)
    if num_scenarios < 1 or num_shards < 1:
        raise ValueError(
            f"wanted at least one scenario and one shard, got {num_scenarios} and {num_shards}"
        )
    num_shards = min(num_shards, num_scenarios)
    messages = _messages(rollouts, num_scenarios)
    # Every file has the same owner and time, and the archive no name, so that the bytes depend on
    # the content alone.
    with _archive(path) as archive:
        for shard in range(num_shards):
            size = (shard + 1) * num_scenarios // num_shards - shard * num_scenarios // num_shards
            name = f"submission.binproto-{shard:05}-of-{num_shards:05}"
            with tempfile.TemporaryFile(dir=path.parent) as file:
                _write_shard(file, name, islice(messages, size), metadata)
                member = tarfile.TarInfo(name)
                member.size = file.tell()
                file.seek(0)
                archive.addfile(member, file)
        # Notices scenarios beyond the last.
        next(messages, None)


def check_archive_name(path: Path) -> None:
    """Refuses a name that the server would not take."""
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"wanted an archive whose name ends in {SUFFIX}, got {path.name}")


@contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    with (
        whole_file(path) as unfinished,
        open(unfinished, "xb") as file,
        # Higher levels are slower and make these numbers no smaller.
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        yield archive


def _messages(
    rollouts: Iterable[tuple[Scenario, ScenarioRollouts]], num_scenarios: int
) -> Iterator[bytes]:
    seen: set[str] = set()
    for scenario, one in rollouts:
        check_rollouts(one, scenario)
        if one.scenario_id in seen:
            raise ValueError(f"scenario {one.scenario_id!r} comes twice")
        seen.add(one.scenario_id)
        if len(seen) > num_scenarios:
            raise ValueError(f"wanted {num_scenarios} scenarios, got more: {one.scenario_id!r}")
        yield encode(one)
    if len(seen) < num_scenarios:
        raise ValueError(f"wanted {num_scenarios} scenarios, got {len(seen)}")


def _write_shard(
    file: IO[bytes], name: str, messages: Iterable[bytes], metadata: SubmissionMetadata
) -> None:
    submission = message_class("SimAgentsChallengeSubmission")
    for message in messages:
        # Messages that are written one after the other are read as one, so that a shard need not
        # be in memory.
        file.write(submission(scenario_rollouts=[message]).SerializeToString())
    file.write(metadata.message().SerializeToString())
    if file.tell() > MAX_SHARD_BYTES:
        raise ValueError(
            f"{name} holds {file.tell()} bytes, and a protocol buffer at most {MAX_SHARD_BYTES}: "
            "use more shards"
        )
