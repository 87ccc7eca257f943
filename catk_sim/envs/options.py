"""What a reset can be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from catk_sim.datatypes import Scenario

_KNOWN = ("reset_mask", "scenario", "scenario_index")


@dataclass(frozen=True, kw_only=True)
class ResetOptions:
    """The options of `reset`, checked.

    Attributes:
        worlds: Which worlds are reset.
        scenarios: The scenario of every world, if they are given.
        indices: The place in the data of the scenario of every world, if it is given.
        batch: A batch of scenarios for all worlds, to be taken as it is.
    """

    worlds: tuple[int, ...]
    scenarios: Sequence[Scenario] | None = None
    indices: Sequence[int] | None = None
    batch: Scenario | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any] | None, num_worlds: int) -> "ResetOptions":
        """Checks the options of a vector environment.

        They are `reset_mask`, a boolean for each world; and either `scenario_index`, one number or
        one for each world, or `scenario`: one scenario, a sequence of them, or a batch.
        """
        options = options or {}
        unknown = sorted(set(options) - set(_KNOWN))
        if unknown:
            raise ValueError(f"reset takes the options {', '.join(_KNOWN)}, got {unknown}")
        if "scenario" in options and "scenario_index" in options:
            raise ValueError("reset takes scenario or scenario_index, got both")
        worlds = _worlds(options.get("reset_mask"), num_worlds)
        if "scenario_index" in options:
            return cls(worlds=worlds, indices=_indices(options["scenario_index"], num_worlds))
        if "scenario" not in options:
            return cls(worlds=worlds)
        scenario = options["scenario"]
        if _is_batch(scenario) and len(worlds) == num_worlds:
            _check_count(scenario.batch_size, num_worlds, "scenario")
            return cls(worlds=worlds, batch=scenario)
        return cls(worlds=worlds, scenarios=_scenarios(scenario, num_worlds))


def _worlds(mask: Any, num_worlds: int) -> tuple[int, ...]:
    if mask is None:
        return tuple(range(num_worlds))
    array = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
    if array.dtype != np.bool_ or array.shape != (num_worlds,) or not array.any():
        raise ValueError(
            f"reset_mask must be {num_worlds} booleans, of which at least one is true, got {mask}"
        )
    return tuple(int(world) for world in array.nonzero()[0])


def _indices(given: Any, num_worlds: int) -> Sequence[int]:
    array = np.asarray(given)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim > 1:
        raise ValueError(f"scenario_index must be one integer or one per world, got {given!r}")
    if array.ndim == 0:
        return [int(array)] * num_worlds
    _check_count(len(array), num_worlds, "scenario_index")
    return [int(index) for index in array]


def _scenarios(given: Any, num_worlds: int) -> Sequence[Scenario]:
    if isinstance(given, Scenario) and not _is_batch(given):
        return [given] * num_worlds
    members = (
        [given.select(index) for index in range(given.batch_size)]
        if isinstance(given, Scenario)
        else list(given)
    )
    _check_count(len(members), num_worlds, "scenario")
    return members


def _is_batch(scenario: Any) -> bool:
    if not isinstance(scenario, Scenario):
        return False
    num_dimensions = scenario.log.valid.dim() - 2
    if num_dimensions > 1:
        raise ValueError(f"scenario may have one batch dimension, got {num_dimensions}")
    return num_dimensions == 1


def _check_count(count: int, num_worlds: int, name: str) -> None:
    if count != num_worlds:
        raise ValueError(f"{name} must be given for each of {num_worlds} worlds, got {count}")
