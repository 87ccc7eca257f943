"""Infos of many worlds as one dictionary, the way Gymnasium's vector environments lay it out.

Every key has a boolean companion, with an underscore before its name, that tells which worlds the
entry is of. Elsewhere the entry is zero, or None.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Info = dict[str, Any]


def with_masks(entries: Mapping[str, Any], worlds: np.ndarray) -> Info:
    """Lays out entries that only some worlds have. Nothing, if no world has them."""
    if not worlds.any():
        return {}
    everyone = bool(worlds.all())
    devices = {value.device for value in entries.values() if isinstance(value, Tensor)}
    masks = {device: _mask(worlds, everyone, device) for device in devices}
    info: Info = {}
    for name, value in entries.items():
        info[name] = value if everyone else _blank(value, worlds)
        info[f"_{name}"] = masks[value.device] if isinstance(value, Tensor) else worlds.copy()
    return info


def to_numpy(value: Any) -> Any:
    """Copies tensors to NumPy, within dictionaries too. The copies share no memory with them."""
    if isinstance(value, dict):
        return {name: to_numpy(entry) for name, entry in value.items()}
    return np.array(value.cpu().numpy()) if isinstance(value, Tensor) else value


def of_world(value: Any, world: int) -> Any:
    """Picks one world of an array, or of every array of a dictionary."""
    if isinstance(value, dict):
        return {name: of_world(entry, world) for name, entry in value.items()}
    return value[world]


def _blank(value: Any, worlds: np.ndarray) -> Any:
    if isinstance(value, Tensor):
        missing = torch.as_tensor(~worlds, device=value.device)
        return value.masked_fill(missing.reshape(-1, *(1,) * (value.dim() - 1)), 0)
    value = value.copy()
    value[~worlds] = None if value.dtype == object else 0
    return value


def _mask(worlds: np.ndarray, everyone: bool, device: torch.device) -> Tensor:
    if everyone:  # Made on the device, so that nobody waits for a copy.
        return torch.ones(len(worlds), dtype=torch.bool, device=device)
    return torch.as_tensor(worlds, device=device)
