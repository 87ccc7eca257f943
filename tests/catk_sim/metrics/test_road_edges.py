import itertools
import math

import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.datasets.batching import collate
from catk_sim.datatypes import MapFeatureType
from catk_sim.metrics import road_edge_distance
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import RoadEdges
from tests import scenes
from tests.catk_sim.metrics.maps import map_of, polyline, random_polylines


def distance(points: Tensor, edges: RoadEdges) -> Tensor:
    """Signed distances of (points, 3), each by itself."""
    valid = torch.ones(len(points), dtype=torch.bool)
    return signed_distance_to_road_edge(points[:, None], valid, edges)[:, 0]


def random_points(seed: int, num: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([60.0, 60.0, 4.0], dtype=torch.float64)
    return (torch.randn(num, 3, generator=generator, dtype=torch.float64) * spread).to(dtype)


def side(p: list[float], start: list[float], end: list[float]) -> int:
    cross = (p[0] - start[0]) * (end[1] - start[1]) - (p[1] - start[1]) * (end[0] - start[0])
    return (cross > 0) - (cross < 0)


def plain_distance(p: list[float], lines: list[list[list[float]]]) -> float:
    """The measure as the Sim Agents challenge defines it, one segment after the other."""
    best, signed = math.inf, -math.inf
    for line in lines:
        points = [line[0]] + [b for a, b in itertools.pairwise(line) if a[:2] != b[:2]]
        closed = math.dist(points[0], points[-1]) < 0.01
        num = len(points) - 1
        for i in range(num):
            a, b = points[i], points[i + 1]
            dx, dy = b[0] - a[0], b[1] - a[1]
            t = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / (dx * dx + dy * dy)
            tc = min(max(t, 0), 1)
            x, y, z = (p[k] - a[k] - tc * (b[k] - a[k]) for k in range(3))
            n = side(p, a, b)
            j = i - 1 if t < 0 else i + 1 if t > 1 else i
            if closed:
                j %= num
            if j != i and 0 <= j < num:
                arriving, leaving = (j, i) if t < 0 else (i, j)
                turns_left = side(points[leaving + 1], points[arriving], points[arriving + 1]) < 0
                n = (max if turns_left else min)(n, side(p, points[j], points[j + 1]))
            weighted = math.sqrt(x * x + y * y + (3 * z) ** 2)
            if weighted < best:
                best, signed = weighted, n * math.hypot(x, y)
    return signed


@given(seed=st.integers(0, 2**31))
def test_the_search_agrees_with_the_plain_definition(seed: int) -> None:
    lines, points = random_polylines(seed), random_points(seed, 20)
    found = distance(points, RoadEdges.from_roadgraph(map_of(lines)))
    plain = [plain_distance(point, [line.tolist() for line in lines]) for point in points.tolist()]
    torch.testing.assert_close(found, torch.tensor(plain, dtype=torch.float64), rtol=0, atol=1e-9)


@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_discarding_groups_unseen_changes_no_bit(seed: int, dtype: torch.dtype) -> None:
    lines = [line.to(dtype) for line in random_polylines(seed)]
    points = random_points(seed, 60, dtype)
    points[0] *= 1e4  # One is far away from everything.
    edges = RoadEdges.from_roadgraph(map_of(lines))
    endless = torch.where(edges.radius > 0, edges.radius + 1e9, edges.radius)
    everything = edges.replace(radius=endless)
    assert torch.equal(distance(points, edges), distance(points, everything))


def test_few_groups_are_looked_into() -> None:
    """A circle of a thousand segments around a point near its edge."""
    angle = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    circle = 100 * torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=-1)
    edges = RoadEdges.from_roadgraph(map_of([circle])).map(lambda tensor: tensor[None])
    point = torch.tensor([[[[90.0, 10.0, 0.0]]]], dtype=torch.float64)
    _, groups = road_edge_distance._near_groups(point, torch.tensor([[True]]), edges)
    assert len(groups) <= 8 < edges.radius.shape[-1]


def test_points_that_share_a_search_disturb_nobody() -> None:
    edges = RoadEdges.from_roadgraph(map_of(random_polylines(5)))
    points = random_points(5, 40)
    together = signed_distance_to_road_edge(
        points.reshape(10, 4, 3), torch.ones(10, dtype=torch.bool), edges
    )
    assert torch.equal(together.flatten(), distance(points, edges))


