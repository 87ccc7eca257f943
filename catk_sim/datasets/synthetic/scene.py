"""A scene: roads, lights and everyone on them, which can be played forward and recorded."""

import copy
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from catk_sim.constants import NUM_STEPS, STEP_SECONDS
from catk_sim.datasets.synthetic.layouts import build_network
from catk_sim.datasets.synthetic.passages import find_conflicts, find_passages
from catk_sim.datasets.synthetic.population import (
    Arrivals,
    draw_density,
    park_cars,
    place_pedestrians,
    place_vehicles,
)
from catk_sim.datasets.synthetic.road_network import RoadNetwork
from catk_sim.datasets.synthetic.routes import RouteTable
from catk_sim.datasets.synthetic.signals import plan_signals
from catk_sim.datasets.synthetic.tracks import Tracks
from catk_sim.datasets.synthetic.traffic import Traffic
from catk_sim.datatypes import AgentType

WARM_UP_STEPS = 50
WARM_UP_SECONDS = 0.2
"""The scene settles in longer steps before anything is recorded."""


@dataclass(eq=False)
class Scene:
    """The state of a scene and what was recorded of it so far.

    Attributes:
        network: The roads.
        traffic: Everyone on them.
        arrivals: Who comes in.
        parked: Parked cars: x, y, heading, length, width, height.
        start_time: Time of step 0 (s).
        poses: Recorded x, y, heading, speed of (vehicles, steps), NaN where absent.
        walkers: The same for pedestrians.
        step: Steps recorded.
    """

    network: RoadNetwork
    traffic: Traffic
    arrivals: Arrivals
    parked: Float[np.ndarray, "cars 6"]
    start_time: float
    poses: Float[np.ndarray, "capacity steps 4"]
    walkers: Float[np.ndarray, "pedestrians steps 4"]
    step: int = 0

    def record(self, until: int, rng: np.random.Generator) -> None:
        """Plays on until a number of steps is recorded; new arrivals are drawn from `rng`."""
        while self.step < until:
            vehicles = self.traffic.vehicles
            rows = vehicles.present
            self.poses[rows, self.step, :3] = vehicles.poses(self.traffic.table, rows)
            self.poses[rows, self.step, 3] = vehicles.speed[rows]
            crowd = self.traffic.crowd
            self.walkers[crowd.active, self.step, :3] = crowd.pose[crowd.active]
            self.walkers[crowd.active, self.step, 3] = crowd.speed[crowd.active]
            self.step += 1
            self.arrivals.arrive(vehicles, self.traffic.time, rng)
            self.traffic.step(STEP_SECONDS, rng)

    def branch(self) -> "Scene":
        """Copies the state, so that two futures may follow. The roads are shared."""
        shared = [self.network, self.traffic.plans, self.traffic.rules, self.traffic.crowd.walks]
        return copy.deepcopy(self, {id(part): part for part in shared})

    def tracks(self) -> Tracks:
        """Collects what was recorded, parked cars and pedestrians included."""
        count = self.traffic.vehicles.count
        moving, parked = self.poses[:count], self._parked_poses()
        poses = np.concatenate([parked, self.walkers, moving])
        vehicles, crowd = self.traffic.vehicles, self.traffic.crowd
        kinds = np.where(vehicles.is_cyclist[:count], AgentType.CYCLIST, AgentType.VEHICLE)
        sizes = [self.parked[:, 3:], crowd.sizes, vehicles.size[:count]]
        numbers = [1 + np.arange(len(parked)), 1001 + np.arange(len(crowd.walks))]
        present = np.isfinite(poses[..., 0])
        poses = np.nan_to_num(poses)
        return Tracks(
            agent_id=np.concatenate([*numbers, 2001 + np.arange(count)]),
            type=np.concatenate(
                [
                    np.full(len(parked), int(AgentType.VEHICLE)),
                    np.full(len(crowd.walks), int(AgentType.PEDESTRIAN)),
                    kinds,
                ]
            ).astype(np.int64),
            size=np.concatenate(sizes),
            pose=poses[..., :3],
            speed=poses[..., 3],
            present=present,
        )

    def _parked_poses(self) -> np.ndarray:
        still = np.concatenate([self.parked[:, :3], np.zeros((len(self.parked), 1))], axis=1)
        return np.repeat(still[:, None], NUM_STEPS, axis=1)


def start_scene(kind: str, rng: np.random.Generator) -> Scene:
    """Builds a scene, lets it settle, and leaves it at step 0."""
    network = build_network(kind, rng)
    passages = find_passages(network)
    table = RouteTable(network, passages, find_conflicts(network, passages))
    density = draw_density(kind, rng)
    vehicles = place_vehicles(table, density, rng)
    crowd = place_pedestrians(network, density, rng)
    arrivals = Arrivals(table, density)
    arrivals.schedule(rng)
    traffic = Traffic(table, plan_signals(network, rng), vehicles, crowd)
    for _ in range(WARM_UP_STEPS):
        arrivals.arrive(vehicles, traffic.time, rng)
        traffic.step(WARM_UP_SECONDS, rng)
    return Scene(
        network,
        traffic,
        arrivals,
        park_cars(network, rng),
        traffic.time,
        np.full((vehicles.capacity, NUM_STEPS, 4), np.nan),
        np.full((len(crowd.walks), NUM_STEPS, 4), np.nan),
    )
