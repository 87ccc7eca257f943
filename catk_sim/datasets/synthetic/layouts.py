"""The kinds of scene: which streets and junctions there are."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from catk_sim.datasets.synthetic.junctions import (
    RING_RADIUS,
    build_junction,
    build_roundabout,
    cut_distances,
)
from catk_sim.datasets.synthetic.polylines import (
    Point,
    Points,
    bend,
    bezier,
    chain,
    interpolate,
    left_of,
    offset,
    smooth,
    tangents,
    unit,
)
from catk_sim.datasets.synthetic.road_network import LANE_WIDTH, Arm, Control, RoadNetwork
from catk_sim.datasets.synthetic.streets import (
    GUTTER,
    Parking,
    Section,
    Street,
    build_street,
    island,
)
from catk_sim.datatypes import MapFeatureType

ARM_LENGTH = (130.0, 185.0)
"""How far (m) from the centre of the scene the streets reach."""


SIDE_STREET_ROOM = 50.0
"""Distance (m) between side streets; a lorry fits between two junctions."""

NEAREST_KERB = 1.15
"""No kerb is this near (m) to the middle of a lane or a stall."""

EDGE_POINTS = 150
"""Road edges are cut into pieces of about so many points."""


def build_network(kind: str, rng: np.random.Generator) -> RoadNetwork:
    """Draws a scene of a kind; the centre of interest is at the origin."""
    while True:
        network = RoadNetwork()
        LAYOUTS[kind](network, rng)
        if _is_sound(network):
            break
    edges = chain(network.boundaries)
    if kind != "merge":
        network.walkways = [_walkway(edge) for edge in edges]
    network.boundaries = [piece for edge in edges for piece in _cut(edge)]
    return network


def _is_sound(network: RoadNetwork) -> bool:
    """Whether no street runs over another: no kerb may be near the middle of a lane or a stall."""
    kerbs = np.concatenate([kerb[::4] for kerb in network.boundaries]).astype(np.float32)
    middles = [lane.xy[::2] for lane in network.lanes]
    middles += [stall.position[None] for stall in network.stalls]
    xy = np.concatenate(middles).astype(np.float32)
    nearest = (xy[:, None, 0] - kerbs[:, 0]) ** 2 + (xy[:, None, 1] - kerbs[:, 1]) ** 2
    return bool(nearest.min() > NEAREST_KERB**2)


def _cut(edge: Points) -> list[Points]:
    """Cuts a long road edge into pieces that touch, as WOMD does."""
    ends = np.linspace(0, len(edge) - 1, 1 + -(-len(edge) // EDGE_POINTS)).astype(np.int64)
    return [edge[first : last + 1] for first, last in itertools.pairwise(ends)]


def _walkway(edge: Points) -> Points:
    """Draws the pavement's middle line beside a kerb, 2.4 m behind it."""
    return smooth(offset(smooth(edge, 9), -2.4), 9)[::2]


def _signal(network: RoadNetwork, rng: np.random.Generator) -> None:
    main = _main_street(rng, lanes=int(rng.choice([1, 2, 2, 3])))
    cross = _main_street(rng, lanes=int(rng.choice([1, 1, 2])))
    headings = _cross_headings(rng)
    if rng.random() < 0.2:
        headings.pop(int(rng.choice([1, 3])))
    sections = [cross if _is_crossing(heading, headings[0]) else main for heading in headings]
    _crossing(network, rng, headings, sections, Control.SIGNAL)


def _all_stop(network: RoadNetwork, rng: np.random.Generator) -> None:
    headings = _cross_headings(rng)
    sections = [_local_street(rng), _local_street(rng)] * 2
    _crossing(network, rng, headings, sections, Control.ALL_STOP)


def _tee(network: RoadNetwork, rng: np.random.Generator) -> None:
    main = _main_street(rng, lanes=int(rng.choice([1, 1, 2])))
    headings = _cross_headings(rng)[:3]
    _crossing(network, rng, headings, [main, _local_street(rng), main], Control.MINOR_STOP)


def _cross_headings(rng: np.random.Generator) -> list[float]:
    base = rng.uniform(0.0, 2 * np.pi)
    skew = rng.normal(0.0, 0.08)
    turns = [0.0, np.pi / 2 + skew, np.pi + rng.normal(0.0, 0.03), 1.5 * np.pi + skew]
    return [float(base + turn) for turn in turns]


def _is_crossing(heading: float, first: float) -> bool:
    return bool(abs(np.cos(heading - first)) < 0.5)


def _main_street(rng: np.random.Generator, lanes: int) -> Section:
    parked = lanes < 3 and rng.random() < 0.4
    return Section(
        forward=lanes,
        backward=lanes,
        speed_limit=float(rng.choice([25, 30, 35, 40, 45] if lanes > 1 else [25, 30, 35])),
        median=float(rng.choice([0.0, 2.5, 4.0])) if lanes > 1 else 0.0,
        has_bike_lanes=rng.random() < 0.35,
        parking=Parking.PARALLEL if parked else Parking.NONE,
        occupancy=rng.uniform(0.5, 1.0),
    )


