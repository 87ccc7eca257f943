"""Junctions: what joins the ends of streets."""

import numpy as np

from catk_sim.datasets.synthetic.polylines import (
    Point,
    Points,
    bezier,
    resample,
    tangents,
    unit,
    wrap_angle,
)
from catk_sim.datasets.synthetic.road_network import (
    Arm,
    Control,
    Junction,
    Lane,
    Movement,
    RoadNetwork,
    StopSign,
)
from catk_sim.datasets.synthetic.streets import POINT_SPACING
from catk_sim.datatypes import MapFeatureType

CROSSWALK_ROOM = 5.0
"""Distance (m) between the end of the lanes and the corner, in which a crosswalk may lie."""

TURN_SPEED_LIMIT = 15.0
RING_RADIUS = 15.5
"""Radius (m) of a roundabout's lane."""


def cut_distances(
    headings: list[float], left: list[float], right: list[float], corner_radius: float
) -> list[float]:
    """Tells how far from the centre the streets of a junction end.

    Args:
        headings: Directions of the arms, in counter-clockwise order (rad).
        left: Distance from each arm's axis to its left kerb, looking away (m).
        right: The same on the right.
        corner_radius: Radius of the kerb's corners (m).
    """
    count = len(headings)
    cuts = [1.0] * count
    for i in range(count):
        j = (i + 1) % count
        angle = (headings[j] - headings[i]) % (2 * np.pi)
        if angle > 2.6:  # Nearly straight on: there is no corner.
            continue
        rounding = corner_radius * np.tan((np.pi - angle) / 2)
        cuts[i] = max(cuts[i], (right[j] + left[i] * np.cos(angle)) / np.sin(angle) + rounding)
        cuts[j] = max(cuts[j], (left[i] + right[j] * np.cos(angle)) / np.sin(angle) + rounding)
    return [float(cut) + CROSSWALK_ROOM for cut in cuts]


def build_junction(
    network: RoadNetwork,
    arms: list[Arm],
    control: Control,
    *,
    stops: set[int],
    crosswalks: set[int],
) -> int:
    """Joins streets by a junction and returns its index.

    Args:
        network: Receives the junction.
        arms: The ends of the streets, in counter-clockwise order.
        control: Who may enter.
        stops: Arms with a stop sign.
        crosswalks: Arms with a crosswalk.
    """
    network.junctions.append(Junction(control, len(arms)))
    index = len(network.junctions) - 1
    for number, arm in enumerate(arms):
        network.boundaries.append(_corner(arm, arms[(number + 1) % len(arms)]))
        if number in crosswalks:
            _add_arm_crosswalk(network, arm, index, number)
        if number in stops:
            _add_stop_sign(network, arm)
        for target in arms:
            if target is not arm:
                _connect(network, arm, target, Lane(**_crossing(index, number, number in stops)))
    return index


def _crossing(junction: int, arm: int, has_stop: bool) -> dict:
    return {
        "xy": np.zeros((0, 2)),
        "type": MapFeatureType.LANE_SURFACE_STREET,
        "speed_limit": TURN_SPEED_LIMIT,
        "junction": junction,
        "arm": arm,
        "has_stop": has_stop,
    }


def _inwards(arm: Arm, point: Point) -> Point:
    return point - CROSSWALK_ROOM * unit(arm.heading)


def _corner(arm: Arm, following: Arm) -> Points:
    """Draws the kerb from the left of one arm to the right of the next."""
    start, end = arm.left_edge, following.right_edge
    first, last = _inwards(arm, start), _inwards(following, end)
    curve = bezier(first, -unit(arm.heading), last, unit(following.heading))
    if (following.heading - arm.heading) % (2 * np.pi) > 2.6:
        curve = bezier(start, -unit(arm.heading), end, unit(following.heading))
    return np.concatenate([start[None], curve[1:-1], end[None]])


def _add_arm_crosswalk(network: RoadNetwork, arm: Arm, junction: int, number: int) -> None:
    inwards = -3.0 * unit(arm.heading)
    network.add_crosswalk(arm.left_edge + inwards, arm.right_edge + inwards, junction, number)


def _add_stop_sign(network: RoadNetwork, arm: Arm) -> None:
    beside = arm.left_edge - arm.right_edge
    position = arm.left_edge + 0.8 * beside / np.hypot(*beside)
    network.stop_signs.append(StopSign(position, list(arm.incoming)))


def _connect(network: RoadNetwork, arm: Arm, target: Arm, template: Lane) -> None:
    turn = wrap_angle(target.heading - arm.heading - np.pi)
    movement = Movement.STRAIGHT if abs(turn) < 0.6 else Movement.LEFT
    movement = Movement.RIGHT if turn <= -0.6 else movement
    if abs(turn) > 2.6:  # Nobody turns round.
        return
    for start, end in _lane_pairs(arm, target, movement):
        _add_connector(network, start, end, movement, template)


def _lane_pairs(arm: Arm, target: Arm, movement: Movement) -> list[tuple[int, int]]:
    incoming, outgoing = arm.incoming, target.outgoing
    if not incoming or not outgoing:
        return []
    if movement is Movement.LEFT:
        return [(incoming[0], outgoing[0])]
    if movement is Movement.RIGHT:
        return [(incoming[-1], outgoing[-1])]
    # The rightmost lanes go on: a lane too many is for turning left, a ramp joins on the right.
    count = min(len(incoming), len(outgoing))
    pairs = list(zip(incoming[-count:], outgoing[-count:], strict=True))
    if arm.bike_in >= 0 and target.bike_out >= 0:
        pairs.append((arm.bike_in, target.bike_out))
    return pairs


