"""The motion of a scene before anyone has observed it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from catk_sim.datatypes import AgentType


@dataclass(frozen=True, eq=False)
class Tracks:
    """True motion of all agents.

    Attributes:
        agent_id: A number for each agent that does not depend on the future.
        type: `AgentType` of each.
        size: Length, width, height (m).
        pose: x, y (m) and heading (rad) at each step.
        speed: Along the heading (m/s).
        present: Whether the agent is on the map at the step.
    """

    agent_id: Int[np.ndarray, " agents"]
    type: Int[np.ndarray, " agents"]
    size: Float[np.ndarray, "agents 3"]
    pose: Float[np.ndarray, "agents steps 3"]
    speed: Float[np.ndarray, "agents steps"]
    present: Bool[np.ndarray, "agents steps"]

    @property
    def is_vehicle(self) -> Bool[np.ndarray, " agents"]:
        """Whether each agent is a vehicle."""
        return self.type == AgentType.VEHICLE

    def take(self, rows: Int[np.ndarray, " taken"]) -> "Tracks":
        """Returns some of the agents."""
        return Tracks(
            self.agent_id[rows],
            self.type[rows],
            self.size[rows],
            self.pose[rows],
            self.speed[rows],
            self.present[rows],
        )


def overlapping_pairs(tracks: Tracks, margin: float = 0.0) -> Int[np.ndarray, "pairs 2"]:
    """Lists the pairs of agents (pairs, 2) whose boxes come within a margin (m) at some step."""
    present = tracks.present
    still = (tracks.pose == tracks.pose[:, :1]).all((1, 2)) & present.all(1)
    moving = np.flatnonzero(~still)
    # Most agents are parked cars, for which one step tells all.
    parked = np.flatnonzero(still)
    found = [
        _pairs_that_meet(tracks, parked, np.array([0]), margin),
        _pairs_that_meet(tracks, moving, np.arange(present.shape[1]), margin),
    ]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _pairs_that_meet(
    tracks: Tracks, rows: np.ndarray, steps: np.ndarray, margin: float
) -> np.ndarray:
    """Lists the pairs of some agents with any others whose boxes meet at some of the steps."""
    pose, size = tracks.pose[:, steps], tracks.size + margin
    reach = np.hypot(size[:, 0], size[:, 1]) / 2
    apart = pose[rows, None, :, :2] - pose[None, :, :, :2]
    near = (apart**2).sum(-1) < ((reach[rows, None] + reach[None]) ** 2)[..., None]
    near &= tracks.present[rows][:, None, steps] & tracks.present[None][:, :, steps]
    one, other, step = np.nonzero(near)
    one = rows[one]
    one, other, step = (each[one != other] for each in (one, other, step))
    meets = _boxes_meet(pose[one, step], size[one], pose[other, step], size[other])
    return np.stack([one[meets], other[meets]], axis=-1)


def _boxes_meet(
    pose: np.ndarray, size: np.ndarray, other_pose: np.ndarray, other_size: np.ndarray
) -> np.ndarray:
    """Applies the separating axis theorem to pairs of boxes."""
    separate = _separated_by_axes_of(pose, size, other_pose, other_size)
    return ~(separate | _separated_by_axes_of(other_pose, other_size, pose, size))


def _separated_by_axes_of(
    pose: np.ndarray, size: np.ndarray, other_pose: np.ndarray, other_size: np.ndarray
) -> np.ndarray:
    delta = other_pose[:, :2] - pose[:, :2]
    cosine, sine = np.cos(pose[:, 2]), np.sin(pose[:, 2])
    along = np.abs(delta[:, 0] * cosine + delta[:, 1] * sine)
    across = np.abs(-delta[:, 0] * sine + delta[:, 1] * cosine)
    turn = other_pose[:, 2] - pose[:, 2]
    c, s = np.abs(np.cos(turn)) / 2, np.abs(np.sin(turn)) / 2
    reach_along = size[:, 0] / 2 + other_size[:, 0] * c + other_size[:, 1] * s
    reach_across = size[:, 1] / 2 + other_size[:, 0] * s + other_size[:, 1] * c
    return (along > reach_along) | (across > reach_across)
