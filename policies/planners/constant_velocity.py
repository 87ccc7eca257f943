"""A planner that goes straight on."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catk_sim.constants import STEP_SECONDS
from catk_sim.planning.planner import EgoHistory, PlannerContext, PlannerInput

HORIZON = 40
"""Steps that are planned."""


class ConstantVelocityPlanner:
    """Keeps velocity and heading, whatever is ahead."""

    name = "constant_velocity"
    requires_log = False

    def initialize(self, context: PlannerContext) -> None:
        """Prepares nothing."""

    def plan(self, input: PlannerInput) -> Float[ndarray, "steps 5"]:
        """Goes straight on."""
        return straight_on(input.ego, HORIZON)


def straight_on(ego: EgoHistory, num_steps: int) -> Float[ndarray, "steps 5"]:
    """Plans to keep velocity and heading, as positions, headings and velocities."""
    seconds = STEP_SECONDS * np.arange(1, num_steps + 1)[:, None]
    xy = ego.xy[-1] + seconds * ego.velocity[-1]
    rest = np.concatenate([ego.heading[-1:], ego.velocity[-1]])
    return np.concatenate([xy, np.tile(rest, (num_steps, 1))], axis=1)
