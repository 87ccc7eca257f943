"""A planner that does what the sdc did."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from catk_sim.constants import CURRENT_STEP
from catk_sim.planning.planner import PlannerContext, PlannerInput
from policies.planners.constant_velocity import straight_on


class LogReplayPlanner:
    """Replays the log, to the bit. Beyond its end it goes straight on.

    An oracle: it tells what a scenario's measures are for the logged drive.
    """

    name = "log_replay"
    requires_log = True

    def __init__(self) -> None:
        self._states: Float[ndarray, "steps 5"] = np.zeros((0, 5))

    def initialize(self, context: PlannerContext) -> None:
        """Reads where the sdc was, until it is seen no more."""
        if context.log is None:
            raise ValueError(f"{self.name} wants a context with the log, got one without")
        log, sdc = context.log.log, int(context.log.agents.sdc_index)
        future = log.slice(CURRENT_STEP, log.num_steps)
        states = torch.cat([future.xy, future.heading[..., None], future.velocity], dim=-1)[sdc]
        count = int(future.valid[sdc].cumprod(dim=0).sum())
        self._states = states[:count].double().numpy()

    def plan(self, input: PlannerInput) -> Float[ndarray, "steps 5"]:
        """Returns what is left of the log."""
        left = self._states[input.step + 1 :]
        return left if len(left) else straight_on(input.ego, 1)
