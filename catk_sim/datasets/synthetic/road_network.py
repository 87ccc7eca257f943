"""The roads of a synthetic scene, before they become a `RoadGraph`."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from catk_sim.datasets.synthetic.polylines import Point, Points, arc_length
from catk_sim.datatypes import MapFeatureType

LANE_WIDTH = 3.5
"""Width of a car lane (m)."""

MPH = 0.44704
"""A mile per hour (m/s)."""


class Movement(IntEnum):
    """What a vehicle does at a junction."""

    STRAIGHT = 0
    LEFT = 1
    RIGHT = 2


class Control(IntEnum):
    """Who may enter a junction."""

    FREE = 0
    SIGNAL = 1
    ALL_STOP = 2
    MINOR_STOP = 3
    YIELD = 4


@dataclass(eq=False, kw_only=True)
class Lane:
    """A lane's centre line and its place in the lane graph; lanes are known by their index.

    Attributes:
        xy: Centre line in the direction of travel (m).
        type: One of the lane codes.
        speed_limit: In mph, as WOMD gives it.
        junction: Index of the junction that the lane crosses, or -1 for a lane of a street.
        arm: For a lane in a junction, the arm that it comes from.
        movement: For a lane in a junction, what it does there.
        has_stop: For a lane in a junction that few must stop at, whether this one must.
        entries: Lanes that lead here.
        exits: Lanes that this one leads to.
        left: Neighbour on the left, or -1.
        right: Neighbour on the right, or -1.
    """

    xy: Points
    type: MapFeatureType
    speed_limit: float
    junction: int = -1
    arm: int = -1
    movement: Movement = Movement.STRAIGHT
    has_stop: bool = False
    entries: list[int] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    left: int = -1
    right: int = -1

    @property
    def is_bike_lane(self) -> bool:
        """Whether only cyclists use it."""
        return self.type == MapFeatureType.LANE_BIKE_LANE


@dataclass(frozen=True, eq=False)
class Arm:
    """The end of a street at a junction, seen from the junction.

    Attributes:
        heading: Direction away from the junction (rad).
        incoming: Car lanes towards the junction, from the middle of the street outwards.
        outgoing: Car lanes away from it, likewise.
        bike_in: Bike lane towards the junction, or -1.
        bike_out: Bike lane away from it, or -1.
        left_edge: Where the road edge on the left, looking away, meets the junction (m).
        right_edge: The same on the right.
    """

    heading: float
    incoming: list[int]
    outgoing: list[int]
    bike_in: int
    bike_out: int
    left_edge: Point
    right_edge: Point


@dataclass(frozen=True, eq=False)
class Crosswalk:
    """Where pedestrians cross: from kerb to kerb, 3 m wide.

    Attributes:
        start: Middle of one end (m).
        end: Middle of the other (m).
        polygon: The four corners (m).
        junction: The junction that controls it, or -1.
        arm: The arm of the junction that it crosses.
    """

    start: Point
    end: Point
    polygon: Points
    junction: int
    arm: int


@dataclass(frozen=True, eq=False)
class StopSign:
    """A stop sign and the lanes that it is for."""

    position: Point
    lanes: list[int]


@dataclass(frozen=True, eq=False)
class Stall:
    """A place for a parked car."""

    position: Point
    heading: float


@dataclass(frozen=True, eq=False)
class Junction:
    """How a junction is controlled."""

    control: Control
    num_arms: int


@dataclass(eq=False)
class RoadNetwork:
    """Everything on the map of a scene; the layouts fill it, then it is only read."""

    lanes: list[Lane] = field(default_factory=list)
    lines: list[tuple[MapFeatureType, Points]] = field(default_factory=list)
    boundaries: list[Points] = field(default_factory=list)
    medians: list[Points] = field(default_factory=list)
    crosswalks: list[Crosswalk] = field(default_factory=list)
    stop_signs: list[StopSign] = field(default_factory=list)
    speed_bumps: list[Points] = field(default_factory=list)
    driveways: list[Points] = field(default_factory=list)
    walkways: list[Points] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)

    def add_lane(self, lane: Lane) -> int:
        """Adds a lane and returns its index."""
        self.lanes.append(lane)
        return len(self.lanes) - 1

    def link(self, before: int, after: int) -> None:
        """Lets traffic drive from the end of one lane onto the start of another."""
        self.lanes[before].exits.append(after)
        self.lanes[after].entries.append(before)

    def lane_length(self, lane: int) -> float:
        """Returns the length of a lane (m)."""
        return float(arc_length(self.lanes[lane].xy)[-1])

    def add_crosswalk(self, start: Point, end: Point, junction: int = -1, arm: int = -1) -> None:
        """Adds a crosswalk between two points at the kerbs."""
        across = (end - start) / np.hypot(*(end - start))
        half = 1.5 * np.array([-across[1], across[0]])
        polygon = np.stack([start - half, end - half, end + half, start + half])
        self.crosswalks.append(Crosswalk(start, end, polygon, junction, arm))
