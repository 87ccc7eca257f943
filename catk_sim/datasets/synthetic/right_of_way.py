"""Who must wait at a junction."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int

from catk_sim.datasets.synthetic.passages import MERGING_LENGTH
from catk_sim.datasets.synthetic.road_network import Control
from catk_sim.datasets.synthetic.routes import MAX_PASSAGES, RouteTable
from catk_sim.datasets.synthetic.signals import CAUTION, STOP
from catk_sim.datasets.synthetic.vehicles import Vehicles

LINE = 0.8
"""Stop lines lie this far before the end of the lane (m)."""

BRAKING = 3.0
"""How hard a driver brakes for a light that has just left green (m/s^2)."""

LOOK_AHEAD = 120.0
"""From how far a driver minds a junction (m)."""

YIELD_AHEAD = 45.0
"""From how far a driver gives way (m)."""


NONE = 1e6
"""Where a junction begins (m) for those who have none ahead."""


@dataclass(frozen=True, eq=False)
class PassageRules:
    """What the network says about each passage, one entry each.

    Attributes:
        control: The junction's control.
        junction: The junction.
        arm: The arm it comes from.
        movement: What it does.
        must_stop: Whether it has a stop sign.
        rank: At an uncontrolled conflict the higher rank goes first.
    """

    control: Int[np.ndarray, " passages"]
    junction: Int[np.ndarray, " passages"]
    arm: Int[np.ndarray, " passages"]
    movement: Int[np.ndarray, " passages"]
    must_stop: Bool[np.ndarray, " passages"]
    rank: Float[np.ndarray, " passages"]


def passage_rules(table: RouteTable) -> PassageRules:
    """Collects the rules of every passage."""
    first = [table.network.lanes[passage.lanes[0]] for passage in table.passages]
    junction = np.array([lane.junction for lane in first], dtype=np.int64)
    control = np.array([int(table.network.junctions[j].control) for j in junction], dtype=np.int64)
    movement = np.array([int(lane.movement) for lane in first], dtype=np.int64)
    must_stop = np.array([lane.has_stop for lane in first], dtype=bool)
    by_movement = np.array([2.0, 0.0, 1.0])[movement] if len(first) else np.zeros(0)
    rank = np.where(control == Control.ALL_STOP, 0.0, by_movement - 3.0 * must_stop)
    rank = np.where(control == Control.YIELD, 0.0, rank)
    arm = np.array([lane.arm for lane in first], dtype=np.int64)
    return PassageRules(control, junction, arm, movement, must_stop, rank)


@dataclass(frozen=True, eq=False)
class Approach:
    """Where each present vehicle is with respect to its current or next junction.

    Attributes:
        rows: Rows of the vehicles.
        passage: Their passage, or -1 if there is no junction ahead.
        entry: Distance along the route at which it begins, or `NONE` (m).
        leave: Distance along the route at which it ends, or `NONE` (m).
        to_line: Distance from the front to the stop line (m).
        committed: Whether they have begun it.
    """

    rows: Int[np.ndarray, " vehicles"]
    passage: Int[np.ndarray, " vehicles"]
    entry: Float[np.ndarray, " vehicles"]
    leave: Float[np.ndarray, " vehicles"]
    to_line: Float[np.ndarray, " vehicles"]
    committed: Bool[np.ndarray, " vehicles"]

    def take(self, index: Int[np.ndarray, " taken"]) -> "Approach":
        """Returns some of the vehicles."""
        return Approach(*(getattr(self, field.name)[index] for field in fields(self)))


def find_approach(
    table: RouteTable, vehicles: Vehicles, rules: PassageRules, *, skip: int = 0
) -> Approach:
    """Finds the junction that matters to each vehicle, which is so until its rear is through.

    Args:
        table: The routes.
        vehicles: Everyone.
        rules: The rules of the passages.
        skip: How many junctions to leave out: 1 for the one after that.
    """
    rows = vehicles.present
    route, s, half = vehicles.route[rows], vehicles.s[rows], vehicles.size[rows, 0] / 2
    is_open = table.passage_end[route] > (s - half)[:, None]
    column = np.minimum(is_open.argmax(1) + skip, MAX_PASSAGES - 1)
    is_there = is_open[np.arange(len(rows)), column]
    passage = np.where(is_there, table.passage[route, column], -1)
    entry = np.where(passage >= 0, table.passage_start[route, column], NONE)
    leave = np.where(passage >= 0, table.passage_end[route, column], NONE)
    to_line = entry - LINE - s - half
    free = (rules.control[passage] == Control.FREE) if len(rules.control) else passage < -1
    committed = (passage >= 0) & ((vehicles.committed[rows] == passage) | free)
    return Approach(rows, passage, entry, leave, to_line, committed)


def must_wait(
    table: RouteTable,
    vehicles: Vehicles,
    rules: PassageRules,
    mine: Approach,
    others: list[Approach],
    *,
    lights: dict[int, Int[np.ndarray, "arms movements"]],
    time: float,
    exit_blocked: Bool[np.ndarray, " vehicles"],
) -> Bool[np.ndarray, " vehicles"]:
    """Tells which vehicles may not pass their stop line now.

    Args:
        table: The routes.
        vehicles: Everyone.
        rules: The rules of the passages.
        mine: The junctions that are asked about.
        others: Junctions in which, or before which, the others are.
        lights: What the lights of each junction say to each (arm, movement).
        time: The time (s).
        exit_blocked: Who could not leave the junction.
    """
    near = (mine.passage >= 0) & ~mine.committed & (mine.to_line < LOOK_AHEAD)
    if not near.any():
        return near
    closed = near & (
        _light_is_against(vehicles, rules, mine, lights)
        | _stop_is_due(vehicles, rules, mine, time)
        | exit_blocked
    )
    waits = closed.copy()
    asking = np.flatnonzero(near & ~closed & (mine.to_line < YIELD_AHEAD))
    for theirs in others if len(asking) else ():
        wait_anyway = closed & (theirs is mine)
        waits[asking] |= _must_yield(table, vehicles, rules, mine.take(asking), theirs, wait_anyway)
    return waits


def _light_is_against(
    vehicles: Vehicles, rules: PassageRules, approach: Approach, lights: dict[int, np.ndarray]
) -> np.ndarray:
    against = np.zeros(len(approach.rows), dtype=bool)
    speed = vehicles.speed[approach.rows]
    for junction, light in lights.items():
        at = (approach.passage >= 0) & (rules.junction[approach.passage] == junction)
        says = light[rules.arm[approach.passage], rules.movement[approach.passage]]
        can_stop = speed**2 / (2 * BRAKING) < approach.to_line
        against |= at & ((says == STOP) | ((says == CAUTION) & can_stop))
    return against


def _stop_is_due(
    vehicles: Vehicles, rules: PassageRules, approach: Approach, time: float
) -> np.ndarray:
    """Whether a vehicle has still to stand at its stop sign, for a second."""
    rows = approach.rows
    signed = (approach.passage >= 0) & rules.must_stop[approach.passage]
    stands = signed & (approach.to_line < 2.0) & (vehicles.speed[rows] < 0.3)
    new = stands & (vehicles.stopped_at[rows] < 0)
    vehicles.stopped_at[rows[new]] = time
    since = vehicles.stopped_at[rows]
    return signed & ((since < 0) | (time - since < 1.0))


def _must_yield(
    table: RouteTable,
    vehicles: Vehicles,
    rules: PassageRules,
    mine: Approach,
    theirs: Approach,
    closed: np.ndarray,
) -> np.ndarray:
    """Whether someone with precedence will use the same place at about the same time.

    Args:
        table: The routes.
        vehicles: Everyone.
        rules: The rules of the passages.
        mine: Where those who ask are.
        theirs: Where the others are.
        closed: Which of the others have to wait anyway.
    """
    conflicts, pair = table.conflicts, np.ix_(mine.passage, theirs.passage)
    follows = conflicts.follows[pair]
    start, other_start = conflicts.start[pair], conflicts.other_start[pair]
    end, other_end = conflicts.end[pair], conflicts.other_end[pair]
    # Where ways merge, only the merging is critical: then one follows the other.
    end = np.where(follows, np.minimum(end, start + MERGING_LENGTH), end)
    other_end = np.where(follows, np.minimum(other_end, other_start + MERGING_LENGTH), other_end)
    known = (mine.passage >= 0)[:, None] & (theirs.passage >= 0)[None]
    meets = known & np.isfinite(start) & ~conflicts.parts[pair]
    until, clear, speed = _distances(vehicles, mine, start, end)
    arrives, leaves = _travel_time(until, speed), _travel_time(clear, speed)
    until, clear, speed = (
        each.T for each in _distances(vehicles, theirs, other_start.T, other_end.T)
    )
    comes = _travel_time(until, speed)
    slowest = np.where(clear > 0, clear / np.maximum(speed, 2.5), -1.0)
    margin = np.where(follows, 3.0, 1.2)
    overlaps = (comes - margin < leaves) & (slowest + 0.5 > arrives) & (slowest > 0)
    goes_first = theirs.committed[None] | (
        _has_precedence(vehicles, rules, mine, theirs) & ~closed[None]
    )
    return np.asarray((meets & overlaps & goes_first).any(1))


def _distances(
    vehicles: Vehicles, approach: Approach, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures how far vehicles are from places of their passages, (vehicles, places).

    Args:
        vehicles: Everyone.
        approach: Where they are.
        start: Distance along the passage at which the place begins (m).
        end: Distance at which it ends (m).

    Returns:
        How far the front is from the place, how far the rear is from having left it (m), and the
        speed of the vehicle (m/s).
    """
    rows = approach.rows
    before = (approach.entry - vehicles.s[rows])[:, None]
    half = vehicles.size[rows, 0][:, None] / 2
    return before + start - half, before + end + half, vehicles.speed[rows][:, None]


