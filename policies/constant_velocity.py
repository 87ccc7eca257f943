"""Agents that go straight on."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from catk_sim.constants import STEP_SECONDS
from catk_sim.datatypes import Action, SimState, Trajectory
from catk_sim.dynamics import StateDynamics
from policies.memory import NoMemory


class ConstantVelocity:
    """Keeps velocity and heading: the linear baseline of WOSAC (arXiv:2305.12032)."""

    def __init__(self) -> None:
        self.dynamics = StateDynamics()

    def init(self, state: SimState) -> NoMemory:
        """Prepares nothing."""
        return NoMemory()

    def act(
        self, state: SimState, memory: NoMemory, generator: Generator | None
    ) -> tuple[Action, NoMemory]:
        """Moves every agent on by its velocity."""
        return Action(data=extrapolated(state.current), valid=state.controlled), memory


def extrapolated(now: Trajectory) -> Float[Tensor, "*batch agents 5"]:
    """Finds where agents are a step later if they keep their velocities, as states."""
    xy = now.xy + now.velocity * STEP_SECONDS
    return torch.cat([xy, now.heading[..., None], now.velocity], dim=-1)[..., 0, :]
