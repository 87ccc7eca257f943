"""The state of a stage of training on disk, so that a killed run can go on."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from catk_sim.datasets.whole_file import whole_file
from trainers.optimizer import AdamW

STATE_FILE = "training_state.safetensors"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage is.

    Attributes:
        step: Optimiser steps taken.
        fingerprint: Identifies everything that the steps depend on. Another is refused.
    """

    step: int
    fingerprint: str


def save_training_state(
    folder: Path, model: nn.Module, optimizer: AdamW, progress: Progress
) -> None:
    """Saves weights, optimiser and step in one file, all or nothing.

    Random draws need no saving: each step seeds them from the run's seed and its own index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict().items():
        for name, value in state.items():
            tensors[f"optimizer.{index}.{name}"] = value
    metadata = {"step": str(progress.step), "fingerprint": progress.fingerprint}
    # Parameters that share memory cannot be saved by safetensors; clones can.
    clones = {name: value.detach().clone() for name, value in tensors.items()}
    with whole_file(folder / STATE_FILE) as unfinished:
        save_file(clones, unfinished, metadata)


def load_training_state(folder: Path, model: nn.Module, optimizer: AdamW, fingerprint: str) -> int:
    """Restores a stage and returns the number of steps it has taken; 0 if there is none.

    Raises:
        ValueError: The saved state belongs to another configuration, or is no training state.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Clones: the file's own tensors are windows on the disk.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if metadata.get("fingerprint") != fingerprint:
        raise ValueError(
            f"{path} belongs to a run with other settings: wanted fingerprint {fingerprint}, "
            f"got {metadata.get('fingerprint')}. Choose another output folder, or the old settings"
        )
    model.load_state_dict(_below("model", tensors))
    _load_optimizer(optimizer, _below("optimizer", tensors))
    return int(metadata["step"])


def _load_optimizer(optimizer: AdamW, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = prefix + "."
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def fingerprint_of(*parts: object) -> str:
    """Digests settings into a short text."""
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()[:16]
