import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from catk_sim.constants import CURRENT_STEP
from catk_sim.datatypes import (
    LaneLinks,
    LaneLinkType,
    MapFeatureType,
    RoadGraph,
    Scenario,
    TrafficLights,
    TrafficLightState,
)
from policies.smart.map_tokens import LaneLight, MapTokens, PointType, PolygonType, tokenize_map
from policies.smart.map_vocabulary import map_vocabulary, map_vocabulary_digest, match_curves
from tests import scenes
from tests.policies.smart import reference
from tests.shared import shared_path

CURVES = map_vocabulary()
NO_LIGHTS = TrafficLights(
    lane_id=torch.zeros(0, dtype=torch.int64),
    state=torch.zeros(0, 91, dtype=torch.int64),
    stop_xyz=torch.zeros(0, 91, 3),
    valid=torch.zeros(0, 91, dtype=torch.bool),
)


def road(kind: MapFeatureType, *points: tuple[float, float]) -> RoadGraph:
    """A map of one feature, whose id is 7."""
    one = torch.zeros(1, dtype=torch.int64)
    links = scenes.straight_road().roadgraph.links
    return RoadGraph(
        xyz=torch.tensor([[x, y, 0.0] for x, y in points]),
        feature=torch.zeros(len(points), dtype=torch.int64),
        point_valid=torch.ones(len(points), dtype=torch.bool),
        feature_id=one + 7,
        feature_type=one + int(kind),
        speed_limit=torch.zeros(1),
        interpolating=one > 0,
        feature_valid=one == 0,
        links=links,
    )


def line(length: float, spacing: float = 1.0) -> list[tuple[float, float]]:
    """Points along the x axis."""
    return [(spacing * i, 0.0) for i in range(round(length / spacing) + 1)]


def tokenize(roadgraph: RoadGraph, lights: TrafficLights = NO_LIGHTS) -> MapTokens:
    return tokenize_map(roadgraph, lights, CURVES)


def test_a_lane_is_cut_every_five_metres() -> None:
    """21 m, of which the last point is left out: 20 m."""
    tokens = tokenize(road(MapFeatureType.LANE_SURFACE_STREET, *line(21)))
    assert tokens.xy.tolist() == [[0.0, 0.0], [5.0, 0.0], [10.0, 0.0], [15.0, 0.0]]
    assert tokens.heading.tolist() == [0.0] * 4
    straight = torch.tensor([[0.0, 0.0], [2.5, 0.0], [5.0, 0.0]])
    torch.testing.assert_close(tokens.curve_local, straight.expand(4, 3, 2))
    assert CURVES[tokens.token[0]][-1].tolist() == [5.0, 0.0]


@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (1.0, [1.0]),  # three samples by themselves are enough,
        (0.5, []),  # two are not.
        (6.0, [5.0]),  # Behind a full token two are too few,
        (6.5, [5.0, 1.5]),  # three are enough.
    ],
)
def test_what_is_left_over_makes_a_token_if_it_is_long_enough(
    length: float, lengths: list[float]
) -> None:
    points = [(i * length / 3, 0.0) for i in range(4)] + [(length + 0.1, 0.0)]
    tokens = tokenize(road(MapFeatureType.LANE_SURFACE_STREET, *points))
    ends = [x for x, _ in tokens.curve_local[:, 2].tolist()]
    assert ends == pytest.approx(lengths, abs=1e-5)


@pytest.mark.parametrize("shift", [6.85, 31.51, 126.04])
def test_rounding_makes_no_token(shift: float) -> None:
    """6 m leave two samples behind a full token, wherever the lane is."""
    lane = road(MapFeatureType.LANE_SURFACE_STREET, *line(7, spacing=0.1))
    moved = lane.to(torch.float64)
    moved = moved.replace(xyz=(10 * moved.xyz).round() / 10 + shift)
    moved = moved.replace(point_valid=moved.xyz[:, 0] < shift + 6.15)
    assert len(tokenize(moved).valid) == 1


