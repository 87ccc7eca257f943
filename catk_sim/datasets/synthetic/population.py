"""Fills a road network with vehicles, pedestrians and parked cars."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from catk_sim.datasets.synthetic.pedestrians import Crowd, plan_walk
from catk_sim.datasets.synthetic.polylines import arc_length, interpolate
from catk_sim.datasets.synthetic.road_network import RoadNetwork
from catk_sim.datasets.synthetic.routes import SPACING, RouteTable
from catk_sim.datasets.synthetic.vehicles import (
    BICYCLE,
    CAR,
    CLASSES,
    PICKUP,
    TRUCK,
    Vehicles,
)

CAPACITY = 200
"""Vehicles that a scene can ever hold."""


@dataclass(frozen=True)
class Density:
    """How busy a scene is.

    Attributes:
        spacing: Mean distance between vehicles on a lane at the beginning (m).
        interval: Mean time between arrivals on a lane (s).
        pedestrians: Expected number of pedestrians.
    """

    spacing: float
    interval: float
    pedestrians: float


def draw_density(kind: str, rng: np.random.Generator) -> Density:
    """Draws how busy a scene of a kind is."""
    busy = rng.uniform(0.25, 1.0)
    spacing = {"merge": 35.0, "signal": 26.0}.get(kind, 30.0) / busy
    pedestrians = {"merge": 0.0, "signal": 14.0}.get(kind, 8.0) * rng.gamma(1.0, 1.0)
    return Density(spacing, 5.0 / busy, min(pedestrians, 35.0))


def place_vehicles(table: RouteTable, density: Density, rng: np.random.Generator) -> Vehicles:
    """Puts moving vehicles onto every street, each with a route to the edge of the map."""
    vehicles = Vehicles(CAPACITY)
    for number, lane in enumerate(table.network.lanes):
        if lane.junction >= 0:
            continue
        length = arc_length(lane.xy)[-1]
        mean = 250.0 if lane.is_bike_lane else density.spacing
        at = rng.exponential(mean) + 8.0
        while at < length - 10.0 and vehicles.count < CAPACITY - 60:
            row = _add_vehicle(table, vehicles, number, at, rng)
            reach = max(length - at - 8.0, 0.0)
            allowed = table.speed[vehicles.route[row], int(at / SPACING)]
            vehicles.speed[row] = min(0.8 * allowed, np.sqrt(3.0 * reach))
            if lane.is_bike_lane:
                vehicles.speed[row] = min(4.0, vehicles.speed[row])
            at += vehicles.size[row, 0] + 7.0 + rng.exponential(mean)
    return vehicles


def _add_vehicle(
    table: RouteTable, vehicles: Vehicles, lane: int, s: float, rng: np.random.Generator
) -> int:
    if table.network.lanes[lane].is_bike_lane:
        kind = BICYCLE
    else:
        shares = np.array([vehicle_class.share for vehicle_class in CLASSES])
        kind = CLASSES[int(rng.choice(len(CLASSES), p=shares / shares.sum()))]
        local = table.network.lanes[lane].speed_limit <= 25
        if local and kind is TRUCK:
            kind = CAR
        if local and rng.random() < 0.04:
            kind = BICYCLE
    route = table.choose((lane,), rng, is_long=kind is TRUCK)
    row = vehicles.add(kind, route, s, rng)
    if kind is BICYCLE and not table.network.lanes[lane].is_bike_lane:
        vehicles.bias[row] = rng.uniform(-0.9, -0.5)
    return row


@dataclass(eq=False)
class Arrivals:
    """Vehicles that come in over the edge of the map, as a Poisson process on each lane."""

    table: RouteTable
    density: Density
    due: dict[int, float] = field(default_factory=dict)

    def schedule(self, rng: np.random.Generator) -> None:
        """Draws the first arrival on each lane."""
        for number, lane in enumerate(self.table.network.lanes):
            if not lane.entries and lane.junction < 0:
                self.due[number] = rng.exponential(self._interval(number))

    def _interval(self, lane: int) -> float:
        slow = 8.0 if self.table.network.lanes[lane].is_bike_lane else 1.0
        slow *= 3.0 if self.table.network.lanes[lane].speed_limit < 15 else 1.0
        return self.density.interval * slow

    def arrive(self, vehicles: Vehicles, time: float, rng: np.random.Generator) -> None:
        """Lets those in who are due and find room."""
        for lane, due in self.due.items():
            if time < due:
                continue
            self.due[lane] = time + rng.exponential(self._interval(lane)) + 1.5
            room, speed = self._room(vehicles, lane)
            if room < 14.0 + 0.8 * speed or vehicles.count >= CAPACITY:
                continue
            row = _add_vehicle(self.table, vehicles, lane, 6.5, rng)
            vehicles.s[row] = vehicles.size[row, 0] / 2 + 0.5
            allowed = self.table.speed[vehicles.route[row], 0] * vehicles.eagerness[row]
            top = 4.5 if vehicles.is_cyclist[row] else allowed
            vehicles.speed[row] = min(top, 0.9 * allowed, max(speed, 0.5 * room - 4.0))

    def _room(self, vehicles: Vehicles, lane: int) -> tuple[float, float]:
        """Free distance at the beginning of a lane (m), and the speed of whoever ends it."""
        rows = vehicles.present
        on = rows[self.table.lane_start[vehicles.route[rows], lane] <= 0.0]
        if not len(on):
            return 1e3, 30.0
        rear = vehicles.s[on] - vehicles.size[on, 0] / 2
        last = int(rear.argmin())
        return float(rear[last]), float(vehicles.speed[on[last]])


def place_pedestrians(network: RoadNetwork, density: Density, rng: np.random.Generator) -> Crowd:
    """Puts pedestrians onto the pavements, alone or in pairs."""
    walks, starts, pace, slot, partner = [], [], [], [], []
    taken = np.zeros((0, 2))
    wanted = int(rng.poisson(density.pedestrians)) if network.walkways else 0
    for _ in range(wanted):
        walk = plan_walk(network, rng, crosses=bool(rng.random() < 0.55))
        if walk is None:
            continue
        reach = min(walk.enter - 1.0, arc_length(walk.xy)[-1] - 5.0)
        start = rng.uniform(0.0, max(reach, 0.1))
        speed = float(np.clip(rng.normal(1.35, 0.22), 0.7, 2.0))
        side = -rng.uniform(0.3, 0.9)
        in_pair = rng.random() < 0.25
        place = interpolate(walk.xy, np.array([start]))
        if (np.hypot(*(taken - place).T) < 3.0).any():
            continue
        taken = np.concatenate([taken, place])
        first = len(walks)
        for beside in (side, side + 1.3) if in_pair else (side,):
            walks.append(walk)
            starts.append(start)
            pace.append(speed)
            slot.append(beside)
        partner += [first + 1, first] if in_pair else [first]
    sizes = rng.uniform([0.78, 0.75, 1.55], [0.98, 0.95, 1.9], size=(len(walks), 3))
    return Crowd(
        network=network,
        walks=walks,
        starts=np.array(starts),
        pace=np.array(pace),
        slot=np.array(slot),
        sizes=sizes,
        partner=np.array(partner, dtype=np.int64),
    )


def park_cars(network: RoadNetwork, rng: np.random.Generator) -> Float[np.ndarray, "cars 6"]:
    """Puts a car into every taken stall: x, y, heading, length, width, height, one row each."""
    rows = []
    for stall in network.stalls:
        size = (CAR if rng.random() < 0.75 else PICKUP).draw_size(rng)
        size[0] = min(size[0], 5.3)
        place = stall.position + np.clip(rng.normal(0.0, 0.05, size=2), -0.08, 0.08)
        rows.append([*place, stall.heading + rng.normal(0.0, 0.015), *size])
    return np.array(rows).reshape(-1, 6)
