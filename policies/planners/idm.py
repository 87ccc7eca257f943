"""A planner that follows its route by the intelligent driver model."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catk_sim.planning.planner import PlannerContext, PlannerInput
from policies.idm import IDM
from policies.planners.route_following import Wishes, simulate
from policies.planners.situation import Observer

HORIZON = 20
"""Steps that are planned."""


class IDMPlanner:
    """Drives along the centre of its route, behind whoever is ahead.

    Args:
        idm: The intelligent driver model.
    """

    name = "idm"
    requires_log = False

    def __init__(self, idm: IDM | None = None) -> None:
        self._idm = IDM() if idm is None else idm

    def initialize(self, context: PlannerContext) -> None:
        """Reads the route."""
        self._observer = Observer(context, num_steps=HORIZON, idm=self._idm)

    def plan(self, input: PlannerInput) -> Float[ndarray, "steps 5"]:
        """Simulates a driver who keeps to the centre."""
        situation = self._observer.look(input)
        wishes = Wishes(
            offset=np.zeros(1), speed=situation.limit[None], max_acceleration=np.full(1, np.inf)
        )
        return simulate(situation, wishes, self._idm).plan(0).double().numpy()
