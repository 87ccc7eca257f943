"""Kills commands at random moments, and has them finish: `python -m tests.kills --moments 20`.

A command that was killed and is started again must end as one that ran through, to the byte.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command and what it leaves behind.

    Attributes:
        arguments: What follows `python -m`; `{folder}` is where it may write.
        results: Patterns of the files that must be the same each time.
        marker: A file that it leaves where it has begun.
        again: Further arguments for one that has begun and is to go on.
    """

    arguments: tuple[str, ...]
    results: tuple[str, ...]
    marker: str = ""
    again: tuple[str, ...] = ()


COMMANDS = {
    "prepare": Command(
        arguments=("catk_sim.datasets.prepare", "synthetic:24", "{folder}/cache"),
        results=("cache/**/*",),
    ),
    "training": Command(
        arguments=(
            *("trainers.catk", "debug", "--output", "{folder}/run", "--cache", "{folder}/cache"),
            *("--data", "synthetic:4", "--model.hidden-dim", "16", "--model.num-agent-layers", "1"),
            *("--model.map-agent-radius", "8", "--rollouts.num-rollouts", "1"),
            *("--bc.save-every", "1", "--catk.save-every", "1"),
        ),
        results=("run/bc/model.safetensors", "run/catk/model.safetensors", "run/metrics.json"),
        marker="run/config.json",
        again=("--resume",),
    ),
    "evaluation": Command(
        arguments=(
            *("trainers.evaluate", "random_token", "idm", "--data", "synthetic:4"),
            *("--cache", "{folder}/cache", "--output", "{folder}/evaluation"),
            *("--rollouts.num-rollouts", "2", "--rollouts.batch-size", "2"),
        ),
        results=("evaluation/metrics.json",),
    ),
}


class KillError(AssertionError):
    """A command did not end as one that was not killed."""


def start(command: Command, folder: Path) -> subprocess.Popen[str]:
    """Starts a command in a process group of its own."""
    arguments = [argument.format(folder=folder) for argument in command.arguments]
    if command.marker and (folder / command.marker).exists():
        arguments += command.again
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(command: Command, folder: Path) -> float:
    """Runs a command to its end; returns how long it took (s)."""
    begin = time.monotonic()
    process = start(command, folder)
    _, errors = process.communicate(timeout=3600)
    if process.returncode:
        raise KillError(f"{command.arguments[0]} ended with {process.returncode}:\n{errors}")
    return time.monotonic() - begin


def kill(command: Command, folder: Path, after: float) -> bool:
    """Starts a command and kills it after some seconds; returns whether it still ran."""
    process = start(command, folder)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def digests(command: Command, folder: Path) -> dict[str, str]:
    """Tells what a command left behind."""
    files = sorted({path for pattern in command.results for path in folder.glob(pattern)})
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
    if not found:
        raise KillError(f"{command.arguments[0]} left nothing behind")
    return found


def check(name: str, *, moments: int, seed: int) -> int:
    """Kills a command at random moments, each time in a new folder; returns how often it ran yet.

    Raises:
        KillError: It did not end as one that was not killed.
    """
    command, random_moment = COMMANDS[name], random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        seconds = finish(command, whole)
        expected, killed = digests(command, whole), 0
        for moment in range(moments):
            folder = Path(scratch) / str(moment)
            after = random_moment.uniform(0, seconds)
            killed += kill(command, folder, after)
            finish(command, folder)
            got = digests(command, folder)
            if got != expected:
                odd = sorted(set(got.items()) ^ set(expected.items()))
                raise KillError(f"{name}, killed after {after:.2f} s, differs in {odd}")
    return killed


def main() -> None:
    """Kills all commands, and says how often they were still running."""
    parser = argparse.ArgumentParser(description="Kills commands, and has them finish.")
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), metavar="|".join(COMMANDS))
    arguments = parser.parse_args()
    for name in arguments.commands:
        killed = check(name, moments=arguments.moments, seed=arguments.seed)
        sys.stdout.write(f"{name}: same result after each of {arguments.moments} kills, ")
        sys.stdout.write(f"{killed} of them before its end\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