def _local_street(rng: np.random.Generator) -> Section:
    return Section(
        forward=1,
        backward=1,
        speed_limit=25.0,
        parking=Parking.PARALLEL if rng.random() < 0.85 else Parking.NONE,
        occupancy=rng.uniform(0.5, 1.0),
    )


def _parking_lot(rng: np.random.Generator) -> Section:
    return Section(
        forward=1,
        backward=1,
        speed_limit=10.0,
        parking=Parking.PERPENDICULAR,
        occupancy=rng.uniform(0.5, 1.0),
    )


def _crossing(
    network: RoadNetwork,
    rng: np.random.Generator,
    headings: list[float],
    sections: list[Section],
    control: Control,
) -> None:
    """Builds a junction at the origin; the axes of its streets lead away from it."""
    halves = [section.half_width(section.forward) for section in sections]
    cuts = cut_distances(headings, halves, halves, rng.uniform(5.0, 9.0))
    # All on the same side, so that no two side streets meet between two arms.
    side = 1 if rng.random() < 0.5 else -1
    arms = [
        _arm(network, rng, heading, cut, section, side)
        for heading, cut, section in zip(headings, cuts, sections, strict=True)
    ]
    stops = {Control.ALL_STOP: set(range(len(arms))), Control.MINOR_STOP: {1}}.get(control, set())
    walks = {i for i in range(len(arms)) if control is not Control.MINOR_STOP or rng.random() < 0.6}
    build_junction(network, arms, control, stops=stops, crosswalks=walks)


def _arm(
    network: RoadNetwork,
    rng: np.random.Generator,
    heading: float,
    cut: float,
    section: Section,
    side: int,
) -> Arm:
    """Builds a street away from the origin, perhaps with side streets; returns its near end."""
    length = rng.uniform(*ARM_LENGTH) - cut
    axis = bend(cut * unit(heading), heading, length, rng.normal(0.0, 0.0022))
    first = max(rng.uniform(50.0, 62.0) - cut, SIDE_STREET_ROOM - 12.0)
    places = [first, first + SIDE_STREET_ROOM + rng.uniform(0.0, 6.0)]
    chances = rng.random(2) < (0.92, 0.8)
    places = [at for at, is_there in zip(places, chances, strict=True) if is_there]
    places = [at for at in places if at < length - 32.0]
    return _street_with_sides(network, rng, axis, section, places, side).start


def _street_with_sides(
    network: RoadNetwork,
    rng: np.random.Generator,
    axis: Points,
    section: Section,
    places: list[float],
    side: int,
) -> Street:
    """Builds a street with a tee at each of some distances along it.

    Args:
        network: Receives the streets.
        rng: Chooses the side streets.
        axis: The street's middle line, points 0.5 m apart.
        section: Its cross-section.
        places: Distances along the axis, in rising order (m).
        side: On which side the side streets are: 1 for left, -1 for right.
    """
    if not places:
        return build_street(network, axis, section, rng)
    at, *others = places
    minor = _parking_lot(rng) if rng.random() < 0.65 else _local_street(rng)
    index = round(2 * at)
    center, heading = axis[index], _heading_at(axis, index)
    minor_heading = heading + side * np.pi / 2 + rng.normal(0.0, 0.04)
    # Counter-clockwise: onward, the side street if it is on the left, back, or else it comes last.
    stem = 1 if side > 0 else 2
    headings, halves = [heading, heading + np.pi], [section.half_width(section.forward)] * 2
    headings.insert(stem, minor_heading)
    halves.insert(stem, minor.half_width(1))
    cuts = cut_distances(headings, halves, halves, rng.uniform(4.0, 6.0))
    near = build_street(network, axis[: round(2 * (at - cuts[3 - stem])) + 1], section, rng)
    onward = round(2 * (at + cuts[0]))
    others = [place - onward / 2 for place in others]
    far = _street_with_sides(network, rng, axis[onward:], section, others, side)
    arms = [far.start, near.end]
    arms.insert(
        stem,
        _side_street(network, rng, center + cuts[stem] * unit(minor_heading), minor_heading, minor),
    )
    walks = {stem} if rng.random() < 0.5 else set()
    build_junction(network, arms, Control.MINOR_STOP, stops={stem}, crosswalks=walks)
    return Street(near.start, far.end)


def _heading_at(axis: Points, index: int) -> float:
    step = axis[index + 1] - axis[index - 1]
    return float(np.arctan2(step[1], step[0]))


def _side_street(
    network: RoadNetwork, rng: np.random.Generator, start: Point, heading: float, section: Section
) -> Arm:
    axis = bend(start, heading, rng.uniform(42.0, 72.0), 0.0)
    if section.speed_limit < 25:
        for at in (12.0, 30.0):
            if rng.random() < 0.6:
                _add_speed_bump(network, axis, at)
    return build_street(network, axis, section, rng).start


