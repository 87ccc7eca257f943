"""What part of the world a picture shows."""

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from catk_sim.datatypes import Scenario

Follow: TypeAlias = int | Literal["scene", "sdc"]
"""What stays in the middle of a picture: the scene, the sdc, or the agent with an index."""

Point: TypeAlias = tuple[float, float]

_METRES_AROUND_AGENT = 80.0
_SMALLEST_SCENE = 40.0


class Framing:
    """Where the middle of a picture lies, and how far it reaches unless told otherwise.

    Attributes:
        metres: Sides of the picture (m): enough for every agent of the log, or 80 m around one.
    """

    metres: float

    def __init__(self, scenario: Scenario, follow: Follow) -> None:
        self._agent = None if follow == "scene" else _agent_index(scenario, follow)
        valid = (scenario.log.valid & scenario.agents.valid[:, None]).cpu().numpy()
        xy = scenario.log.xy.double().cpu().numpy()
        if self._agent is None:
            self._middle, self.metres = bounding_square(xy[valid])
        else:
            seen = np.flatnonzero(valid[self._agent])
            if len(seen) == 0:
                raise ValueError(f"cannot follow agent {self._agent}: the log never has it")
            self._middle, self.metres = _point(xy[self._agent, seen[0]]), _METRES_AROUND_AGENT

    def center(
        self, xy: Float[np.ndarray, "agents steps 2"], valid: Bool[np.ndarray, "agents steps"]
    ) -> Point:
        """The middle of the scene, or the last place of the agent that is followed (m).

        While the motion does not have that agent, this is where the log has it first.
        """
        if self._agent is None or not valid[self._agent].any():
            return self._middle
        return _point(xy[self._agent, np.flatnonzero(valid[self._agent])[-1]])


def bounding_square(points: Float[np.ndarray, "points 2"]) -> tuple[Point, float]:
    """Finds the middle and side (m) of an upright square around points, with some margin."""
    if len(points) == 0:
        return (0.0, 0.0), _METRES_AROUND_AGENT
    low, high = points.min(axis=0), points.max(axis=0)
    return _point((low + high) / 2), max(_SMALLEST_SCENE, 1.1 * float((high - low).max()))


def require_one_world(scenario: Scenario) -> None:
    """Refuses a batch: a picture shows one world.

    Raises:
        ValueError: The scenario has batch dimensions.
    """
    batch = tuple(scenario.log.valid.shape[:-2])
    if batch:
        raise ValueError(
            f"a picture shows one world, but these have the batch shape {batch}: "
            "take one of them with select(index)"
        )


def _agent_index(scenario: Scenario, follow: Follow) -> int:
    if follow == "sdc":
        marked = scenario.agents.is_sdc.nonzero()
        if len(marked) != 1:
            raise ValueError(f"to follow the sdc takes exactly one, the scenario has {len(marked)}")
        return int(marked)
    if not isinstance(follow, int):
        raise ValueError(f'follow must be "scene", "sdc" or the index of an agent, got {follow!r}')
    if not 0 <= follow < scenario.log.num_agents:
        raise IndexError(f"cannot follow agent {follow} of {scenario.log.num_agents}")
    return follow


def _point(xy: Float[np.ndarray, "2"]) -> Point:
    return float(xy[0]), float(xy[1])
