"""Cars, trucks and cyclists: what they are and where they stand on their routes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from catk_sim.datasets.synthetic.routes import SPACING, RouteTable


@dataclass(frozen=True)
class VehicleClass:
    """A kind of road user that keeps to lanes.

    Attributes:
        share: How often it occurs among the cars.
        length: Shortest and longest (m).
        width: Narrowest and widest (m).
        height: Lowest and highest (m).
        acceleration: How fast it gains speed (m/s^2).
    """

    share: float
    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    acceleration: float

    def draw_size(self, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
        """Draws length, width and height (m)."""
        return np.array([rng.uniform(*span) for span in (self.length, self.width, self.height)])


CAR = VehicleClass(0.70, (4.2, 5.1), (1.8, 2.1), (1.4, 1.8), 1.8)
PICKUP = VehicleClass(0.18, (5.1, 5.9), (1.95, 2.2), (1.7, 2.0), 1.7)
VAN = VehicleClass(0.07, (5.8, 7.6), (2.1, 2.4), (2.2, 3.0), 1.3)
TRUCK = VehicleClass(0.03, (9.5, 12.2), (2.5, 2.65), (3.0, 3.6), 0.9)
MOTORCYCLE = VehicleClass(0.02, (2.0, 2.4), (0.8, 1.0), (1.4, 1.7), 2.0)
CLASSES = (CAR, PICKUP, VAN, TRUCK, MOTORCYCLE)
BICYCLE = VehicleClass(0.0, (1.6, 1.9), (0.65, 0.85), (1.6, 1.85), 0.9)


@dataclass(eq=False)
class Vehicles:
    """One row for each vehicle that ever was in the scene.

    Attributes:
        active: Whether it is on the map.
        route: Its row in the route table.
        s: Distance of its centre along the route (m).
        speed, acceleration: In m/s and m/s^2.
        size: Length, width, height (m).
        is_cyclist: Whether it is a cyclist.
        power: Acceleration of a free start (m/s^2).
        eagerness: Wanted speed as a multiple of the allowed one.
        headway: Wanted time to the vehicle ahead (s).
        bias: Lasting distance from the middle of the lane, to the left (m).
        wave: Amplitude (m), wavelength (m) and phase of its drift within the lane.
        shift: Sideways distance (m) at which a lane change began; it fades to zero.
        shift_left: Share of the lane change that is still to come.
        committed: The passage that it has begun, or -1.
        stopped_at: When it came to stand at the stop line (s), or -1.
    """

    capacity: int
    count: int = 0

    def __post_init__(self) -> None:
        """Allocates the arrays."""
        rows = self.capacity
        self.active = np.zeros(rows, dtype=bool)
        self.route = np.zeros(rows, dtype=np.int64)
        self.s = np.zeros(rows)
        self.speed = np.zeros(rows)
        self.acceleration = np.zeros(rows)
        self.size = np.ones((rows, 3))
        self.is_cyclist = np.zeros(rows, dtype=bool)
        self.power = np.ones(rows)
        self.eagerness = np.ones(rows)
        self.headway = np.ones(rows)
        self.bias = np.zeros(rows)
        self.wave = np.ones((rows, 3))
        self.shift = np.zeros(rows)
        self.shift_left = np.zeros(rows)
        self.committed = np.full(rows, -1)
        self.stopped_at = np.full(rows, -1.0)

    @property
    def present(self) -> Int[np.ndarray, " vehicles"]:
        """Rows of the vehicles on the map."""
        return np.flatnonzero(self.active[: self.count])

    def add(
        self, vehicle_class: VehicleClass, route: int, s: float, rng: np.random.Generator
    ) -> int:
        """Puts a standing vehicle onto the map and returns its row."""
        row = self.count
        self.count += 1
        self.active[row] = True
        self.route[row], self.s[row] = route, s
        self.size[row] = vehicle_class.draw_size(rng)
        self.is_cyclist[row] = vehicle_class is BICYCLE
        self.power[row] = vehicle_class.acceleration * rng.uniform(0.85, 1.2)
        self.eagerness[row] = np.clip(rng.normal(1.0, 0.1), 0.75, 1.25)
        self.headway[row] = rng.uniform(1.0, 1.9)
        self.bias[row] = rng.normal(0.0, 0.1)
        self.wave[row] = rng.uniform(0.0, 0.12), rng.uniform(40.0, 90.0), rng.uniform(0.0, 6.3)
        return row

    def poses(
        self, table: RouteTable, rows: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, "rows 3"]:
        """Returns x, y and heading of the centres of some vehicles.

        Both axles are on the route, shifted sideways within the lane.
        """
        half = 0.3 * self.size[rows, 0]
        front = self._place(table, rows, self.s[rows] + half)
        rear = self._place(table, rows, self.s[rows] - half)
        ahead = front - rear
        return np.column_stack([(front + rear) / 2, np.arctan2(ahead[:, 1], ahead[:, 0])])

    def drift(
        self, rows: Int[np.ndarray, " rows"], s: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Returns how far to the left of the middle of their lane some vehicles keep (m)."""
        amplitude, wavelength, phase = self.wave[rows].T
        return self.bias[rows] + amplitude * np.sin(2 * np.pi * s / wavelength + phase)

    def _place(self, table: RouteTable, rows: np.ndarray, s: np.ndarray) -> np.ndarray:
        route = self.route[rows]
        at = np.clip(s / SPACING, 0.0, table.x.shape[1] - 3.0)
        index = at.astype(np.int64)
        part = at - index
        x0, y0 = table.x[route, index], table.y[route, index]
        x1, y1 = table.x[route, index + 1], table.y[route, index + 1]
        x2, y2 = table.x[route, index + 2], table.y[route, index + 2]
        # The normal turns evenly from one segment to the next, so that no heading jumps.
        dx = (x1 - x0) * (1 - part) + (x2 - x1) * part
        dy = (y1 - y0) * (1 - part) + (y2 - y1) * part
        length = np.maximum(np.hypot(dx, dy), 1e-6)
        ease = self.shift_left[rows]
        lateral = self.drift(rows, s) + self.shift[rows] * ease**2 * (3 - 2 * ease)
        x = x0 + part * (x1 - x0) - lateral * dy / length
        y = y0 + part * (y1 - y0) + lateral * dx / length
        return np.column_stack([x, y])
