"""Collisions and departures of the ego, against shapely: at random, and in all real scenarios."""

import functools

import numpy as np
import pytest
import shapely
import torch
from numpy import ndarray
from torch import Tensor

from catk_sim.datasets import open_scenarios
from catk_sim.datatypes import MapFeatureType, Scenario
from catk_sim.geometry.boxes import boxes_overlap
from catk_sim.metrics.offroad import distance_to_road_edge
from catk_sim.metrics.planning.collisions import ego_collisions
from catk_sim.metrics.planning.ego import Boxes, EgoScenes
from catk_sim.metrics.road_edges import RoadEdges
from tests.shared import shared_path

NUM_PAIRS = 10_000
"""Pairs of each kind."""


def plain_corners(xy: ndarray, heading: ndarray, size: ndarray) -> ndarray:
    """The corners of boxes, by numpy: shape (..., 4, 2)."""
    ahead = np.stack([np.cos(heading), np.sin(heading)], axis=-1) * size[..., :1] / 2
    left = np.stack([-np.sin(heading), np.cos(heading)], axis=-1) * size[..., 1:2] / 2
    around = [ahead + left, ahead - left, -ahead - left, left - ahead]
    return np.stack([xy + corner for corner in around], axis=-2)


def shares_area(one: ndarray, other: ndarray) -> ndarray:
    """Whether boxes share more than their boundaries, by shapely."""
    first, second = shapely.polygons(one), shapely.polygons(other)
    return np.asarray(shapely.intersects(first, second) & ~shapely.touches(first, second))


def boxes_of(xy: Tensor, heading: Tensor, size: Tensor) -> Boxes:
    return Boxes(xy=xy, heading=heading, size=size, velocity=torch.zeros_like(xy))


def agree(one: Boxes, other: Boxes, dtype: torch.dtype) -> tuple[ndarray, ndarray]:
    """What we say in a precision, and what shapely says of the same numbers."""
    one, other = one.to(dtype), other.to(dtype)
    found = boxes_overlap(one.xy, one.heading, one.size, other.xy, other.heading, other.size)
    exact = [box.to(torch.float64) for box in (one, other)]
    corners = [plain_corners(b.xy.numpy(), b.heading.numpy(), b.size.numpy()) for b in exact]
    return found.numpy(), shares_area(*corners)


