"""Drives vehicles: the intelligent driver model on routes, with right of way.

Following: Treiber, Hennecke, Helbing, "Congested traffic states in empirical observations and
microscopic simulations", arXiv:cond-mat/0002177, eq. 3 and 4. Every obstacle (the vehicle ahead, a
stop line, a crosswalk in use, a place in a junction that someone occupies) is a leader to the
model, and the strongest reaction counts.
"""

from dataclasses import dataclass, field

import numpy as np

from catk_sim.datasets.synthetic.lane_changes import change_lane, find_change, may_change
from catk_sim.datasets.synthetic.pedestrians import Crowd
from catk_sim.datasets.synthetic.right_of_way import (
    Approach,
    PassageRules,
    find_approach,
    must_wait,
    passage_rules,
)
from catk_sim.datasets.synthetic.road_network import Control
from catk_sim.datasets.synthetic.routes import SPACING, RouteTable
from catk_sim.datasets.synthetic.signals import SignalPlan
from catk_sim.datasets.synthetic.vehicles import Vehicles

STANDSTILL_GAP = 2.0
COMFORTABLE_BRAKING = 2.0
HARDEST_BRAKING = 7.0
FAR = 1e3
LANE_CHANGE_SECONDS = 1.0
"""How often drivers think of changing lanes (s)."""