def _has_precedence(
    vehicles: Vehicles, rules: PassageRules, mine: Approach, theirs: Approach
) -> np.ndarray:
    """Whether vehicle j goes before vehicle i, (i, j), while neither has begun."""
    rank, other_rank = rules.rank[mine.passage], rules.rank[theirs.passage]
    since = vehicles.stopped_at[mine.rows][:, None]
    other_since = vehicles.stopped_at[theirs.rows][None]
    earlier = (other_since >= 0) & ((since < 0) | (other_since < since))
    tie = (other_since >= 0) & (other_since == since)
    earlier |= tie & (theirs.rows[None] < mine.rows[:, None])
    all_stop = rules.control[theirs.passage] == Control.ALL_STOP
    near = theirs.to_line < LOOK_AHEAD
    return near[None] & ((other_rank[None] > rank[:, None]) | (all_stop[None] & earlier))


def _travel_time(distance: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Time (s) to cover a distance (m) when speeding up gently from a speed (m/s)."""
    power, top = 1.4, np.maximum(speed, 9.0)
    distance = np.maximum(distance, 0.0)
    ramp = (top**2 - speed**2) / (2 * power)
    within = (np.sqrt(speed**2 + 2 * power * np.minimum(distance, ramp)) - speed) / power
    return within + np.maximum(distance - ramp, 0.0) / top
