"""Routes: ways through a road network, from where a vehicle is to the edge of the map."""

import itertools
from dataclasses import dataclass, field

import numpy as np

from catk_sim.datasets.synthetic.passages import Conflicts, Passage, join_lanes
from catk_sim.datasets.synthetic.polylines import arc_length, resample
from catk_sim.datasets.synthetic.road_network import MPH, Movement, RoadNetwork

SPACING = 0.5
"""Distance (m) between the points of a route."""

MAX_POINTS = 1000
MAX_PASSAGES = 6
MAX_CROSSWALKS = 10
LATERAL_ACCELERATION = 2.0
"""What drivers accept in a bend (m/s^2)."""

COMFORTABLE_BRAKING = 1.5
"""How drivers slow down for a bend (m/s^2)."""


@dataclass(eq=False)
class RouteTable:
    """Routes as arrays, one row each, filled as vehicles ask for them.

    Attributes:
        network: The roads.
        passages: Every way through a junction.
        conflicts: Where they meet.
        index: Row of each sequence of lanes.
        lanes: Sequence of lanes of each row.
        x, y: Points at every `SPACING` metres (m), continued straight past the end.
        speed: Speed (m/s) that limit and bends allow there.
        lane: Lane at each point.
        length: Length of each route (m).
        lane_start: Distance along the route at which it enters each lane; infinite if it does not.
        passage: Passages in order, -1 for none.
        passage_start, passage_end: Distances along the route (m); infinite for none.
        crosswalk: Crosswalks in order, -1 for none.
        crosswalk_at: Distances along the route (m); infinite for none.
    """

    network: RoadNetwork
    passages: list[Passage]
    conflicts: Conflicts
    capacity: int = 160
    index: dict[tuple[int, ...], int] = field(default_factory=dict)
    lanes: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Allocates the arrays."""
        rows = self.capacity
        self.x = np.zeros((rows, MAX_POINTS))
        self.y = np.zeros((rows, MAX_POINTS))
        self.speed = np.ones((rows, MAX_POINTS))
        self.lane = np.zeros((rows, MAX_POINTS), dtype=np.int64)
        self.length = np.zeros(rows)
        self.lane_start = np.full((rows, len(self.network.lanes)), np.inf)
        self.passage = np.full((rows, MAX_PASSAGES), -1)
        self.passage_start = np.full((rows, MAX_PASSAGES), np.inf)
        self.passage_end = np.full((rows, MAX_PASSAGES), np.inf)
        self.crosswalk = np.full((rows, MAX_CROSSWALKS), -1)
        self.crosswalk_at = np.full((rows, MAX_CROSSWALKS), np.inf)
        self._passage_of = {passage.lanes: row for row, passage in enumerate(self.passages)}

    def choose(self, lanes: tuple[int, ...], rng: np.random.Generator, is_long: bool) -> int:
        """Continues a sequence of lanes at random to the edge of the map; returns the row."""
        route = list(lanes)
        passages = sum(
            self.network.lanes[lane].junction >= 0 and self.network.lanes[before].junction < 0
            for before, lane in itertools.pairwise(route)
        )
        while self.network.lanes[route[-1]].exits and passages < MAX_PASSAGES:
            options = self._options(route)
            weights = np.array([self._weight(option, is_long) for option in options])
            picked = options[int(rng.choice(len(options), p=weights / weights.sum()))]
            route += [*picked.lanes, picked.departure]
            passages += 1
        return self.add(tuple(route))

    def _options(self, route: list[int]) -> list[Passage]:
        """Lists the passages that continue a route, which may end inside a junction."""
        inside = []
        while self.network.lanes[route[-1]].junction >= 0:
            inside.insert(0, route.pop())
        return [
            passage
            for passage in self.passages
            if passage.approach == route[-1] and list(passage.lanes[: len(inside)]) == inside
        ]

    def _weight(self, passage: Passage, is_long: bool) -> float:
        first = self.network.lanes[passage.lanes[0]]
        limit = self.network.lanes[passage.departure].speed_limit
        straight = first.movement is Movement.STRAIGHT
        weight = (3.0 if straight else 1.0) * (0.25 if limit < 15 else 1.0)
        return weight * (0.02 if is_long and first.movement is Movement.RIGHT else 1.0)

    def add(self, lanes: tuple[int, ...]) -> int:
        """Returns the row of a sequence of lanes, which is filled if it is new."""
        if lanes in self.index:
            return self.index[lanes]
        row = len(self.lanes)
        if row == self.capacity:
            self._grow()
        self.index[lanes] = row
        self.lanes.append(lanes)
        self._fill(row, lanes)
        return row

    def _grow(self) -> None:
        blank = RouteTable(self.network, self.passages, self.conflicts, self.capacity)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, np.concatenate([value, getattr(blank, name)]))
        self.capacity *= 2

    def _fill(self, row: int, lanes: tuple[int, ...]) -> None:
        pieces = [arc_length(self.network.lanes[lane].xy)[-1] for lane in lanes]
        ends = np.cumsum(pieces)
        xy = resample(join_lanes(self.network, lanes), SPACING)
        length = float(arc_length(xy)[-1])
        along = SPACING * np.arange(MAX_POINTS)
        exact = np.stack([np.interp(along, arc_length(xy), xy[:, axis]) for axis in (0, 1)], -1)
        beyond = np.clip(along - length, 0.0, None)[:, None]
        exact += beyond * (xy[-1] - xy[-2]) / np.hypot(*(xy[-1] - xy[-2]))
        self.x[row], self.y[row], self.length[row] = exact[:, 0], exact[:, 1], length
        number = np.minimum(np.searchsorted(ends, along, side="right"), len(lanes) - 1)
        self.lane[row] = np.array(lanes)[number]
        self.lane_start[row, list(lanes)] = ends - pieces
        limits = np.array([self.network.lanes[lane].speed_limit * MPH for lane in lanes])
        self.speed[row] = _allowed_speed(exact, limits[number])
        self._fill_passages(row, lanes, ends - pieces, ends)
        self._fill_crosswalks(row, exact, length)

    def _fill_passages(
        self, row: int, lanes: tuple[int, ...], starts: np.ndarray, ends: np.ndarray
    ) -> None:
        column, first = 0, 0
        inside = [self.network.lanes[lane].junction >= 0 for lane in lanes]
        while first < len(lanes):
            last = first
            while last < len(lanes) and inside[last]:
                last += 1
            found = self._passage_of.get(lanes[first:last]) if last > first else None
            if found is not None and column < MAX_PASSAGES:
                self.passage[row, column] = found
                self.passage_start[row, column] = starts[first]
                self.passage_end[row, column] = ends[last - 1]
                column += 1
            first = max(last, first + 1)

    def _fill_crosswalks(self, row: int, xy: np.ndarray, length: float) -> None:
        found = []
        for number, crosswalk in enumerate(self.network.crosswalks):
            across = crosswalk.end - crosswalk.start
            span = np.hypot(*across)
            relative = xy - crosswalk.start
            along = relative @ across / span
            side = relative @ np.array([-across[1], across[0]])
            crossed = (side[:-1] * side[1:] <= 0) & (along[:-1] > 0) & (along[:-1] < span)
            found += [(SPACING * at, number) for at in np.flatnonzero(crossed)]
        for column, (at, number) in enumerate(sorted(found)[:MAX_CROSSWALKS]):
            if at < length:
                self.crosswalk_at[row, column], self.crosswalk[row, column] = at, number


def _allowed_speed(xy: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Limits the speed by the bends ahead, and lets it fall towards them comfortably."""
    step = np.gradient(xy, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    curvature = np.abs(np.gradient(heading, SPACING))
    curvature = np.convolve(np.pad(curvature, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    speed = np.minimum(limit, np.sqrt(LATERAL_ACCELERATION / np.maximum(curvature, 1e-4)))
    # v(s)^2 <= v(s')^2 + 2 a (s' - s) for every s' > s: a running minimum from behind.
    energy = speed**2 + 2 * COMFORTABLE_BRAKING * SPACING * np.arange(len(speed))
    lowest = np.minimum.accumulate(energy[::-1])[::-1]
    return np.sqrt(lowest - 2 * COMFORTABLE_BRAKING * SPACING * np.arange(len(speed)))