@dataclass(eq=False)
class Traffic:
    """Everything that moves, and the rules that it obeys."""

    table: RouteTable
    plans: dict[int, SignalPlan]
    vehicles: Vehicles
    crowd: Crowd
    time: float = 0.0
    rules: PassageRules = field(init=False)

    def __post_init__(self) -> None:
        """Looks up the rules of the junctions."""
        self.rules = passage_rules(self.table)

    def step(self, seconds: float, rng: np.random.Generator) -> None:
        """Moves everyone on; `rng` chooses the ways of those who change lanes."""
        rows = self.vehicles.present
        poses = self.vehicles.poses(self.table, rows)
        self.crowd.step(seconds, self.time, self.plans, poses, self.vehicles.speed[rows])
        if len(rows):
            wanted = self._acceleration(poses)
            self._integrate(rows, wanted, seconds)
            if self.time % LANE_CHANGE_SECONDS < seconds:
                self._change_lanes(rows, wanted, rng)
        self.time += seconds

    def reconsider(self, rng: np.random.Generator) -> None:
        """Lets every driver choose anew how fast to go, and where if there is time to slow down."""
        vehicles = self.vehicles
        rows = vehicles.present
        vehicles.eagerness[rows] = np.clip(rng.normal(1.0, 0.12, size=len(rows)), 0.75, 1.25)
        vehicles.headway[rows] = rng.uniform(1.0, 1.9, size=len(rows))
        approach = find_approach(self.table, vehicles, self.rules)
        braking = vehicles.speed[rows] ** 2 / (2 * COMFORTABLE_BRAKING)
        is_open = (approach.passage >= 0) & ~approach.committed
        for row in rows[is_open & (approach.to_line > braking + 3.0)]:
            lanes = self.table.lanes[vehicles.route[row]]
            on = self.table.lane[vehicles.route[row], int(vehicles.s[row] / SPACING)]
            kept = lanes[: lanes.index(int(on)) + 1]
            is_long = bool(vehicles.size[row, 0] > 9.0)
            vehicles.route[row] = self.table.choose(kept, rng, is_long)

    def _acceleration(self, poses: np.ndarray) -> np.ndarray:
        approach = find_approach(self.table, self.vehicles, self.rules)
        rows = approach.rows
        gap, lead_speed, exit_blocked = self._leaders(approach)
        line = self._line_gaps(approach, exit_blocked)
        walk = self._crosswalk_gaps(rows, poses)
        zone = self._occupied_gaps(approach)
        wanted = self._follow(rows, gap, lead_speed)
        standing = np.zeros(len(rows))
        for distance in (line, walk, zone):
            wanted = np.minimum(wanted, self._follow(rows, distance, standing))
        return wanted

    def _line_gaps(self, approach: Approach, exit_blocked: np.ndarray) -> np.ndarray:
        """Distance to the stop line at which each vehicle has to wait; commits those who go."""
        # While the rear is still in one junction, the next one matters already.
        following = find_approach(self.table, self.vehicles, self.rules, skip=1)
        lights = {junction: plan.lights(self.time) for junction, plan in self.plans.items()}
        gaps = np.full(len(approach.rows), FAR)
        braking = self.vehicles.speed[approach.rows] ** 2 / (2 * HARDEST_BRAKING)
        for mine, others in ((approach, [approach, following]), (following, [approach])):
            wait = must_wait(
                self.table,
                self.vehicles,
                self.rules,
                mine,
                others,
                lights=lights,
                time=self.time,
                exit_blocked=exit_blocked & (mine is approach),
            )
            wait &= braking < mine.to_line + 0.5
            line = np.maximum(mine.to_line + STANDSTILL_GAP - 0.3, 0.2)
            gaps = np.where(wait, np.minimum(gaps, line), gaps)
            if mine is approach:
                begins = (mine.passage >= 0) & ~wait & (mine.to_line < 0.6)
                self.vehicles.committed[mine.rows[begins]] = mine.passage[begins]
        return gaps

    def _follow(self, rows: np.ndarray, gap: np.ndarray, lead_speed: np.ndarray) -> np.ndarray:
        """The intelligent driver model."""
        vehicles, table = self.vehicles, self.table
        speed, power = vehicles.speed[rows], vehicles.power[rows]
        point = np.clip((vehicles.s[rows] / SPACING).astype(np.int64) + 1, 0, table.x.shape[1] - 1)
        allowed = table.speed[vehicles.route[rows], point] * vehicles.eagerness[rows]
        allowed = np.where(vehicles.is_cyclist[rows], np.minimum(allowed, 5.5), allowed)
        allowed = np.maximum(allowed, 1.0)
        free = np.maximum(1 - (speed / allowed) ** 4, -2.0)
        closing = speed * (speed - lead_speed) / (2 * np.sqrt(power * COMFORTABLE_BRAKING))
        wanted_gap = STANDSTILL_GAP + np.maximum(0.0, speed * vehicles.headway[rows] + closing)
        return power * (free - (wanted_gap / np.maximum(gap, 0.3)) ** 2)

    def _leaders(self, approach: Approach) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds the gap to and speed of the vehicle ahead, and whether it blocks the exit."""
        vehicles, table = self.vehicles, self.table
        rows = approach.rows
        route, s, length = vehicles.route[rows], vehicles.s[rows], vehicles.size[rows, 0]
        point = np.clip((s / SPACING).astype(np.int64), 0, table.x.shape[1] - 1)
        lane = table.lane[route, point]
        on_lane = s - table.lane_start[route, lane]
        ahead = table.lane_start[np.ix_(route, lane)] + on_lane[None] - s[:, None]
        ahead = np.where(np.isfinite(ahead), ahead, self._alongside(approach))
        ahead = np.minimum(ahead, self._leaving_lane(route, s, lane, on_lane))
        np.fill_diagonal(ahead, np.inf)
        ahead = np.where(ahead > 0, ahead, np.inf)
        gap = ahead - (length[:, None] + length[None]) / 2
        leader = gap.argmin(1)
        each = np.arange(len(rows))
        nearest = np.minimum(gap[each, leader], FAR)
        lead_speed = np.where(nearest < FAR, vehicles.speed[rows[leader]], 0.0)
        room = s + length / 2 + nearest - np.where(approach.passage >= 0, approach.leave, 0.0)
        beyond = nearest > approach.to_line
        blocked = beyond & (nearest < FAR) & (lead_speed < 1.5) & (room < length + 2.0)
        controlled = approach.passage >= 0
        if len(self.rules.control):
            controlled &= self.rules.control[approach.passage] != Control.FREE
        return nearest, lead_speed, blocked & controlled

    def _leaving_lane(
        self, route: np.ndarray, s: np.ndarray, lane: np.ndarray, on_lane: np.ndarray
    ) -> np.ndarray:
        """Distance (i, j) to vehicle j that has left the lane of i, but not altogether."""
        vehicles, rows = self.vehicles, self.vehicles.present
        changing = vehicles.shift_left[rows] > 0.15
        far = np.full((len(rows), len(rows)), np.inf)
        if not changing.any():
            return far
        lanes = self.table.network.lanes
        for j in np.flatnonzero(changing):
            old = lanes[lane[j]].left if vehicles.shift[rows[j]] > 0 else lanes[lane[j]].right
            if old >= 0:
                far[:, j] = self.table.lane_start[route, old] + on_lane[j] - s
        return far

    def _alongside(self, approach: Approach) -> np.ndarray:
        """Distance (i, j) to vehicle j on a passage that parts from or merges with that of i."""
        conflicts, rows = self.table.conflicts, approach.rows
        far = np.full((len(rows), len(rows)), np.inf)
        inside = approach.passage >= 0
        if not len(conflicts.start) or not inside.any():
            return far
        pair = np.ix_(approach.passage, approach.passage)
        s, half = self.vehicles.s[rows], self.vehicles.size[rows, 0] / 2
        before = approach.entry - s
        to_reference = before[:, None] + conflicts.reference[pair]
        their_reference = before[None] + conflicts.other_reference[pair]
        their_end = (before + half)[None] + conflicts.other_end[pair]
        has_begun = approach.committed & (before - half < 0)
        relevant = conflicts.follows[pair] & inside[:, None] & has_begun[None] & (their_end > 0)
        return np.where(relevant, to_reference - their_reference, far)

    def _occupied_gaps(self, approach: Approach) -> np.ndarray:
        """Distance to the first place of the junction that someone crossing occupies."""
        conflicts, rows = self.table.conflicts, approach.rows
        if not len(conflicts.start):
            return np.full(len(rows), FAR)
        pair = np.ix_(approach.passage, approach.passage)
        s, half = self.vehicles.s[rows], self.vehicles.size[rows, 0] / 2
        known = (approach.passage >= 0)[:, None] & (approach.passage >= 0)[None]
        crosses = known & np.isfinite(conflicts.start[pair]) & ~conflicts.follows[pair]
        before = (approach.entry - s)[:, None]
        until = before + conflicts.start[pair] - half[:, None]
        comes = before.T + conflicts.other_start[pair] - half[None]
        clear = before.T + conflicts.other_end[pair] + half[None]
        occupies = (comes < 0) & (clear > 0)
        gap = np.where(crosses & occupies & (until > 0), until + STANDSTILL_GAP - 0.7, FAR)
        return gap.min(1)

    def _crosswalk_gaps(self, rows: np.ndarray, poses: np.ndarray) -> np.ndarray:
        """Distance to the first crosswalk on which someone is, or will be, in the way."""
        vehicles, table = self.vehicles, self.table
        route = vehicles.route[rows]
        at, number = table.crosswalk_at[route], table.crosswalk[route]
        front = vehicles.s[rows] + vehicles.size[rows, 0] / 2
        gap = at - 2.3 - front[:, None]
        near = (number >= 0) & (gap > -0.8) & (gap < 45.0)
        result = np.full(len(rows), FAR)
        for i, column in zip(*np.nonzero(near), strict=True):
            speed = vehicles.speed[rows[i]]
            if speed**2 / (2 * HARDEST_BRAKING) > gap[i, column] + 0.8:
                continue
            point = min(int(at[i, column] / SPACING), table.x.shape[1] - 1)
            place = np.array([table.x[route[i], point], table.y[route[i], point]])
            if self.crowd.blocks(int(number[i, column]), place):
                result[i] = min(result[i], max(gap[i, column] + STANDSTILL_GAP - 0.5, 0.2))
        return result

    def _integrate(self, rows: np.ndarray, wanted: np.ndarray, seconds: float) -> None:
        vehicles = self.vehicles
        change = np.clip(wanted - vehicles.acceleration[rows], -20.0 * seconds, 6.0 * seconds)
        acceleration = np.clip(vehicles.acceleration[rows] + change, -HARDEST_BRAKING, 3.0)
        speed = np.maximum(vehicles.speed[rows] + acceleration * seconds, 0.0)
        acceleration = np.where((speed == 0) & (acceleration < 0), 0.0, acceleration)
        moved = (vehicles.speed[rows] + speed) / 2 * seconds
        vehicles.speed[rows], vehicles.acceleration[rows] = speed, acceleration
        vehicles.s[rows] += moved
        done = moved / np.maximum(20.0, 3.5 * speed)
        vehicles.shift_left[rows] = np.maximum(0.0, vehicles.shift_left[rows] - done)
        self._forget_passed_junctions(rows)
        front = vehicles.s[rows] + vehicles.size[rows, 0] / 2
        vehicles.active[rows[front > self.table.length[vehicles.route[rows]] - 0.5]] = False

    def _forget_passed_junctions(self, rows: np.ndarray) -> None:
        vehicles = self.vehicles
        has_stopped = rows[(vehicles.stopped_at[rows] >= 0) & (vehicles.committed[rows] >= 0)]
        through = vehicles.speed[has_stopped] > 3.0
        vehicles.stopped_at[has_stopped[through]] = -1.0

    def _change_lanes(self, rows: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> None:
        for index in np.flatnonzero(may_change(self.vehicles, rows)):
            row = int(rows[index])
            if not self.vehicles.active[row]:
                continue
            target = find_change(self.table, self.vehicles, row, float(wanted[index]))
            if target >= 0:
                change_lane(self.table, self.vehicles, row, target, rng)