def test_a_gap_of_more_than_three_metres_cuts_a_line() -> None:
    points = [*line(4), *[(x + 8.0, 0.0) for x, _ in line(5)]]
    tokens = tokenize(road(MapFeatureType.ROAD_LINE_BROKEN_SINGLE_WHITE, *points))
    assert tokens.xy[:, 0].tolist() == [0.0, 8.0]
    assert tokens.curve_local[:, 2, 0].tolist() == pytest.approx([4.0, 4.0])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_line_of_three_points_makes_no_token(count: int) -> None:
    points = line(20)[: 2 * count : 2]
    tokens = tokenize(road(MapFeatureType.LANE_SURFACE_STREET, *points))
    assert tokens.valid.shape == (0,)


@pytest.mark.parametrize("further", [[], [(0.0, 2.0), (5.0, 4.0), (10.0, 2.0), (5.0, 0.0)]])
def test_a_crossing_is_drawn_by_its_long_sides_in_both_directions(
    further: list[tuple[float, float]],
) -> None:
    """A crosswalk 10 m long and 4 m wide, also with a further point after each corner."""
    corners = [(0.0, 0.0), (0.0, 4.0), (10.0, 4.0), (10.0, 0.0)]
    points = [point for pair in zip(corners, further, strict=False) for point in pair] or corners
    tokens = tokenize(road(MapFeatureType.CROSSWALK, *points))
    begins = sorted(
        (*xy, abs(h)) for xy, h in zip(tokens.xy.tolist(), tokens.heading.tolist(), strict=True)
    )
    east, west = 0.0, pytest.approx(math.pi)
    assert begins == [
        (0.0, 0.0, east),
        (0.0, 4.0, east),
        (5.0, 0.0, east),
        (5.0, 0.0, west),
        (5.0, 4.0, east),
        (5.0, 4.0, west),
        (10.0, 0.0, west),
        (10.0, 4.0, west),
    ]
    assert set(tokens.point_type.tolist()) == {PointType.CROSSING}
    assert set(tokens.polygon_type.tolist()) == {PolygonType.CROSSING}


@pytest.mark.parametrize(
    ("kind", "point_type", "polygon_type"),
    [
        (MapFeatureType.LANE_FREEWAY, PointType.FREEWAY, PolygonType.LANE),
        (MapFeatureType.LANE_UNDEFINED, PointType.SURFACE_STREET, PolygonType.LANE),
        (MapFeatureType.LANE_BIKE_LANE, PointType.BIKE_LANE, PolygonType.LANE),
        (MapFeatureType.ROAD_EDGE_UNKNOWN, PointType.ROAD_BOUNDARY, PolygonType.ROAD_EDGE),
        (MapFeatureType.ROAD_EDGE_BOUNDARY, PointType.ROAD_BOUNDARY, PolygonType.ROAD_EDGE),
        (MapFeatureType.ROAD_EDGE_MEDIAN, PointType.MEDIAN, PolygonType.ROAD_EDGE),
        (
            MapFeatureType.ROAD_LINE_BROKEN_DOUBLE_YELLOW,
            PointType.BROKEN_LINE,
            PolygonType.ROAD_LINE,
        ),
        (MapFeatureType.ROAD_LINE_SOLID_SINGLE_WHITE, PointType.SOLID_LINE, PolygonType.ROAD_LINE),
        (MapFeatureType.ROAD_LINE_UNKNOWN, PointType.OTHER_LINE, PolygonType.ROAD_LINE),
        (
            MapFeatureType.ROAD_LINE_PASSING_DOUBLE_YELLOW,
            PointType.OTHER_LINE,
            PolygonType.ROAD_LINE,
        ),
    ],
)
def test_a_line_has_its_kind(
    kind: MapFeatureType, point_type: PointType, polygon_type: PolygonType
) -> None:
    tokens = tokenize(road(kind, *line(6)))
    assert tokens.point_type.tolist() == [point_type]
    assert tokens.polygon_type.tolist() == [polygon_type]


def test_a_stop_sign_makes_no_token() -> None:
    assert tokenize(road(MapFeatureType.STOP_SIGN, (0.0, 0.0))).valid.shape == (0,)