def test_distances_are_those_of_shapely_on_a_closed_road() -> None:
    """A road around a courtyard: its outer edge runs counter-clockwise, the inner one clockwise."""
    generator = torch.Generator().manual_seed(1)
    angle = torch.linspace(0, 2 * math.pi, 60, dtype=torch.float64)[:-1]
    wobble = 1 + 0.2 * torch.rand(59, generator=generator, dtype=torch.float64)
    ring = (wobble[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)).tolist()
    outer = [(30 * x, 30 * y) for x, y in ring]
    inner = [(10 * x, 10 * y) for x, y in reversed(ring)]
    road = shapely.Polygon(outer, [inner])
    edges = RoadEdges.from_roadgraph(
        map_of([polyline(*outer, outer[0]), polyline(*inner, inner[0])])
    )
    points = random_points(2, 10_000) * torch.tensor([0.4, 0.4, 0.0])
    shapes = shapely.points(points[:, :2].numpy())
    away = torch.as_tensor(shapely.distance(shapes, road.boundary))
    inside = torch.as_tensor(shapely.contains(road, shapes))
    assert 0.2 < inside.float().mean() < 0.8
    expected = torch.where(inside, -away, away)
    torch.testing.assert_close(distance(points, edges), expected, rtol=0, atol=1e-9)


def test_an_overpass_has_its_own_edge() -> None:
    """A street runs east at height 0; 6 m above it a bridge runs north."""
    street = polyline((-50, -4), (50, -4))
    bridge = polyline((4, -50), (4, 50), z=6.0)
    edges = RoadEdges.from_roadgraph(map_of([street, bridge]))
    points = torch.tensor([[3.0, 0.0, 0.0], [3.0, 0.0, 6.0]], dtype=torch.float64)
    assert distance(points, edges).tolist() == [-4.0, -1.0]


def test_only_road_edges_count() -> None:
    line = polyline((-5, 0), (5, 0))
    lane = RoadEdges.from_roadgraph(map_of([line], MapFeatureType.LANE_SURFACE_STREET))
    median = RoadEdges.from_roadgraph(map_of([line], MapFeatureType.ROAD_EDGE_MEDIAN))
    point = torch.tensor([[0.0, -2.0, 0.0]], dtype=torch.float64)
    assert distance(point, lane).item() == -math.inf
    assert distance(point, median).item() == 2


def test_a_polyline_of_one_point_is_no_edge() -> None:
    edges = RoadEdges.from_roadgraph(map_of([polyline((0, 0)), polyline((7, 0), (7, 0))]))
    assert distance(torch.zeros(1, 3, dtype=torch.float64), edges).item() == -math.inf


def test_polylines_are_not_joined_to_each_other() -> None:
    """Two edges that both run east. Between them nothing."""
    edges = RoadEdges.from_roadgraph(
        map_of([polyline((-20, 0), (-10, 0)), polyline((10, 0), (20, 0))])
    )
    point = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    assert distance(point, edges).item() == pytest.approx(-math.hypot(10, 1))


def test_an_invalid_cluster_is_nowhere() -> None:
    edges = RoadEdges.from_roadgraph(scenes.straight_road().roadgraph)
    points = torch.zeros(2, 1, 3)
    found = signed_distance_to_road_edge(points, torch.tensor([True, False]), edges)
    assert found.flatten().tolist() == [-4.0, -math.inf]


def test_a_batch_of_maps_acts_as_its_members() -> None:
    small = scenes.straight_road()
    large = small.replace(
        roadgraph=map_of([line.float() for line in random_polylines(7)]), scenario_id=("large",)
    )
    batch = RoadEdges.from_roadgraph(collate([small, large]).roadgraph)
    points = random_points(3, 50, torch.float32)[:, None]
    valid = torch.ones(50, dtype=torch.bool)
    found = signed_distance_to_road_edge(points.expand(2, -1, 1, 3), valid.expand(2, -1), batch)
    for index, member in enumerate((small, large)):
        alone = RoadEdges.from_roadgraph(member.roadgraph)
        assert torch.equal(found[index], signed_distance_to_road_edge(points, valid, alone))


@pytest.mark.parametrize("pairs", [1, 500, 1 << 20])
def test_bounding_the_memory_changes_nothing(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = RoadEdges.from_roadgraph(map_of(random_polylines(4)))
    points = random_points(4, 100)
    expected = distance(points, edges)
    monkeypatch.setattr(road_edge_distance, "MAX_PAIRS", pairs)
    assert torch.equal(distance(points, edges), expected)


@pytest.mark.parametrize("clusters", [0, 3])
def test_no_points_have_no_distance(clusters: int) -> None:
    edges = RoadEdges.from_roadgraph(scenes.straight_road().roadgraph)
    found = signed_distance_to_road_edge(
        torch.zeros(clusters, 4, 3), torch.zeros(clusters, dtype=torch.bool), edges
    )
    assert found.shape == (clusters, 4)
