import math

import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.datasets.batching import collate
from catk_sim.datatypes import MapFeatureType, Scenario
from catk_sim.metrics import road_edge_distance, road_edge_search
from catk_sim.metrics.road_edge_distance import signed_distance_to_road_edge
from catk_sim.metrics.road_edges import EdgeRule, RoadEdges
from tests import scenes
from tests.catk_sim.metrics.maps import map_of, polyline, random_polylines
from tests.catk_sim.metrics.road_edge_reference import plain_distance


def distance(points: Tensor, edges: RoadEdges) -> Tensor:
    """Signed distances of (points, 3), each by itself."""
    valid = torch.ones(len(points), dtype=torch.bool)
    return signed_distance_to_road_edge(points[:, None], valid, edges)[:, 0]


def random_points(seed: int, num: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([60.0, 60.0, 4.0], dtype=torch.float64)
    return (torch.randn(num, 3, generator=generator, dtype=torch.float64) * spread).to(dtype)


RULES = list(EdgeRule)


def scene_on(seed: int, num_lines: int = 12) -> Scenario:
    lines = [line.float() for line in random_polylines(seed, num_lines)]
    return scenes.straight_road().replace(roadgraph=map_of(lines), scenario_id=(str(seed),))


def odd_lines(seed: int, dtype: torch.dtype) -> list[Tensor]:
    """Lines as maps have them, and lines as they should not."""
    generator = torch.Generator().manual_seed(seed)

    def chance(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    lines = random_polylines(seed, 8)
    angle = torch.linspace(0, 2 * math.pi, 150, dtype=torch.float64)
    circle = torch.stack([20 * angle.cos(), 30 * angle.sin(), angle], dim=-1)
    for gap in (0.0, 0.005, 0.6, 1.5):
        # Closed and nearly so, in the plane or in space, and as the longest or not.
        ring = circle[:: 1 + int(4 * chance())] * torch.tensor([1.0, 1.0, float(chance() < 0.5)])
        ring[-1, :2] = ring[0, :2] + torch.tensor([gap, 0.0])
        lines.append(ring + 40 * (chance(3) - 0.5))
    for height in (0.0, 0.0, 6.0):
        # On a grid: points are on lines and on their continuations, and equally near to several.
        walk = (5 * chance(40, 2) - 2.5).round().cumsum(0)
        lines.append(torch.cat([walk, torch.full((40, 1), height)], dim=1))
    lines.append(lines[0][:1])
    order = chance(len(lines)).argsort().tolist()
    return [lines[i].to(dtype) for i in order[: 1 + int(len(order) * chance())]]


def odd_points(seed: int, lines: list[Tensor]) -> Tensor:
    """Points anywhere, on a grid, on vertices, between them, beside them and very far away."""
    generator = torch.Generator().manual_seed(seed)
    dtype = lines[0].dtype
    vertices = torch.cat(lines)
    vertices = vertices[torch.randint(len(vertices), (20,), generator=generator)]
    middles = torch.cat([(line[:-1] + line[1:]) / 2 for line in lines])[:40]
    beside = vertices + 0.1 * torch.randn(20, 3, generator=generator, dtype=dtype)
    grid = torch.randint(-12, 13, (40, 3), generator=generator).to(dtype)
    far = 3e4 * random_points(seed + 1, 4, dtype)
    return torch.cat([random_points(seed, 30, dtype), vertices, middles, beside, grid, far])


@given(
    seed=st.integers(0, 2**31),
    rule=st.sampled_from(RULES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_the_search_finds_what_looking_at_every_segment_finds(
    seed: int, rule: EdgeRule, dtype: torch.dtype
) -> None:
    """To the last bit: of several segments that are equally near, the same one."""
    lines = odd_lines(seed, dtype)
    points = odd_points(seed, lines)
    found = distance(points, RoadEdges.from_roadgraph(map_of(lines), rule))
    assert torch.equal(found, plain_distance(points, lines, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("origin", [(8000.0, -6000.0, 200.0), (1e5, 1e5, 0.0)])
def test_the_search_is_exact_where_numbers_are_coarse(
    origin: tuple[float, float, float], rule: EdgeRule
) -> None:
    """To half a millimetre, and to a centimetre."""
    for seed in range(8):
        lines = [line + torch.tensor(origin) for line in odd_lines(seed, torch.float32)]
        points = odd_points(seed, lines)
        found = distance(points, RoadEdges.from_roadgraph(map_of(lines), rule))
        assert torch.equal(found, plain_distance(points, lines, rule))


def test_clusters_are_searched_as_their_points_are() -> None:
    """Boxes, and points that should not share a search because they are far from each other."""
    for seed in range(10):
        lines = odd_lines(seed, torch.float32)
        points = odd_points(seed, lines)[:120]
        near = points[:, None] + torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        for clusters in (near, points.reshape(-1, 4, 3)):
            valid = torch.ones(len(clusters), dtype=torch.bool)
            edges = RoadEdges.from_roadgraph(map_of(lines))
            found = signed_distance_to_road_edge(clusters, valid, edges)
            expected = plain_distance(clusters.flatten(0, 1), lines, EdgeRule.OURS)
            assert torch.equal(found.flatten(), expected)


# A square of four segments around a block of houses, whose ends leave a gap, and a longer line.
@pytest.mark.parametrize(
    ("gap", "rise", "with_longer", "closed"),
    [
        (0.0, 0.0, False, [True, True, True]),
        (0.0, 0.0, True, [True, False, True]),
        (0.005, 0.0, False, [True, True, True]),
        (0.02, 0.0, False, [False, True, True]),
        (0.99, 0.0, False, [False, True, True]),
        (1.01, 0.0, False, [False, False, False]),
        (0.0, 0.99, False, [False, True, True]),
        (0.0, 1.01, False, [False, False, True]),
    ],
)
def test_each_rule_closes_the_lines_it_should(
    gap: float, rise: float, with_longer: bool, closed: list[bool]
) -> None:
    square = polyline((-9, 0), (0, 9), (9, 0), (0, -9), (-9, -gap))
    square[-1, 2] = rise
    longer = polyline(*((x, 50.0) for x in range(6)))
    lines = [square, longer] if with_longer else [square, longer[:5], longer[:1]]
    for rule, is_closed in zip(RULES, closed, strict=True):
        edges = RoadEdges.from_roadgraph(map_of(lines), rule)
        previous, following = edges.previous.flatten(), edges.following.flatten()
        assert previous[:4].tolist() == [3 if is_closed else 0, 0, 1, 2]
        assert following[:4].tolist() == [1, 2, 3, 0 if is_closed else 3]


def test_a_repeated_point_counts_as_an_edge_with_no_sides_in_wosac() -> None:
    """The first of two equal points: the segment between them comes first of the nearest."""
    line = polyline((0, 0), (0, 0), (5, 0))
    point = torch.tensor([[-1.0, -2.0, 0.0]], dtype=torch.float64)
    found = [
        distance(point, RoadEdges.from_roadgraph(map_of([line]), rule)).item() for rule in RULES
    ]
    assert found == [math.hypot(1, 2), 0, 0]


def test_in_2023_a_line_without_a_side_of_the_point_decides_however_far_it_is() -> None:
    """The point is on the continuation of the second line."""
    lines = [polyline((0, -1), (5, -1)), polyline((50, 0), (60, 0))]
    point = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    found = [
        distance(point, RoadEdges.from_roadgraph(map_of(lines), rule)).item() for rule in RULES
    ]
    assert found == [-1, -1, 0]


def test_in_2023_height_plays_no_part() -> None:
    lines = [polyline((-5, -1), (5, -1)), polyline((5, 3), (-5, 3), z=50.0)]
    point = torch.tensor([[0.0, 1.5, 0.0]], dtype=torch.float64)
    found = [
        distance(point, RoadEdges.from_roadgraph(map_of(lines), rule)).item() for rule in RULES
    ]
    assert found == [-2.5, -2.5, -1.5]


def test_a_search_looks_into_few_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle of a thousand segments around points near its edge."""
    angle = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    circle = 100 * torch.stack([angle.cos(), angle.sin(), 0 * angle], dim=-1)
    edges = RoadEdges.from_roadgraph(map_of([circle]))
    points = 0.95 * circle[:50] + 0.1
    seen: list[int] = []
    measure = road_edge_search.weighted_square

    def counted(offset: tuple[Tensor, ...]) -> Tensor:
        seen.append(offset[0].numel())
        return measure(offset)

    monkeypatch.setattr(road_edge_search, "weighted_square", counted)
    distance(points, edges)
    assert sum(seen) <= 50 * 2 * 8


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


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_of_maps_acts_as_its_members(rule: EdgeRule) -> None:
    small, large = scenes.straight_road(), scene_on(7)
    batch = RoadEdges.from_roadgraph(collate([small, large]).roadgraph, rule)
    points = random_points(3, 50, torch.float32)[:, None]
    valid = torch.ones(50, dtype=torch.bool)
    found = signed_distance_to_road_edge(points.expand(2, -1, 1, 3), valid.expand(2, -1), batch)
    for index, member in enumerate((small, large)):
        alone = RoadEdges.from_roadgraph(member.roadgraph, rule)
        assert torch.equal(found[index], signed_distance_to_road_edge(points, valid, alone))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pairs", [1, 50, 1 << 20])
def test_bounding_the_memory_changes_nothing(
    pairs: int, rule: EdgeRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = RoadEdges.from_roadgraph(map_of(random_polylines(4)), rule)
    points = random_points(4, 30)
    expected = distance(points, edges)
    monkeypatch.setattr(road_edge_distance, "MAX_PAIRS", pairs)
    monkeypatch.setattr(road_edge_search, "MAX_BLOCKS", pairs)
    monkeypatch.setattr(road_edge_search, "MAX_GROUPS", pairs)
    assert torch.equal(distance(points, edges), expected)


@pytest.mark.parametrize("longest", [10, 3000, 50_000])
def test_parts_of_a_search_are_small_and_lose_nothing(longest: int) -> None:
    generator = torch.Generator().manual_seed(longest)
    counts = torch.randint(longest, (200,), generator=generator).tolist()
    largest = road_edge_search.MAX_GROUPS + max(counts)
    parts = road_edge_search._parts(torch.tensor(counts))
    assert [count for part in parts for count in counts[part]] == counts
    assert all(sum(counts[part]) <= largest for part in parts)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clusters", [0, 3])
def test_no_points_have_no_distance(clusters: int, rule: EdgeRule) -> None:
    edges = RoadEdges.from_roadgraph(scenes.straight_road().roadgraph, rule)
    found = signed_distance_to_road_edge(
        torch.zeros(clusters, 4, 3), torch.zeros(clusters, dtype=torch.bool), edges
    )
    assert found.shape == (clusters, 4)


def test_each_map_of_a_batch_is_arranged_as_it_is_alone() -> None:
    """Also where the last line of one map and the first of the next have the same number."""
    alone = RoadEdges.from_roadgraph(scene_on(1, 1).roadgraph)
    both = RoadEdges.from_roadgraph(collate([scene_on(1, 1)] * 2).roadgraph)
    for edges in (both.select(0), both.select(1)):
        for name in ("segment", "previous", "following", "center", "radius"):
            assert torch.equal(getattr(edges, name), getattr(alone, name))


def test_points_for_other_maps_are_refused() -> None:
    edges = RoadEdges.from_roadgraph(scenes.straight_road().roadgraph).repeat(3)
    valid = torch.ones(2, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"for maps \(3,\), got \(2,\)"):
        signed_distance_to_road_edge(torch.zeros(2, 5, 1, 3), valid, edges)
