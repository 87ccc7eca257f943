"""Compiles the kernels when they are first needed, and loads them.

They are a second's work for the machine's C compiler, whose result is kept in the user's cache. So
there is nothing to install, and the kernels are made for the processor that they run on. Where
there is no compiler, torch does the same, slower, and a warning says so once.

Two environment variables: `CATK_SIM_NATIVE` is 0 to do without the kernels, or 1 to fail where they
are missing; `CATK_SIM_CACHE` is the folder that they are kept in, by default `catk_sim` in the
user's cache.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from catk_sim.command import UserError

POINTER = ctypes.c_void_p
"""A pointer into a tensor's memory."""

_SOURCES = Path(__file__).parent
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
# What one compiler calls the processor at hand another does not know.
_TARGETS = (("-march=native",), ("-mcpu=native",), ())


def pointers(*names: str) -> list[tuple[str, type[ctypes.c_void_p]]]:
    """Declares the pointers of a C structure."""
    return [(name, POINTER) for name in names]


class NativeKernelError(UserError):
    """The kernels cannot be compiled or loaded. Its message says why."""


def takes(tensor: Tensor) -> bool:
    """Tells whether the kernels work on tensors like this one, and whether there are kernels."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and library() is not None


def status() -> str:
    """Says in a line whether the kernels are used, and if not, why."""
    if _wish() == "0":
        return "native kernels: off, by CATK_SIM_NATIVE=0"
    try:
        return f"native kernels: {_build()}"
    except NativeKernelError as error:
        return f"native kernels: none, torch is used instead: {error}"


@cache
def library() -> ctypes.CDLL | None:
    """Returns the kernels, or None where they are not to be had or not wanted.

    Raises:
        NativeKernelError: If they are not to be had, and CATK_SIM_NATIVE=1 wants them.
    """
    wish = _wish()
    if wish == "0":
        return None
    try:
        return _load(_build())
    except NativeKernelError as error:
        if wish == "1":
            raise
        logging.getLogger(__name__).warning(
            "SMART runs without its native kernels, two to three times slower: %s", error
        )
        return None


def _wish() -> str:
    wish = os.environ.get("CATK_SIM_NATIVE", "")
    if wish not in ("", "0", "1"):
        raise ValueError(f"CATK_SIM_NATIVE must be 0, 1 or empty, got {wish!r}")
    return wish


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeKernelError(f"cannot load {path}: {error}") from error


def _build() -> Path:
    """Returns the compiled kernels; compiles them if nobody has with this compiler before."""
    compiler = _compiler()
    folder = _cache_folder()
    path = folder / f"smart-{_digest(compiler)}.so"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / path.name
            _compile(compiler, made)
            # Others may be compiling the same. Whoever is last replaces a file by its equal.
            made.replace(path)
    except OSError as error:
        raise NativeKernelError(f"cannot write to {folder}: {error}") from error
    return path


def _compile(compiler: list[str], path: Path) -> None:
    sources = sorted(str(source) for source in _SOURCES.glob("*.c"))
    complaint = ""
    for target in _TARGETS:
        command = [*compiler, *_FLAGS, *target, "-o", str(path), *sources, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        complaint = f"{shlex.join(command)} failed: {done.stderr.strip()}"
    raise NativeKernelError(complaint)


def _compiler() -> list[str]:
    wanted = os.environ.get("CC")
    if wanted:
        return shlex.split(wanted)
    for name in _COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise NativeKernelError(f"there is no C compiler: none of {', '.join(_COMPILERS)}, nor $CC")


def _cache_folder() -> Path:
    if folder := os.environ.get("CATK_SIM_CACHE"):
        return Path(folder)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "catk_sim"


def _digest(compiler: list[str]) -> str:
    """Names the result: another source, compiler or processor makes another."""
    try:
        version = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NativeKernelError(f"{shlex.join(compiler)} does not run: {error}") from error
    digest = hashlib.sha256()
    for source in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    for part in (*compiler, version, *_FLAGS, _processor()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Tells the kind of processor. A cache may be shared among machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "\n".join(
        dict.fromkeys(line for line in lines if line.startswith(wanted))
    )