def random_pairs(seed: int) -> tuple[Boxes, Boxes]:
    """Boxes of all sizes, about half of which overlap."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(NUM_PAIRS, *shape, generator=generator, dtype=torch.float64)
        return low + (high - low) * drawn

    place = uniform(-100, 100, 2)
    one = boxes_of(place, uniform(-7, 7), uniform(0.3, 12, 3))
    return one, boxes_of(place + uniform(-7, 7, 2), uniform(-7, 7), uniform(0.3, 12, 3))


def pairs_with_gap(gap: Tensor) -> tuple[Boxes, Boxes]:
    """Pairs so far apart; negative: so deep in each other. A corner of one faces a side."""
    generator = torch.Generator().manual_seed(7)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(len(gap), *shape, generator=generator, dtype=torch.float64)
        return low + (high - low) * drawn

    size, other_size, turn = uniform(0.5, 12, 3), uniform(0.5, 12, 3), uniform(0.05, 1.5)
    half, other_half = size / 2, other_size / 2
    cos, sin = turn.cos(), turn.sin()
    # The other one's leftmost corner, as seen from its centre.
    left = torch.stack([-other_half[:, 0] * cos - other_half[:, 1] * sin], dim=-1)[:, 0]
    up = other_half[:, 1] * cos - other_half[:, 0] * sin
    x = half[:, 0] + gap - left
    y = 0.9 * half[:, 1] * uniform(-1, 1) - up
    heading, place = uniform(-7, 7), uniform(-100, 100, 2)
    world = torch.stack(
        [heading.cos() * x - heading.sin() * y, heading.sin() * x + heading.cos() * y], dim=-1
    )
    one = boxes_of(place, heading, size)
    return one, boxes_of(place + world, heading + turn, other_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_boxes_overlap_where_shapely_says(dtype: torch.dtype) -> None:
    """None is left out: in 10,000 pairs, none is as close as the precision."""
    found, expected = agree(*random_pairs(0), dtype)
    assert np.array_equal(found, expected)
    assert 3000 < expected.sum() < 7000


@pytest.mark.parametrize(
    ("dtype", "gap"), [(torch.float64, 1e-9), (torch.float64, 1e-12), (torch.float32, 1e-4)]
)
def test_near_misses_are_misses_and_near_hits_are_hits(dtype: torch.dtype, gap: float) -> None:
    """A hundred metres out: ten or more times what the precision resolves there."""
    gaps = gap * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(NUM_PAIRS // 2)
    found, expected = agree(*pairs_with_gap(gaps), dtype)
    assert np.array_equal(expected, (gaps < 0).numpy())
    assert np.array_equal(found, expected)


def test_boxes_that_touch_do_not_overlap() -> None:
    """Side to side or corner to corner, on a grid that floats resolve exactly."""
    generator = torch.Generator().manual_seed(3)

    def grid(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, (NUM_PAIRS, *shape), generator=generator) / 4.0

    size, other_size = grid(2, 40, 3), grid(2, 40, 3)
    reach = (size + other_size)[:, :2] / 2
    signs = torch.randint(0, 2, (NUM_PAIRS, 2), generator=generator) * 2 - 1
    apart = reach * signs
    # A third corner to corner; of the others, one coordinate is anywhere within reach.
    inner = apart * torch.rand(NUM_PAIRS, 2, generator=generator).mul(8).floor().div(8)
    kind = torch.arange(NUM_PAIRS)[:, None] % 3
    keep = torch.tensor([[True, True], [True, False], [False, True]])[kind[:, 0]]
    place, heading = grid(-400, 400, 2), torch.zeros(NUM_PAIRS)
    one = boxes_of(place, heading, size)
    other = boxes_of(place + torch.where(keep, apart, inner), heading, other_size)
    for dtype in (torch.float32, torch.float64):
        found, expected = agree(one, other, dtype)
        assert not expected.any()
        assert not found.any()
    deeper = other.replace(xy=other.xy - torch.where(keep, 0.25, 0.0) * signs)
    for dtype in (torch.float32, torch.float64):
        found, expected = agree(one, deeper, dtype)
        assert expected.all()
        assert found.all()


@functools.cache
def real_scenes() -> list[Scenario]:
    """The Scenario proto and the 122 JSON scenes, in float64."""
    proto = shared_path("data/womd_scenario_proto") / "motion_data_one_scenario.tfrecord"
    return [*open_scenarios(proto), *open_scenarios(shared_path("data/womd_gpudrive_json"))]


@pytest.mark.slow
def test_the_real_ego_touches_whom_shapely_says_at_every_step() -> None:
    """Of 123 scenarios, all agents and steps, as they are simulated: in float32."""
    pairs = touching = 0
    for scenario in map(single, real_scenes()):
        found = EgoScenes.of(scenario.log, scenario)
        never = torch.zeros_like(found.valid)
        touches = ego_collisions(found, never).touches[0, 0].numpy()
        log, ego = scenario.log.to(torch.float64), int(found.index)
        size = np.broadcast_to(
            scenario.agents.size.double().numpy()[:, None], (*log.valid.shape, 3)
        )
        corners = plain_corners(log.xy.numpy(), log.heading.numpy(), size)
        other = (log.valid & log.valid[ego]).numpy()
        other[ego] = False
        agent, step = other.nonzero()
        expected = np.zeros_like(touches)
        expected[agent, step] = shares_area(corners[ego, step], corners[agent, step])
        assert np.array_equal(touches, expected), scenario.scenario_id
        pairs, touching = pairs + len(agent), touching + int(expected.sum())
    assert len(real_scenes()) == 123
    assert pairs > 400_000
    assert touching == 34


@pytest.mark.slow
def test_the_real_ego_is_off_the_road_where_a_plain_oracle_says_at_every_step() -> None:
    """Of 123 scenarios, every step, against all road edges one by one, in float64."""
    departed = {}
    for scenario in map(single, real_scenes()):
        found = EgoScenes.of(scenario.log, scenario)
        edges = RoadEdges.from_roadgraph(found.scenario.roadgraph)
        offroad = distance_to_road_edge(found.ego, found.ego_agent, edges).value[0, 0, 0] > 0
        expected = plain_offroad(scenario)
        assert np.array_equal(offroad.numpy(), expected), scenario.scenario_id
        if expected.any():
            departed[scenario.scenario_id[0]] = int(expected.sum())
    assert departed == {"46d58e814819df0a": 91}


def single(scenario: Scenario) -> Scenario:
    return scenario.to(torch.float32)


def plain_offroad(scenario: Scenario) -> ndarray:
    """Whether a corner of the ego is to the right of the nearest road edge, at each step."""
    scenario = scenario.to(torch.float64)
    ego = int(scenario.agents.is_sdc.nonzero())
    size = scenario.agents.size[ego].numpy()
    log = scenario.log
    sizes = np.broadcast_to(size, (log.num_steps, 3))
    corners = plain_corners(log.xy[ego].numpy(), log.heading[ego].numpy(), sizes)
    ground = np.broadcast_to(
        (log.z[ego].numpy() - size[2] / 2)[:, None, None], (log.num_steps, 4, 1)
    )
    points = np.concatenate([corners, ground], axis=-1).reshape(-1, 3)
    signed = plain_signed_distance(points, road_edge_lines(scenario))
    return np.asarray((signed.reshape(-1, 4) > 0).any(axis=1))


def road_edge_lines(scenario: Scenario) -> list[ndarray]:
    road = scenario.roadgraph
    is_edge = MapFeatureType.is_road_edge(road.feature_type)
    lines = []
    for feature in is_edge.nonzero()[:, 0]:
        points = road.xyz[(road.feature == feature) & road.point_valid].numpy()
        moves = np.any(points[1:, :2] != points[:-1, :2], axis=1)
        if moves.any():
            lines.append(np.concatenate([points[:-1][moves], points[1:][moves][-1:]]))
    return lines


def plain_signed_distance(points: ndarray, lines: list[ndarray]) -> ndarray:
    """To the nearest of all edges, height counting threefold; positive to the right of it."""
    least, signed = np.full(len(points), np.inf), np.full(len(points), -np.inf)
    for line in sorted(lines, key=lambda line: box_gap(points, line)):
        if box_gap(points, line) > least.max():
            break
        start, step = line[:-1], np.diff(line, axis=0)
        offset = points[:, None] - start
        along = (offset[..., :2] * step[:, :2]).sum(-1) / (step[:, :2] ** 2).sum(-1)
        rest = offset - np.clip(along, 0, 1)[..., None] * step
        distance = np.sqrt((rest[..., :2] ** 2).sum(-1) + (3 * rest[..., 2]) ** 2)
        nearest = distance.argmin(axis=1)
        rows = np.arange(len(points))
        near = distance[rows, nearest]
        # Only where this line is the nearest so far need the side be known.
        for row in np.flatnonzero(near < least):
            side = plain_side(points[row], line, int(nearest[row]), along[row, nearest[row]])
            least[row] = near[row]
            signed[row] = side * np.hypot(*rest[row, nearest[row], :2])
    return signed


def box_gap(points: ndarray, line: ndarray) -> float:
    """How far, at least, all of the points are from all of the line: as the boxes around are."""
    below = line.min(axis=0)[:2] - points.max(axis=0)[:2]
    above = points.min(axis=0)[:2] - line.max(axis=0)[:2]
    return float(np.hypot(*np.maximum(np.maximum(below, above), 0)))


def plain_side(point: ndarray, line: ndarray, index: int, along: float) -> float:
    """1 to the right of a polyline, -1 to its left. At a bend, what both segments say."""
    last = len(line) - 2
    is_closed = np.linalg.norm(line[-1] - line[0]) < 0.01

    def of(segment: int) -> float:
        x, y = point[:2] - line[segment, :2]
        dx, dy = line[segment + 1, :2] - line[segment, :2]
        return float(np.sign(x * dy - y * dx))

    def at_bend(before: int, after: int) -> float:
        (ax, ay), (bx, by) = (line[i + 1, :2] - line[i, :2] for i in (before, after))
        turns_left = ax * by - ay * bx > 0
        return max(of(before), of(after)) if turns_left else min(of(before), of(after))

    if along < 0 and (index > 0 or is_closed):
        return at_bend(index - 1 if index else last, index)
    if along > 1 and (index < last or is_closed):
        return at_bend(index, index + 1 if index < last else 0)
    return of(index)