@pytest.mark.parametrize(
    ("kind", "point_type"),
    [
        (MapFeatureType.LANE_SURFACE_STREET, PointType.STOP_SIGN_LANE),
        (MapFeatureType.LANE_FREEWAY, PointType.STOP_SIGN_LANE),
        (MapFeatureType.LANE_BIKE_LANE, PointType.BIKE_LANE),
        (MapFeatureType.ROAD_EDGE_MEDIAN, PointType.MEDIAN),
    ],
)
def test_a_lane_with_a_stop_sign_is_one(kind: MapFeatureType, point_type: PointType) -> None:
    one = torch.zeros(1, dtype=torch.int64)
    links = LaneLinks(
        feature=one,
        type=one + int(LaneLinkType.STOP_SIGN_LANE),
        other_id=one + 7,
        span=torch.zeros(1, 4, dtype=torch.int64),
        boundary_type=one,
        neighbor=one,
        valid=one == 0,
    )
    roadgraph = road(kind, *line(6)).replace(links=links)
    assert tokenize(roadgraph).point_type.tolist() == [point_type]
    other = roadgraph.replace(links=links.replace(other_id=one + 8))
    assert tokenize(other).point_type.tolist() != [PointType.STOP_SIGN_LANE]


def light(*states: TrafficLightState, lane: int = 7) -> TrafficLights:
    """Lights of one lane, the first of which goes out after the current step."""
    valid = torch.ones(len(states), 91, dtype=torch.bool)
    valid[0, CURRENT_STEP + 1 :] = False
    return TrafficLights(
        lane_id=torch.full((len(states),), lane),
        state=torch.tensor([int(state) for state in states])[:, None].expand(-1, 91),
        stop_xyz=torch.zeros(len(states), 91, 3),
        valid=valid,
    )


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        ([TrafficLightState.UNKNOWN], LaneLight.UNKNOWN),
        ([TrafficLightState.ARROW_GO], LaneLight.GO),
        ([TrafficLightState.FLASHING_CAUTION], LaneLight.CAUTION),
        ([TrafficLightState.STOP], LaneLight.STOP),
        ([TrafficLightState.GO, TrafficLightState.ARROW_STOP], LaneLight.STOP),
        ([TrafficLightState.CAUTION, TrafficLightState.GO], LaneLight.CAUTION),
    ],
)
def test_a_lane_shows_its_most_restrictive_light(
    states: list[TrafficLightState], shown: LaneLight
) -> None:
    lane = road(MapFeatureType.LANE_SURFACE_STREET, *line(6))
    assert tokenize(lane, light(*states)).light.tolist() == [shown]
    assert tokenize(lane, light(*states, lane=8)).light.tolist() == [LaneLight.NONE]
    edge = road(MapFeatureType.ROAD_EDGE_MEDIAN, *line(6))
    assert tokenize(edge, light(*states)).light.tolist() == [LaneLight.NONE]


def test_lights_are_read_at_a_step() -> None:
    lane = road(MapFeatureType.LANE_SURFACE_STREET, *line(6))
    later = tokenize_map(lane, light(TrafficLightState.STOP), CURVES, step=CURRENT_STEP + 1)
    assert later.light.tolist() == [LaneLight.NONE]


def test_a_map_of_nothing_has_no_tokens() -> None:
    roadgraph = road(MapFeatureType.LANE_SURFACE_STREET, *line(6))
    nothing = roadgraph.replace(point_valid=torch.zeros_like(roadgraph.point_valid))
    assert tokenize(nothing).valid.shape == (0,)
    absent = roadgraph.replace(feature_valid=torch.zeros_like(roadgraph.feature_valid))
    assert tokenize(absent).valid.shape == (0,)
    empty = roadgraph.map(lambda tensor: tensor[:0])
    assert tokenize(empty).valid.shape == (0,)


def padded(roadgraph: RoadGraph, count: int) -> RoadGraph:
    """The map with more points and features that are not there."""

    def pad(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(count, *tensor.shape[1:])])

    links = roadgraph.links
    return replace(roadgraph.map(pad), links=links)


def test_a_batch_acts_as_its_members() -> None:
    scenario = scenes.straight_road()
    first = padded(scenario.roadgraph, 3)
    swapped = first.map(lambda tensor: tensor)
    short = first.point_valid.clone()
    short[150:] = False
    swapped = swapped.replace(point_valid=short, xyz=first.xyz + 1000.3)
    lights = scenario.traffic_lights
    together = tokenize_map(
        RoadGraph.stack([first, swapped]), TrafficLights.stack([lights, lights]), CURVES
    )
    for index, alone in enumerate([tokenize(first, lights), tokenize(swapped, lights)]):
        member = together.select(index)
        count = len(alone.valid)
        assert member.valid.tolist() == [True] * count + [False] * (len(member.valid) - count)
        assert torch.equal(member.xy[:count], alone.xy)
        assert torch.equal(member.token[:count], alone.token)
        assert torch.equal(member.light[:count], alone.light)


