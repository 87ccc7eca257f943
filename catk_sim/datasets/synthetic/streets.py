"""Streets: lanes, paint, kerbs, stalls and driveways along an axis."""

import itertools
from dataclasses import dataclass
from enum import Enum

import numpy as np

from catk_sim.datasets.synthetic.polylines import (
    Points,
    arc_length,
    bezier,
    interpolate,
    left_of,
    offset,
    resample,
    tangents,
)
from catk_sim.datasets.synthetic.road_network import (
    LANE_WIDTH,
    Arm,
    Lane,
    RoadNetwork,
    Stall,
)
from catk_sim.datatypes import MapFeatureType

POINT_SPACING = 0.5
BIKE_LANE_WIDTH = 1.8
GUTTER = 0.5
RAISED_MEDIAN = 1.5
"""Medians at least this wide (m) are islands; narrower ones are paint."""


class Parking(Enum):
    """How cars are parked beside a street; the value is the depth that it takes (m)."""

    NONE = 0.0
    PARALLEL = 2.6
    PERPENDICULAR = 5.8


@dataclass(frozen=True, kw_only=True)
class Section:
    """A street's cross-section.

    Attributes:
        forward: Car lanes along the axis; they run on its right.
        backward: Car lanes against it.
        speed_limit: In mph.
        median: Width between the two directions (m).
        has_bike_lanes: Whether each direction has a bike lane beside the kerb.
        parking: What lies between the lanes and the kerb.
        occupancy: Share of the stalls in which a car stands.
        lane_type: Freeway or surface street.
    """

    forward: int
    backward: int
    speed_limit: float
    median: float = 0.0
    has_bike_lanes: bool = False
    parking: Parking = Parking.NONE
    occupancy: float = 0.0
    lane_type: MapFeatureType = MapFeatureType.LANE_SURFACE_STREET

    def half_width(self, num_lanes: int) -> float:
        """Distance (m) from the axis to the kerb where there is no parking."""
        bike = BIKE_LANE_WIDTH if self.has_bike_lanes else 0.0
        return self.median / 2 + num_lanes * LANE_WIDTH + bike + GUTTER


@dataclass(frozen=True, eq=False)
class Street:
    """The two ends of a street."""

    start: Arm
    end: Arm


def build_street(
    network: RoadNetwork, axis: Points, section: Section, rng: np.random.Generator
) -> Street:
    """Adds a street to the network.

    Args:
        network: Receives the street.
        axis: Its middle line (m).
        section: Its cross-section.
        rng: Chooses parked cars and driveways.
    """
    axis = resample(axis, POINT_SPACING)
    ahead, bike_ahead = _add_lanes(network, axis, section, section.forward)
    back, bike_back = _add_lanes(network, axis[::-1], section, section.backward)
    _add_paint(network, axis, section)
    # Each side is drawn along its own traffic, so that the road is on the left of the kerb.
    right = _add_side(network, axis, section, section.forward, rng)
    left = _add_side(network, axis[::-1], section, section.backward, rng)
    direction = tangents(axis)
    out, back_in = direction[0], -direction[-1]
    return Street(
        start=Arm(
            float(np.arctan2(out[1], out[0])),
            back,
            ahead,
            bike_back,
            bike_ahead,
            left[-1],
            right[0],
        ),
        end=Arm(
            float(np.arctan2(back_in[1], back_in[0])),
            ahead,
            back,
            bike_ahead,
            bike_back,
            right[-1],
            left[0],
        ),
    )


def _add_lanes(
    network: RoadNetwork, axis: np.ndarray, section: Section, count: int
) -> tuple[list[int], int]:
    """Adds the lanes of one direction, which run along `axis` and to its right."""
    lanes = [
        network.add_lane(
            Lane(
                xy=resample(
                    offset(axis, -(section.median / 2 + (number + 0.5) * LANE_WIDTH)), POINT_SPACING
                ),
                type=section.lane_type,
                speed_limit=section.speed_limit,
            )
        )
        for number in range(count)
    ]
    for left, right in itertools.pairwise(lanes):
        network.lanes[left].right = right
        network.lanes[right].left = left
    if not (section.has_bike_lanes and count):
        return lanes, -1
    shift = section.median / 2 + count * LANE_WIDTH + BIKE_LANE_WIDTH / 2
    bike = Lane(
        xy=resample(offset(axis, -shift), POINT_SPACING),
        type=MapFeatureType.LANE_BIKE_LANE,
        speed_limit=section.speed_limit,
    )
    return lanes, network.add_lane(bike)