def _add_speed_bump(network: RoadNetwork, axis: Points, at: float) -> None:
    near, far = interpolate(axis, np.array([at, at + 1.5]))
    across = LANE_WIDTH * left_of((far - near) / 1.5)
    network.speed_bumps.append(np.stack([near + across, far + across, far - across, near - across]))


def _roundabout(network: RoadNetwork, rng: np.random.Generator) -> None:
    section = replace(_local_street(rng), speed_limit=float(rng.choice([25, 30])))
    headings = _cross_headings(rng)[: int(rng.choice([3, 4, 4]))]
    side = 1 if rng.random() < 0.5 else -1
    cut = RING_RADIUS + 13.5
    arms = [_arm(network, rng, heading, cut, section, side) for heading in headings]
    walks = {number for number in range(len(arms)) if rng.random() < 0.7}
    build_roundabout(network, arms, np.zeros(2), walks)


def _midblock(network: RoadNetwork, rng: np.random.Generator) -> None:
    """Builds a street with side streets and a crosswalk between junctions."""
    section = _main_street(rng, lanes=int(rng.choice([1, 1, 2])))
    length = rng.uniform(290.0, 360.0)
    heading = rng.uniform(0.0, 2 * np.pi)
    axis = bend(-length / 2 * unit(heading), heading, length, rng.normal(0.0, 0.0012))
    middle = length / 2
    places = [middle + rng.uniform(low, low + 9.0) for low in (-102.0, -41.0, 30.0, 90.0)]
    places = [at for at in places if rng.random() < 0.85]
    side = 1 if rng.random() < 0.5 else -1
    _street_with_sides(network, rng, axis, section, places, side)
    _add_midblock_crosswalk(network, axis, section, middle + rng.uniform(-8.0, 8.0))


def _add_midblock_crosswalk(
    network: RoadNetwork, axis: Points, section: Section, at: float
) -> None:
    index = round(2 * at)
    middle, along = axis[index], unit(_heading_at(axis, index))
    half = section.half_width(section.forward) + section.parking.value
    network.add_crosswalk(middle + half * left_of(along), middle - half * left_of(along))
    # Nobody parks on it.
    network.stalls = [
        stall
        for stall in network.stalls
        if abs((stall.position - middle) @ along) > 6.0
        or abs((stall.position - middle) @ left_of(along)) > half
    ]


def _merge(network: RoadNetwork, rng: np.random.Generator) -> None:
    """Builds a freeway that a ramp joins from the right."""
    lanes = int(rng.choice([2, 3, 3, 4]))
    freeway = Section(
        forward=lanes,
        backward=lanes,
        speed_limit=float(rng.choice([55, 65])),
        median=3.0,
        lane_type=MapFeatureType.LANE_FREEWAY,
    )
    heading = rng.uniform(0.0, 2 * np.pi)
    axis = bend(-140.0 * unit(heading), heading, 280.0, rng.normal(0.0, 0.0006))
    gore, end = round(2 * rng.uniform(85.0, 105.0)), round(2 * rng.uniform(165.0, 185.0))
    before = build_street(network, axis[: gore + 1], freeway, rng)
    after = build_street(network, axis[end:], freeway, rng)
    network.medians.append(island(axis[gore : end + 1], freeway.median / 2 - 0.3))
    for side in (lanes, -lanes):
        for number in range(1, lanes):
            shift = np.sign(side) * (freeway.median / 2 + number * LANE_WIDTH)
            line = offset(axis[gore : end + 1], float(shift))
            network.lines.append((MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE, line))
    ramp = build_street(network, _ramp_axis(rng, axis[: gore + 1], freeway), RAMP, rng)
    arms = [after.start, before.end, ramp.end]
    build_junction(network, arms, Control.FREE, stops=set(), crosswalks=set())


def _ramp_axis(rng: np.random.Generator, axis: Points, freeway: Section) -> Points:
    """Leads a ramp to the end of `axis`, to just outside its right kerb."""
    beside = freeway.half_width(freeway.forward) + GUTTER + 1.0
    direction = tangents(axis)
    last = offset(axis, -beside)[-1]
    first = offset(axis, -beside - rng.uniform(22.0, 32.0))[10]
    angle = rng.uniform(0.2, 0.3)
    first_direction = np.cos(angle) * direction[10] + np.sin(angle) * left_of(direction[10])
    return bezier(first, first_direction, last, direction[-1])


RAMP = Section(forward=1, backward=0, speed_limit=45.0, lane_type=MapFeatureType.LANE_FREEWAY)
"""A ramp of one lane."""

LAYOUTS: dict[str, Callable[[RoadNetwork, np.random.Generator], None]] = {
    "signal": _signal,
    "all_stop": _all_stop,
    "tee": _tee,
    "roundabout": _roundabout,
    "midblock": _midblock,
    "merge": _merge,
}
"""How each kind of scene is drawn."""
