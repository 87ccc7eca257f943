"""Cases about road edges."""

import math
from typing import Any

import numpy as np

from tests.official.agent_cases import traffic
from tests.official.drawing import (
    CAR,
    Case,
    add_agent,
    add_points,
    add_polyline,
    empty_road,
    far_away,
    noisy,
    remove,
    replay,
    scattered,
    shift,
)

ZIGZAG = [(-9, 0), (-6, 3), (-5, -3), (-3, 0), (-3, 4), (-2.9, 0), (0, 0), (4, 0), (1, 0.5)]


def no_road_edges() -> Case:
    scenario = traffic()
    remove(scenario, "road_edge")
    return Case(scenario, replay(scenario))


def road_edges_of_one_point_only() -> Case:
    scenario = traffic()
    remove(scenario, "road_edge")
    add_polyline(scenario, "road_edge", [(0, 0)])
    return Case(scenario, replay(scenario))


def far_from_any_road() -> Case:
    scenario = empty_road()
    add_agent(scenario, 5000.0, 7000.0)
    add_agent(scenario, -9000.0, 10.0)
    return Case(scenario, noisy(replay(scenario)))


def ten_kilometres_from_the_origin() -> Case:
    scenario = traffic()
    shift(scenario, 9876.543, -10123.456, 123.4)
    return Case(scenario, noisy(replay(scenario, 32)))


def anywhere_on_the_road() -> Case:
    scenario = traffic()
    return Case(scenario, scattered(replay(scenario, 8), (-110, 110), (-8, 8)))


def corners_on_the_edge_of_the_road() -> Case:
    """Corners on lines and on points of road edges, and midway between two of them."""
    return _around([[(-8, -4), (-4, -4), (0, -4), (4, -4), (8, -4)], [(8, 4), (0, 4), (-8, 4)]])


def sharp_bends() -> Case:
    """Left and right turns of every sharpness, back on itself included."""
    return _around([ZIGZAG, [(2, -6), (2, -6.5), (8, -7), (2, -7)]])


def sharp_bends_the_other_way() -> Case:
    return _around([ZIGZAG[::-1]])


# Where a corner is as near to one road edge as to another, which of them is it near to? Close to
# the origin that depends on the last bit of a sine; in WOMD's coordinates it does not.


def sharp_bends_far_away() -> Case:
    return far_away(_around([ZIGZAG, ZIGZAG[::-1]]))


def road_edges_back_to_back() -> Case:
    """The same line in both directions: the road is left of one and right of the other."""
    slanted = [(-7.3, -5.1), (-2.7, 0.2), (6.9, 1.7)]
    return far_away(_around([slanted, slanted[::-1], [(6, 5), (-6, 5)], [(-6, 5), (6, 5)]]))


def road_edges_that_continue_each_other() -> Case:
    """A line cut at each of its sharp bends, in order and not."""
    line = [(-8.1, -3.3), (-4.2, 4.7), (-2.9, -5.3), (0.3, 5.9), (1.1, -2.2), (8.7, -1.9)]
    cut = [line[index : index + 2] for index in (0, 1, 2, 4, 3)]
    return far_away(_around([*cut, [(7, 7), (5, 7)], [(7, 4), (7, 7)]]))


def many_points_the_same() -> Case:
    return _around(
        [
            [(-8, -3), (-8, -3), (-2, -3), (-2, -3), (-2, -3), (3, -2), (8, -3), (8, -3)],
            [(6, 3), (6, 3)],
            [(1, 5), (-4, 5)],
        ]
    )


def short_road_edges_among_others() -> Case:
    return _around([[(0, 0)], [], [(-8, -4), (8, -4)], [(3, 3)], [(8, 4), (1, 5), (-8, 4)]])


def a_ring_that_is_the_longest() -> Case:
    return _around([ring(), [(12, -12), (12, 12)]])


def a_ring_that_is_not_the_longest() -> Case:
    return _around([ring(), [(12.0, place) for place in np.linspace(-12, 12, 12)]])


def a_ring_as_long_as_another() -> Case:
    return _around([[(12.0, place) for place in np.linspace(-12, 12, 11)], ring()])


def a_ring_that_closes_between_two_tips() -> Case:
    return _around([ring(start=1)])


def an_island() -> Case:
    """The other way round: the road is outside."""
    return _around([ring()[::-1]])


def an_island_that_closes_between_two_tips() -> Case:
    return _around([ring(start=1)[::-1]])


def rings_not_quite_closed() -> Case:
    """Ends 0.9 m, 1 m and 1.1 m apart, and apart in height alone."""
    scenario = _around([]).scenario
    for gap in (0.9, 1.0, 1.1):
        add_polyline(scenario, "road_edge", [(6, 0), (6, 6), (-6, 6), (-6, 0), (6 - gap, 0)])
    above = [(5, -8, 0), (5, -2, 0), (-5, -2, 0), (-5, -8, 0), (5, -8, 1.5)]
    add_polyline(scenario, "road_edge", above)
    return Case(scenario, scattered(replay(scenario, 8), (-9, 9), (-9, 9)))


def roads_above_roads() -> Case:
    """The nearest road edge in height counts, and agents are between two of them."""
    scenario = empty_road()
    for height, half_width in ((0.0, 6.0), (5.0, 3.0), (9.0, 8.0)):
        for side in (-1, 1):
            points = [(-side * 20.0 * end, side * half_width, height + end) for end in (-1, 0, 1)]
            add_polyline(scenario, "road_edge", points)
    for height in (0.75, 3.0, 6.0, 12.0):
        add_agent(scenario, 0.0, 0.0, z=height)
    rollouts = scattered(replay(scenario, 8), (-22, 22), (-9, 9))
    rollouts["z"] += np.random.default_rng(1).uniform(-4, 4, rollouts["z"].shape)
    return Case(scenario, rollouts)


def agents_of_many_heights() -> Case:
    scenario = empty_road()
    for index in range(4):
        size = (CAR[0], CAR[1], 1.0 + 2 * index)
        add_agent(scenario, 0.0, 0.0, z=0.5 * index, size=size)
    return Case(scenario, scattered(replay(scenario), (-20, 20), (-6, 6)))


def ring(*, start: int = 0) -> list[tuple[float, float]]:
    """A star of five sharp tips, its inside on its left; the last point is the first, a tip."""
    angle = math.pi * np.arange(10) / 5
    radius = np.resize([8.0, 1.5], 10)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    points = np.roll(points, -start, axis=0)
    return [(x, y) for x, y in [*points.tolist(), points[0].tolist()]]


def _around(road_edges: list[Any]) -> Case:
    """Agents everywhere near some road edges: half of them at whole metres and right angles."""
    scenario = empty_road()
    remove(scenario, "road_edge")
    for points in road_edges:
        feature = scenario.map_features.add(id=1000 + len(scenario.map_features))
        feature.road_edge.type = 1
        add_points(feature.road_edge.polyline, points)
    for kind, size in ((1, (4.0, 2.0, 1.5)), (2, (0.5, 0.5, 1.8)), (3, (2.0, 1.0, 1.8))):
        add_agent(scenario, 0.0, 0.0, size=size, kind=kind)
    anywhere = scattered(replay(scenario, 8), (-9, 9), (-9, 9))
    on_grid = scattered(replay(scenario, 8), (-9, 9), (-9, 9), grid=0.5, right_angles=True)
    both = {
        name: np.concatenate([anywhere[name], on_grid[name]]) for name in ("x", "y", "z", "heading")
    }
    return Case(scenario, {"object_id": anywhere["object_id"], **both})