def _add_connector(
    network: RoadNetwork, start: int, end: int, movement: Movement, template: Lane
) -> None:
    before, after = network.lanes[start], network.lanes[end]
    xy = _turn(before.xy, after.xy) if movement else _straight(before.xy, after.xy)
    straight_limit = min(before.speed_limit, after.speed_limit)
    lane = Lane(
        xy=resample(xy, POINT_SPACING),
        type=before.type,
        speed_limit=template.speed_limit if movement else straight_limit,
        junction=template.junction,
        arm=template.arm,
        movement=movement,
        has_stop=template.has_stop,
    )
    index = network.add_lane(lane)
    network.link(start, index)
    network.link(index, end)


def _straight(before: Points, after: Points) -> Points:
    return bezier(before[-1], tangents(before)[-1], after[0], tangents(after)[0])


def _turn(before: Points, after: Points) -> Points:
    """Goes straight over the crosswalk, turns as the kerb does, and goes straight again."""
    leave, arrive = tangents(before)[-1], tangents(after)[0]
    first = before[-1] + (CROSSWALK_ROOM - 1.0) * leave
    last = after[0] - (CROSSWALK_ROOM - 1.0) * arrive
    curve = bezier(first, leave, last, arrive)
    return np.concatenate([before[-1:], curve, after[:1]])


def build_roundabout(
    network: RoadNetwork, arms: list[Arm], center: Point, crosswalks: set[int]
) -> int:
    """Joins streets of one lane by a roundabout and returns its index.

    The lanes of the streets end `RING_RADIUS` + 13.5 m from the centre.
    """
    network.junctions.append(Junction(Control.YIELD, len(arms)))
    index = len(network.junctions) - 1
    for number, arm in enumerate(arms):
        following = arms[(number + 1) % len(arms)]
        network.boundaries.append(_outer_arc(arm, following, center))
        if number in crosswalks:
            _add_arm_crosswalk(network, arm, index, number)
    angles = np.linspace(2 * np.pi, 0.0, 120)
    island = center + (RING_RADIUS - 4.3) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    network.medians.append(resample(island, POINT_SPACING))
    _connect_ring(network, arms, center, index)
    return index


def _outer_arc(arm: Arm, following: Arm, center: Point) -> Points:
    """Draws the kerb around a roundabout from one arm to the next."""
    first = arm.heading + 0.5
    last = arm.heading + (following.heading - arm.heading) % (2 * np.pi) - 0.5
    angles = np.linspace(first, last, max(2, round((last - first) / 0.04)))
    arc = center + (RING_RADIUS + 4.3) * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    corner_in, corner_out = _inwards(arm, arm.left_edge), _inwards(following, following.right_edge)
    entry = bezier(corner_in, -unit(arm.heading), arc[0], unit(first + np.pi / 2))
    leave = bezier(arc[-1], unit(last + np.pi / 2), corner_out, unit(following.heading))
    ends = arm.left_edge[None], following.right_edge[None]
    return np.concatenate([ends[0], entry, arc[1:-1], leave, ends[1]])


def _connect_ring(network: RoadNetwork, arms: list[Arm], center: Point, index: int) -> None:
    nodes = sorted(
        [((arm.heading + 0.36) % (2 * np.pi), True, number) for number, arm in enumerate(arms)]
        + [((arm.heading - 0.36) % (2 * np.pi), False, number) for number, arm in enumerate(arms)]
    )
    ring = []
    for position, (start, _, _) in enumerate(nodes):
        end = nodes[(position + 1) % len(nodes)][0]
        angles = np.linspace(start, start + (end - start) % (2 * np.pi), 24)
        xy = center + RING_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        ring.append(_ring_lane(network, xy, index))
    for position, (angle, is_entry, number) in enumerate(nodes):
        arm = arms[number]
        at = center + RING_RADIUS * unit(angle)
        along = unit(angle + np.pi / 2)
        network.link(ring[position - 1], ring[position])
        if is_entry:
            approach = network.lanes[arm.incoming[0]].xy
            xy = np.concatenate([approach[-1:], _enter(approach, at, along)])
            lane = _ring_lane(network, xy, index, number)
            network.link(arm.incoming[0], lane)
            network.link(lane, ring[position])
        else:
            leave = network.lanes[arm.outgoing[0]].xy
            xy = np.concatenate([_enter(leave[::-1], at, -along)[::-1], leave[:1]])
            lane = _ring_lane(network, xy, index)
            network.link(ring[position - 1], lane)
            network.link(lane, arm.outgoing[0])


def _enter(approach: Points, at: Point, along: Point) -> Points:
    direction = tangents(approach)[-1]
    return bezier(approach[-1] + CROSSWALK_ROOM * direction, direction, at, along)


def _ring_lane(network: RoadNetwork, xy: Points, index: int, arm: int = -1) -> int:
    lane = Lane(
        xy=resample(xy, POINT_SPACING),
        type=MapFeatureType.LANE_SURFACE_STREET,
        speed_limit=TURN_SPEED_LIMIT,
        junction=index,
        arm=arm,
        movement=Movement.RIGHT,
    )
    return network.add_lane(lane)
