"""A planner that simulates drives along its route and takes the best."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catk_sim.constants import STEP_SECONDS
from catk_sim.metrics.road_edges import RoadEdges
from catk_sim.planning.planner import PlannerContext, PlannerInput
from policies.idm import IDM
from policies.planners.route_following import Wishes, simulate
from policies.planners.scoring import score
from policies.planners.situation import Observer

HORIZON = 40
"""Steps that are simulated."""

OFFSETS = (0.0, -1.0, 1.0)
"""Where to drive, to the left of the route's centre (m). Of equals, the first."""

SPEEDS = (1.0, 0.8, 0.6, 0.4, 0.2)
"""How fast to drive, as parts of the limit."""

DRIVER = IDM(max_acceleration=2.0, comfortable_deceleration=3.0, time_headway=1.5, min_gap=1.0)
"""How the drives keep their distance: as in the paper, but for the acceleration of humans."""

BRAKING_TIME = 2.0
"""A collision of the best drive that is no further away makes the ego brake (s)."""

BRAKING = 8.0
"""How hard (m/s^2)."""


class PDMPlanner:
    """A planner in the manner of PDM-Closed.

    Dauner, Hallgarten, Geiger, Chitta, "Parting with Misconceptions about Learning-based Vehicle
    Motion Planning", CoRL 2023, arXiv:2306.07962, section 4: of drives along the centre of the
    route and beside it, at several speeds, behind whoever is ahead by the intelligent driver model,
    the one that scores best among others who keep their velocities.

    Args:
        idm: The intelligent driver model.
    """

    name = "pdm"
    requires_log = False

    def __init__(self, idm: IDM = DRIVER) -> None:
        self._idm = idm
        offsets, speeds = np.meshgrid(OFFSETS, SPEEDS, indexing="ij")
        # A last drive comes to a stop, which those of the paper cannot.
        self._offsets, self._speeds = np.append(offsets, OFFSETS[0]), np.append(speeds, SPEEDS[0])
        stop = -idm.comfortable_deceleration
        self._max_acceleration = np.append(np.full(offsets.size, np.inf), stop)

    def initialize(self, context: PlannerContext) -> None:
        """Reads the route and the map."""
        self._edges = RoadEdges.from_roadgraph(context.roadgraph)
        self._observer = Observer(context, num_steps=HORIZON, idm=self._idm)

    def plan(self, input: PlannerInput) -> Float[ndarray, "steps 5"]:
        """Simulates and scores drives, and brakes if even the best collides soon."""
        situation = self._observer.look(input)
        wishes = Wishes(
            offset=self._offsets,
            speed=self._speeds[:, None] * situation.limit,
            max_acceleration=self._max_acceleration,
        )
        drives = simulate(situation, wishes, self._idm)
        scores = score(drives, situation, self._edges)
        best = int(scores.total.argmax())
        if scores.collision_step[best] > BRAKING_TIME / STEP_SECONDS:
            return drives.plan(best).double().numpy()
        wishes = Wishes(
            offset=wishes.offset[[best]],
            speed=wishes.speed[[best]],
            max_acceleration=np.full(1, -BRAKING),
        )
        return simulate(situation, wishes, self._idm).plan(0).double().numpy()
