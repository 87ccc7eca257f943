"""Trained policies that ship with the package. README.md tells how they were made."""

from pathlib import Path
from types import MappingProxyType

import torch

from policies.checkpoint import load_checkpoint
from policies.smart.policy import Sampler, SMARTPolicy

PRETRAINED: MappingProxyType[str, Path] = MappingProxyType(
    {"smart_nano": Path(__file__).parent / "smart_nano"}
)
"""The checkpoint of each, by name."""


def smart_nano(
    *, device: torch.device | str = "cpu", sampler: Sampler | None = None
) -> SMARTPolicy:
    """Makes the SMART nano that was trained on generated scenarios.

    Args:
        device: Where it computes.
        sampler: Chooses among the tokens. See `SMARTPolicy`.
    """
    model = load_checkpoint(PRETRAINED["smart_nano"]).to(device)
    return SMARTPolicy(model, model.vocabulary, sampler)


def folder_of(name: Path | str) -> Path:
    """Returns the folder of a checkpoint that ships, by its name, or any other as it is."""
    path = Path(name)
    return path if path.is_dir() else PRETRAINED.get(str(name), path)
