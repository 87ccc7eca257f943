"""Policies by name."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from catk_sim.rollout import Policy
from policies.constant_velocity import ConstantVelocity
from policies.idm import IDM
from policies.log_replay import LogReplay
from policies.random_token import RandomToken

POLICIES: MappingProxyType[str, Callable[..., Policy[Any]]] = MappingProxyType(
    {
        "log_replay": LogReplay,
        "constant_velocity": ConstantVelocity,
        "idm": IDM,
        "random_token": RandomToken,
    }
)
"""What makes each policy."""


def make_policy(name: str, **kwargs: Any) -> Policy[Any]:
    """Makes a policy.

    Args:
        name: One of `POLICIES`.
        **kwargs: Arguments of that policy.

    Raises:
        ValueError: If there is no such policy.
    """
    if name not in POLICIES:
        raise ValueError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}")
    return POLICIES[name](**kwargs)
