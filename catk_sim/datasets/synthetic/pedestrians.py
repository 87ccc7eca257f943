"""Pedestrians on pavements and crosswalks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from catk_sim.datasets.synthetic.polylines import Point, Points, arc_length, resample, smooth
from catk_sim.datasets.synthetic.road_network import RoadNetwork
from catk_sim.datasets.synthetic.signals import SignalPlan

SPACING = 0.25
MAX_POINTS = 600
TOUCH = 1.3
"""Pedestrians keep this far apart (m)."""

BEFORE, CROSSING, AFTER = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Walk:
    """Where a pedestrian goes.

    Attributes:
        xy: The way (m), points `SPACING` apart.
        crosswalk: The crosswalk on it, or -1.
        enter: Distance along the way at which they step onto the road (m).
        leave: Distance at which they step off it (m).
    """

    xy: Points
    crosswalk: int = -1
    enter: float = np.inf
    leave: float = np.inf


def plan_walk(network: RoadNetwork, rng: np.random.Generator, crosses: bool) -> Walk | None:
    """Draws a way along a pavement, or over a crosswalk; None if the choice leads nowhere."""
    if not crosses or not network.crosswalks:
        pavement = network.walkways[int(rng.integers(len(network.walkways)))]
        pavement = resample(pavement if rng.random() < 0.5 else pavement[::-1], SPACING)
        return Walk(pavement[:MAX_POINTS]) if len(pavement) > 80 else None
    number = int(rng.integers(len(network.crosswalks)))
    crosswalk = network.crosswalks[number]
    ends = (crosswalk.start, crosswalk.end)
    start, end = ends if rng.random() < 0.5 else ends[::-1]
    arrive = _leave_from(network, start, rng, rng.uniform(2.0, 30.0))
    depart = _leave_from(network, end, rng, rng.uniform(25.0, 50.0))
    if arrive is None or depart is None:
        return None
    xy = np.concatenate([arrive[::-1], start[None], end[None], depart])
    xy = smooth(resample(xy, SPACING), 9)[:MAX_POINTS]
    along = arc_length(xy)
    enter = along[np.hypot(*(xy - start).T).argmin()]
    leave = along[np.hypot(*(xy - end).T).argmin()]
    return Walk(xy, number, float(enter), float(leave))


def _leave_from(
    network: RoadNetwork, point: Point, rng: np.random.Generator, length: float
) -> Points | None:
    """Draws a way of a length from a kerb along the nearest pavement, in either direction."""
    distances = [np.hypot(*(pavement - point).T) for pavement in network.walkways]
    nearest = int(np.argmin([distance.min() for distance in distances]))
    at = int(distances[nearest].argmin())
    if distances[nearest][at] > 6.0:
        return None
    pavement = network.walkways[nearest]
    way = pavement[at:] if rng.random() < 0.5 else pavement[at::-1]
    if len(way) < 2:
        return None
    way = resample(way, SPACING)[: int(length / SPACING)]
    return way if len(way) > 4 else None


@dataclass(eq=False, kw_only=True)
class Crowd:
    """All pedestrians of a scene, one row each.

    Attributes:
        network: The pavements and crosswalks.
        walks: Where each one goes.
        starts: Distance along the way at the beginning (m).
        pace: Wanted speed (m/s).
        slot: Wanted distance from the middle of the way, to the left (m).
        sizes: Length, width, height (m).
        partner: The row of whoever walks beside one, or one's own.
    """

    network: RoadNetwork
    walks: list[Walk]
    starts: Float[np.ndarray, " pedestrians"]
    pace: Float[np.ndarray, " pedestrians"]
    slot: Float[np.ndarray, " pedestrians"]
    sizes: Float[np.ndarray, "pedestrians 3"]
    partner: Int[np.ndarray, " pedestrians"]

    def __post_init__(self) -> None:
        """Lays the ways out as arrays."""
        count = len(self.walks)
        self.x, self.y = np.zeros((2, count, MAX_POINTS + 2))
        self.length = np.zeros(count)
        for row, walk in enumerate(self.walks):
            points = len(walk.xy)
            self.x[row, :points], self.y[row, :points] = walk.xy.T
            self.x[row, points:], self.y[row, points:] = walk.xy[-1]
            self.length[row] = SPACING * (points - 3)
        self.crosswalk = np.array([walk.crosswalk for walk in self.walks], dtype=np.int64)
        self.enter = np.array([walk.enter for walk in self.walks])
        self.leave = np.array([walk.leave for walk in self.walks])
        self.s = self.starts.copy()
        self.speed = np.zeros(count)
        self.lateral = self.slot.copy()
        self.stage = np.full(count, BEFORE)
        self.active = np.ones(count, dtype=bool)
        self.pose = self._poses()

    def _poses(self) -> np.ndarray:
        """Returns x, y and heading of each, (rows, 3)."""
        rows = np.arange(len(self.walks))
        at = np.clip(self.s / SPACING, 0.0, MAX_POINTS - 1.0)
        index = at.astype(np.int64)
        part = at - index
        ahead = np.minimum(index + 4, np.maximum(self.length / SPACING, 1).astype(np.int64) + 1)
        back = np.maximum(ahead - 6, 0)
        dx = self.x[rows, ahead] - self.x[rows, back]
        dy = self.y[rows, ahead] - self.y[rows, back]
        length = np.maximum(np.hypot(dx, dy), 1e-6)
        x = self.x[rows, index] * (1 - part) + self.x[rows, index + 1] * part
        y = self.y[rows, index] * (1 - part) + self.y[rows, index + 1] * part
        return np.column_stack(
            [x - self.lateral * dy / length, y + self.lateral * dx / length, np.arctan2(dy, dx)]
        )

    def step(
        self,
        seconds: float,
        time: float,
        plans: dict[int, SignalPlan],
        vehicle_poses: Float[np.ndarray, "vehicles 3"],
        vehicle_speed: Float[np.ndarray, " vehicles"],
    ) -> None:
        """Moves everyone on."""
        if not len(self.walks):
            return
        wanted = np.where(self.active, self.pace, 0.0)
        at_kerb = (self.stage == BEFORE) & (self.s > self.enter - 0.5) & self.active
        for row in np.flatnonzero(at_kerb):
            if self._may_cross(int(row), time, plans, vehicle_poses, vehicle_speed):
                self.stage[row] = CROSSING
            else:
                wanted[row] = 0.0
        self.stage[(self.stage == CROSSING) & (self.s > self.leave + 0.3)] = AFTER
        wanted, sideways = self._avoid(wanted)
        self.speed += np.clip(wanted - self.speed, -2.5 * seconds, 1.2 * seconds)
        self.s += self.speed * seconds
        moving = np.minimum(self.speed, 0.6)
        self.lateral += np.clip(sideways - self.lateral, -moving * seconds, moving * seconds)
        self.active &= self.s < self.length
        self.pose = self._poses()

    def _avoid(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slows down behind others and steps aside for those who come towards one."""
        x, y, heading = self.pose.T
        cosine, sine = np.cos(heading)[:, None], np.sin(heading)[:, None]
        dx, dy = x[None] - x[:, None], y[None] - y[:, None]
        ahead, left = dx * cosine + dy * sine, np.abs(dy * cosine - dx * sine)
        same_way = np.cos(heading[None] - heading[:, None]) > -0.5
        other = self.active[None] & self.active[:, None]
        np.fill_diagonal(other, False)
        beside = np.arange(len(x))[None] == self.partner[:, None]
        follows = other & same_way & ~beside & (ahead > 0.05) & (ahead < 2.2) & (left < 1.1)
        room = np.where(follows, np.maximum(ahead - 1.25, 0.0), np.inf)
        touches = other & ~beside & (ahead > 0.2) & (np.hypot(dx, dy) < TOUCH)
        room = np.where(touches, 0.0, room).min(1)
        pace = np.minimum(wanted, room * 1.2)
        oncoming = other & ~same_way & (ahead > 0) & (ahead < 9.0) & (left < 1.5)
        evades = oncoming.any(1)
        evades |= evades[self.partner]
        # Whoever walks beside one keeps step.
        pace = np.minimum(pace, pace[self.partner])
        return pace, self.slot - 0.7 * evades

    def _may_cross(
        self,
        row: int,
        time: float,
        plans: dict[int, SignalPlan],
        vehicle_poses: np.ndarray,
        vehicle_speed: np.ndarray,
    ) -> bool:
        crosswalk = self.network.crosswalks[self.crosswalk[row]]
        seconds = (self.leave[row] - self.s[row]) / self.pace[row] + 1.0
        middle = (crosswalk.start + crosswalk.end) / 2
        away = np.hypot(vehicle_poses[:, 0] - middle[0], vehicle_poses[:, 1] - middle[1])
        half = np.hypot(*(crosswalk.end - crosswalk.start)) / 2
        plan = plans.get(crosswalk.junction)
        if plan is not None:
            on_it = (away < half) & (vehicle_speed > 0.5)
            is_long = plan.seconds_of_red(time, crosswalk.arm) > seconds
            return bool(is_long and not on_it.any())
        approach = away - half
        # A driver needs a second to react, and brakes with 2.5 m/s^2.
        too_near = approach < 3.0 + vehicle_speed * 1.0 + vehicle_speed**2 / 5.0
        towards = _heads_towards(vehicle_poses, middle, half + 4.0)
        return not bool((too_near & towards & (vehicle_speed > 0.3)).any())

    def blocks(self, crosswalk: int, place: Point) -> bool:
        """Tells whether someone on a crosswalk is at a place on it or will soon be."""
        on_it = (self.crosswalk == crosswalk) & (self.stage == CROSSING) & self.active
        if not on_it.any():
            return False
        x, y, heading = self.pose[on_it].T
        ahead = (place[0] - x) * np.cos(heading) + (place[1] - y) * np.sin(heading)
        return bool(((ahead > -2.0) & (ahead < 2.2 + 4.0 * self.pace[on_it])).any())


def _heads_towards(poses: np.ndarray, point: np.ndarray, within: float) -> np.ndarray:
    dx, dy = point[0] - poses[:, 0], point[1] - poses[:, 1]
    cosine, sine = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    aside = np.abs(-dx * sine + dy * cosine)
    return (dx * cosine + dy * sine > -within) & (aside < within)
