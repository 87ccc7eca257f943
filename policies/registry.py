"""Policies by name."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from catk_sim.rollout import Policy
from policies.constant_velocity import ConstantVelocity
from policies.idm import IDM
from policies.log_replay import LogReplay
from policies.pretrained import smart_nano
from policies.random_token import RandomToken


def load_sb3(file: Path | str, *, deterministic: bool = True) -> Policy[Any]:
    """Reads a model of Stable-Baselines3. See `policies.sb3.load_policy`."""
    # Imported here, because Stable-Baselines3 is an extra.
    from policies.sb3 import load_policy

    return load_policy(file, deterministic=deterministic)


POLICIES: MappingProxyType[str, Callable[..., Policy[Any]]] = MappingProxyType(
    {
        "log_replay": LogReplay,
        "constant_velocity": ConstantVelocity,
        "idm": IDM,
        "random_token": RandomToken,
        "smart_nano": smart_nano,
    }
)
"""What makes each policy."""


def make_policy(name: str, **kwargs: Any) -> Policy[Any]:
    """Makes a policy.

    Args:
        name: One of `POLICIES`, or the file of a model of Stable-Baselines3, which ends in ".zip".
        **kwargs: Arguments of that policy.

    Raises:
        ValueError: If there is no such policy.
    """
    if name.endswith(".zip"):
        return load_sb3(name, **kwargs)
    if name not in POLICIES:
        raise ValueError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}")
    return POLICIES[name](**kwargs)
