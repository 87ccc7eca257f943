"""Tells what this installation can do, and what is missing for the rest.

python -m catk_sim.doctor
"""

import importlib
import os
import platform
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from catk_sim.command import DEBUG, run_command

OPTIONAL = {
    "stable_baselines3": ("rl", "train with PPO, drive with its policies"),
    "pettingzoo": ("pettingzoo", "have the multi-agent environment as PettingZoo does"),
    "pyarrow": ("parquet", "read Argoverse 2, write tables as Parquet"),
    "nbclient": ("notebooks", "run the notebooks"),
}
"""Modules that need not be there: the extra that brings each, and what it is for."""

WAYMO = "waymo-open-dataset-tf-2-12-0"


class Verdict(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    OPTIONAL = "optional"
    """Something is missing that not everybody needs."""
    BROKEN = "broken"
    """Something is missing without which the package does not work."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: What was looked at.
        verdict: How it is.
        detail: What there is, or what is missing and how to get it.
    """

    subject: str
    verdict: Verdict
    detail: str


def examine() -> list[Finding]:
    """Looks at this installation."""
    return [
        _found("catk-sim", lambda: f"{version('catk-sim')}, in {Path(__file__).parent}"),
        _found("Python", lambda: f"{platform.python_version()} on {platform.platform()}"),
        *_dependencies(),
        _found("processor", _processor),
        _found("accelerator", _accelerators),
        _found("environment", _environment),
        _found("film writer", _ffmpeg),
        _window(),
        _kernels(),
        *_extras(),
        _waymo(),
    ]


def _found(subject: str, look: Callable[[], str]) -> Finding:
    """Says what was found, or that looking failed: a doctor must not fall ill."""
    try:
        return Finding(subject=subject, verdict=Verdict.OK, detail=look())
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        return Finding(subject=subject, verdict=Verdict.BROKEN, detail=detail)


def _dependencies() -> Iterator[Finding]:
    """Yields the packages without which nothing works."""
    try:
        wanted = requires("catk-sim") or []
    except PackageNotFoundError:
        return
    for requirement in wanted:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement)[0]
        yield _found(name, partial(version, name))


def _processor() -> str:
    import torch

    return f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads of them"


def _accelerators() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none: everything runs on the processor"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; CUDA {torch.version.cuda}"


def _environment() -> str:
    import gymnasium

    import catk_sim  # noqa: F401 (registers it)

    envs = gymnasium.make_vec("CatK-Waymo-v0", num_envs=1, data="synthetic:1", controlled="sdc")
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    envs.close()
    return "CatK-Waymo-v0 makes a step on a generated scenario"


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def _window() -> Finding:
    """Opens a window, as `render_mode="human"` does, and closes it."""
    from catk_sim.visualization.window import Window

    subject = "window"
    try:
        Window("catk-sim", fps=10).close()
    except RuntimeError as error:
        return Finding(subject=subject, verdict=Verdict.OPTIONAL, detail=str(error))
    return Finding(
        subject=subject, verdict=Verdict.OK, detail='render_mode="human" finds a display'
    )


def _kernels() -> Finding:
    """Asks the policies, which the simulator does not know, for their kernels."""
    subject = "compiled kernels"
    try:
        native = importlib.import_module("policies.smart.native.library")
        verdict = Verdict.OPTIONAL if native.library() is None else Verdict.OK
        return Finding(
            subject=subject,
            verdict=verdict,
            detail=native.status().removeprefix("native kernels: "),
        )
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        return Finding(subject=subject, verdict=Verdict.BROKEN, detail=detail)


def _extras() -> Iterator[Finding]:
    for module, (extra, purpose) in OPTIONAL.items():
        if find_spec(module) is None:
            detail = f"not there: pip install 'catk-sim[{extra}]' to {purpose}"
            yield Finding(subject=module, verdict=Verdict.OPTIONAL, detail=detail)
        else:
            yield _found(module, partial(version, module.replace("_", "-")))


def _waymo() -> Finding:
    try:
        return Finding(subject=WAYMO, verdict=Verdict.OK, detail=version(WAYMO))
    except PackageNotFoundError:
        detail = f"not there: pip install --no-deps {WAYMO}==1.6.7 to test against Waymo's classes"
        return Finding(subject=WAYMO, verdict=Verdict.OPTIONAL, detail=detail)


def main(arguments: Sequence[str] = ()) -> int:
    """Prints the report; returns 1 if something is broken."""
    description, _ = (__doc__ or "").split("\n\n", maxsplit=1)
    parser = ArgumentParser(prog="python -m catk_sim.doctor", description=f"{description} {DEBUG}")
    parser.parse_args(arguments)
    findings = examine()
    styles = {Verdict.OK: "green", Verdict.OPTIONAL: "yellow", Verdict.BROKEN: "bold red"}
    table = Table("", "", Column(overflow="fold"), show_header=False, box=None, pad_edge=False)
    for finding in findings:
        table.add_row(
            finding.subject,
            f"[{styles[finding.verdict]}]{finding.verdict}[/]",
            escape(finding.detail),
        )
    console = Console()
    Console(width=max(console.width, 120), emoji=False).print(table)
    return int(any(finding.verdict == Verdict.BROKEN for finding in findings))


if __name__ == "__main__":
    sys.exit(run_command(main))