def _add_paint(network: RoadNetwork, axis: np.ndarray, section: Section) -> None:
    for count, along in ((section.forward, axis), (section.backward, axis[::-1])):
        for number in range(1, count):
            line = offset(along, -(section.median / 2 + number * LANE_WIDTH))
            network.lines.append((MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE, line))
        if count and (section.has_bike_lanes or section.speed_limit >= 30):
            line = offset(along, -(section.median / 2 + count * LANE_WIDTH))
            network.lines.append((MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE, line))
    if not (section.forward and section.backward):
        return
    if section.median >= RAISED_MEDIAN:
        network.medians.append(island(axis, section.median / 2 - 0.3))
        for side in (axis, axis[::-1]):
            line = offset(side, -section.median / 2)
            network.lines.append((MapFeatureType.ROAD_LINE_SOLID_SINGLE_YELLOW, line))
    elif section.speed_limit > 15:
        network.lines.append((MapFeatureType.ROAD_LINE_SOLID_DOUBLE_YELLOW, axis))


def island(axis: Points, half_width: float) -> Points:
    """Outlines a raised median clockwise, so that the road is on the left of its edge."""
    left, right = offset(axis, half_width), offset(axis, -half_width)
    direction = tangents(axis)
    far = bezier(left[-1], direction[-1], right[-1], -direction[-1])
    near = bezier(right[0], -direction[0], left[0], direction[0])
    return resample(np.concatenate([left, far[1:-1], right[::-1], near[1:]]), POINT_SPACING)


def _add_side(
    network: RoadNetwork,
    along: np.ndarray,
    section: Section,
    count: int,
    rng: np.random.Generator,
) -> Points:
    """Adds the kerb to the right of `along`, with what lies beside it, and returns the kerb."""
    base = section.half_width(count)
    kerb = offset(along, -(base + section.parking.value * _bay(along)))
    network.boundaries.append(kerb)
    if section.parking is Parking.PARALLEL:
        _add_stalls(network, along, base + 1.2, 6.3, 0.0, section.occupancy, rng)
    elif section.parking is Parking.PERPENDICULAR:
        _add_stalls(network, along, base + 2.9, 2.9, -np.pi / 2, section.occupancy, rng)
    is_street = section.lane_type == MapFeatureType.LANE_SURFACE_STREET
    if is_street and section.parking is not Parking.PERPENDICULAR:
        _add_driveways(network, along, base + section.parking.value, rng)
    return kerb


def _bay(along: np.ndarray) -> np.ndarray:
    """How far (0 to 1) the kerb has stepped back for parking: not at all near the ends."""
    distance = arc_length(along)
    to_end = np.minimum(distance, distance[-1] - distance)
    return np.clip((to_end - 6.0) / 3.0, 0.0, 1.0)


def _add_stalls(
    network: RoadNetwork,
    along: np.ndarray,
    shift: float,
    pitch: float,
    turn: float,
    occupancy: float,
    rng: np.random.Generator,
) -> None:
    length = arc_length(along)[-1]
    distance = np.arange(9.0 + pitch / 2, length - 9.0 - pitch / 2, pitch)
    distance = distance[rng.random(len(distance)) < occupancy]
    # By the distance along the street, as the bay that they are in, and not along their own row.
    at, near, far = (
        _at_distance(along, line, where)
        for line, where in (
            (offset(along, -shift), distance),
            (along, distance - 0.5),
            (along, distance + 0.5),
        )
    )
    headings = np.arctan2(far[:, 1] - near[:, 1], far[:, 0] - near[:, 0]) + turn
    for position, heading in zip(at, headings, strict=True):
        # A few drivers back into a perpendicular stall.
        reverse = turn != 0.0 and rng.random() < 0.2
        network.stalls.append(Stall(position, float(heading) + np.pi * reverse))


def _at_distance(along: np.ndarray, line: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Returns the points of a line beside the street at distances along the street."""
    return np.stack([np.interp(distance, arc_length(along), axis) for axis in line.T], axis=-1)


def _add_driveways(
    network: RoadNetwork, along: np.ndarray, shift: float, rng: np.random.Generator
) -> None:
    """Adds driveways: rectangles behind the kerb, where cars would leave the road."""
    length = arc_length(along)[-1]
    at = 9.0 + rng.exponential(6.0)
    kerb = offset(along, -shift)
    while at < length - 12.0:
        width = rng.uniform(3.5, 6.5)
        ends = interpolate(kerb, np.array([at, at + width]))
        outward = -left_of(ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
        depth = rng.uniform(3.0, 5.0) * outward
        network.driveways.append(np.stack([ends[0], ends[1], ends[1] + depth, ends[0] + depth]))
        at += width + 6.0 + rng.exponential(9.0)