def test_the_map_vocabulary_is_the_same_everywhere() -> None:
    assert CURVES.shape == (1024, 11, 2)
    assert not CURVES[:, 0].any()
    assert len(torch.unique(CURVES.flatten(1), dim=0)) == 1024
    assert map_vocabulary_digest(CURVES) == map_vocabulary_digest(map_vocabulary())
    # Changing a curve makes checkpoints useless: it must be meant.
    assert map_vocabulary_digest(CURVES).startswith("13d9786f")


def test_a_curve_of_the_vocabulary_matches_itself() -> None:
    points = CURVES[:, [0, 5, 10]]
    assert torch.equal(match_curves(points.double(), CURVES), torch.arange(1024))


def test_many_curves_match_as_each_alone(generator: torch.Generator) -> None:
    curves = 4 * torch.randn(150, 3, 2, generator=generator, dtype=torch.float64)
    distance = (curves[:, None] - CURVES[:, [0, 5, 10]]).square().sum((-1, -2))
    assert torch.equal(match_curves(curves, CURVES), distance.argmin(1))


def test_no_curves_match_nothing() -> None:
    assert match_curves(torch.zeros(0, 3, 2), CURVES).shape == (0,)


def dense_scene() -> Scenario:
    pytest.importorskip("waymo_open_dataset.protos.scenario_pb2")
    from catk_sim.datasets.womd import read_scenarios

    folder = shared_path("data/womd_scenario_proto")
    return next(read_scenarios(next(folder.glob("*.tfrecord"))))


def test_tokens_of_a_real_map_are_those_of_the_reference() -> None:
    scenario = dense_scene()
    tokens = tokenize_map(scenario.roadgraph, scenario.traffic_lights, reference.curves())
    golden = {
        name: torch.from_numpy(values)
        for name, values in reference.arrays(f"tok_{reference.DENSE_SCENE}_eval").items()
    }
    # Crossings differ on purpose, and come last.
    count = int((golden["map_pl_type"] != PolygonType.CROSSING).sum())
    assert int((tokens.polygon_type != PolygonType.CROSSING).sum()) == count

    def same(ours: Tensor, theirs: Tensor, atol: float) -> None:
        torch.testing.assert_close(ours[:count], theirs[:count].to(ours.dtype), atol=atol, rtol=0)

    points = golden["map_traj_pos"].double() - scenario.origin[:2]
    same(tokens.xy, points[:, 0], atol=2e-3)  # float32 kilometres out
    turn = tokens.heading[:count] - golden["map_traj_theta"][:count]
    assert torch.cos(turn).min() > 1 - 1e-5
    same(tokens.point_type, golden["map_type"], atol=0)
    same(tokens.polygon_type, golden["map_pl_type"], atol=0)
    same(tokens.light, golden["map_light_type"], atol=0)
    curves = reference.curves().double()[:, [0, 5, 10]]
    ours, theirs = curves[tokens.token[:count]], curves[golden["map_token_idx"][:count]]
    mine = (tokens.curve_local[:count] - ours).square().sum((-1, -2)).sqrt()
    other = (tokens.curve_local[:count] - theirs).square().sum((-1, -2)).sqrt()
    assert (mine <= other + 1e-12).all()
    # Kilometres out, float32 headings of samples 0.5 m apart are off by 1 mrad: 5 mm along 5 m.
    assert (other - mine).max() < 1e-2


def test_our_curves_fit_a_real_map_better_than_those_of_the_reference() -> None:
    scenario = dense_scene()

    def misfit(vocabulary: Tensor) -> float:
        tokens = tokenize_map(scenario.roadgraph, scenario.traffic_lights, vocabulary)
        curves = vocabulary.double()[:, [0, 5, 10]][tokens.token]
        return (tokens.curve_local - curves).square().sum((-1, -2)).sqrt().mean().item()

    assert misfit(CURVES) < misfit(reference.curves())
