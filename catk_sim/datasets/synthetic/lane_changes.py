"""Changes of lane.

Kesting, Treiber, Helbing, "General Lane-Changing Model MOBIL for Car-Following Models", doi
10.3141/1999-10: a driver changes if that gains enough acceleration and nobody behind must brake
hard.
"""

import numpy as np
from jaxtyping import Bool, Int

from catk_sim.datasets.synthetic.routes import SPACING, RouteTable
from catk_sim.datasets.synthetic.vehicles import Vehicles

SLOWEST = 4.0
"""Nobody changes lanes below this speed (m/s)."""

LONGEST = 9.0
"""Longer vehicles (m) stay in their lane."""

GAIN = 0.4
"""Acceleration that a change must gain (m/s^2)."""

ROOM = 45.0
"""Distance to the end of the lane (m) within which nobody changes."""


NOBODY = 1e3
"""The gap (m) where nobody is."""


def find_change(table: RouteTable, vehicles: Vehicles, row: int, wanted: float) -> int:
    """Returns the neighbouring lane that a driver would rather be in, or -1.

    Args:
        table: The routes.
        vehicles: Everyone.
        row: The driver.
        wanted: Acceleration that the driver's own lane allows (m/s^2).
    """
    route, s = vehicles.route[row], vehicles.s[row]
    number = int(table.lane[route, int(s / SPACING)])
    lane = table.network.lanes[number]
    on_lane = s - table.lane_start[route, number]
    length = table.network.lane_length(number)
    leaves_map = not lane.exits
    if lane.junction >= 0 or lane.is_bike_lane or on_lane < vehicles.size[row, 0] + 6.0:
        return -1
    if length - on_lane < (12.0 if leaves_map else ROOM):
        return -1
    for target in (lane.left, lane.right):
        if target >= 0 and _is_better(table, vehicles, row, target, on_lane / length, wanted):
            return target
    return -1


def may_change(vehicles: Vehicles, rows: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Tells which vehicles could change lanes as far as they themselves are concerned."""
    return (
        (vehicles.speed[rows] > SLOWEST)
        & (vehicles.size[rows, 0] < LONGEST)
        & ~vehicles.is_cyclist[rows]
        & (vehicles.shift_left[rows] == 0.0)
    )


def _is_better(
    table: RouteTable, vehicles: Vehicles, row: int, target: int, part: float, wanted: float
) -> bool:
    """Whether a lane offers a better acceleration and room; `part` of it lies behind."""
    rows = vehicles.present
    rows = rows[rows != row]
    place = part * table.network.lane_length(target)
    behind = table.lane_start[vehicles.route[rows], target] + place - vehicles.s[rows]
    apart = (vehicles.size[rows, 0] + vehicles.size[row, 0]) / 2
    ahead_gap = np.where(behind <= 0, -behind - apart, np.inf)
    behind_gap = np.where((behind > 0) & np.isfinite(behind), behind - apart, np.inf)
    speed = float(vehicles.speed[row])
    gap, lead_speed = _nearest(ahead_gap, vehicles.speed[rows], speed)
    room, follower_speed = _nearest(behind_gap, vehicles.speed[rows], 0.0)
    if gap < 3.0 + 0.6 * speed or room < 3.0 + 0.6 * follower_speed:
        return False
    # Whoever follows may have to brake gently, no more.
    if follower_speed > speed and room < 3.0 + (follower_speed - speed) ** 2 / 2.0:
        return False
    power, headway = vehicles.power[row], vehicles.headway[row]
    closing = speed * (speed - lead_speed) / (2 * np.sqrt(2.0 * power))
    wanted_gap = 2.0 + max(0.0, speed * headway + closing)
    return bool(wanted < power * (0.6 - (wanted_gap / gap) ** 2) - GAIN)


def _nearest(gap: np.ndarray, speed: np.ndarray, otherwise: float) -> tuple[float, float]:
    """Returns the shortest gap and the speed behind it; `otherwise` is the speed of nobody."""
    if not len(gap) or not np.isfinite(gap.min()):
        return NOBODY, otherwise
    first = int(gap.argmin())
    return float(gap[first]), float(speed[first])


def change_lane(
    table: RouteTable, vehicles: Vehicles, row: int, target: int, rng: np.random.Generator
) -> None:
    """Sends a vehicle to a neighbouring lane, on a new route; it drifts over from where it is."""
    place = vehicles.poses(table, np.array([row]))[0, :2]
    route = table.choose((target,), rng, is_long=False)
    x, y = table.x[route], table.y[route]
    nearest = int(((x - place[0]) ** 2 + (y - place[1]) ** 2).argmin())
    nearest = max(nearest, 1)
    along = np.array([x[nearest + 1] - x[nearest - 1], y[nearest + 1] - y[nearest - 1]])
    along /= np.hypot(*along)
    beside = place - np.array([x[nearest], y[nearest]])
    vehicles.route[row] = route
    vehicles.s[row] = SPACING * nearest + beside @ along
    vehicles.stopped_at[row], vehicles.committed[row] = -1.0, -1
    vehicles.shift[row], vehicles.shift_left[row] = 0.0, 1.0
    lateral = along[0] * beside[1] - along[1] * beside[0]
    vehicles.shift[row] = lateral - vehicles.drift(np.array([row]), vehicles.s[[row]])[0]
