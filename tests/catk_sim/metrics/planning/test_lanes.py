import math

import pytest
import torch
from torch import Tensor

from catk_sim.datatypes import LaneLinks, LaneLinkType, MapFeatureType, RoadGraph
from catk_sim.geometry.boxes import box_corners
from catk_sim.metrics.planning.lanes import LaneAt, is_in_one_lane, lane_at
from tests import scenes
from tests.catk_sim.metrics.maps import map_of, polyline

STREET = MapFeatureType.LANE_SURFACE_STREET


def two_lanes() -> RoadGraph:
    return RoadGraph.stack([scenes.straight_road().roadgraph])


def map_with_lanes(*lanes: Tensor, kind: MapFeatureType = STREET) -> RoadGraph:
    return RoadGraph.stack([map_of([lane.float() for lane in lanes], kind)])


def crossing() -> RoadGraph:
    """A lane east along y = 0, one north along x = 0."""
    return map_with_lanes(polyline((-50, 0), (50, 0)), polyline((0, -50), (0, 50)))


def found_at(roadgraph: RoadGraph, x: float, y: float, degrees: float) -> LaneAt:
    xy = torch.tensor([[[x, y]]], dtype=torch.float32)
    return lane_at(xy, torch.tensor([[math.radians(degrees)]]), roadgraph)


def direction_at(roadgraph: RoadGraph, x: float, y: float, degrees: float) -> list[float]:
    return found_at(roadgraph, x, y, degrees).direction[0, 0].tolist()


def one_lane(roadgraph: RoadGraph, x: float, y: float, degrees: float = 0.0) -> bool:
    corners = box_corners(
        torch.tensor([[[x, y]]], dtype=torch.float32),
        torch.tensor([[math.radians(degrees)]]),
        torch.tensor([[[4.8, 2.0]]]),
    )
    return bool(is_in_one_lane(corners, roadgraph))


def test_the_lane_is_the_one_around_the_point() -> None:
    assert found_at(two_lanes(), 5, -2.5, 0).valid
    assert direction_at(two_lanes(), 5, -2.5, 0) == [1, 0]
    assert found_at(two_lanes(), 5, 3.5, 180).valid
    assert direction_at(two_lanes(), 5, 3.5, 180) == [-1, 0]


def test_who_drives_on_the_wrong_side_is_in_the_oncoming_lane() -> None:
    assert direction_at(two_lanes(), 5, 2.1, 0) == [-1, 0]


def test_beyond_half_a_lanes_width_there_is_none() -> None:
    assert found_at(two_lanes(), 5, -3.84, 0).valid
    assert not found_at(two_lanes(), 5, -3.86, 0).valid


def test_the_speed_limit_is_in_metres_per_second() -> None:
    assert found_at(two_lanes(), 5, -2, 0).speed_limit.item() == pytest.approx(11.176)


@pytest.mark.parametrize(("degrees", "direction"), [(10, [1, 0]), (80, [0, 1])])
def test_where_lanes_cross_the_heading_tells_which(degrees: float, direction: list[float]) -> None:
    assert direction_at(crossing(), 1, -1, degrees) == direction


def test_of_lanes_that_fit_the_nearest_counts() -> None:
    lanes = map_with_lanes(polyline((-50, 0), (50, 0)), polyline((-50, 3), (50, 3.1)))
    assert direction_at(lanes, 0, 1.8, 0)[1] > 0
    assert direction_at(lanes, 0, 1.3, 0)[1] == 0


def test_between_the_end_of_a_lane_and_the_start_of_another_there_is_none() -> None:
    """In the list of points (50, 0) is followed by (0, -50)."""
    assert not found_at(crossing(), 25, -25, 45).valid
    assert not one_lane(crossing(), 25, -25, degrees=45)


def test_a_bike_lane_is_no_lane_for_cars() -> None:
    lanes = map_with_lanes(polyline((-50, 0), (50, 0)), kind=MapFeatureType.LANE_BIKE_LANE)
    assert not found_at(lanes, 0, 0, 0).valid
    assert not one_lane(lanes, 0, 0)


def test_a_road_edge_is_no_lane() -> None:
    assert not found_at(two_lanes(), 5, -6, 0).valid


def test_each_scene_has_its_own_map() -> None:
    both = RoadGraph.cat(
        [
            map_with_lanes(polyline((-50, 0), (50, 0)), polyline((0, 90), (0, 95))),
            map_with_lanes(polyline((-50, 9), (50, 9)), polyline((0, 90), (0, 95))),
        ]
    )
    xy = torch.tensor([[0.0, 0], [0, 9]]).expand(2, 2, 2)
    lane = lane_at(xy, torch.zeros(2, 2), both)
    assert lane.valid.tolist() == [[True, False], [False, True]]
    corners = box_corners(xy, torch.zeros(2, 2), torch.tensor([4.0, 2.0]).expand(2, 2, 2))
    assert is_in_one_lane(corners, both).tolist() == [[True, False], [False, True]]


def test_a_car_in_the_middle_of_its_lane_is_in_one() -> None:
    """It is 2 m wide, so that 0.85 m are left on either side."""
    assert one_lane(two_lanes(), 5, -2)
    assert one_lane(two_lanes(), 5, -2.84)
    assert not one_lane(two_lanes(), 5, -2.86)
    assert one_lane(two_lanes(), 5, -1.16)
    assert not one_lane(two_lanes(), 5, -1.14)


def test_a_car_that_stands_across_its_lane_is_not_in_one() -> None:
    assert not one_lane(two_lanes(), 5, -2, degrees=45)


def test_a_car_within_one_of_two_lanes_that_cross_is_in_one() -> None:
    assert one_lane(crossing(), 0, 0)


def test_a_car_between_a_lane_and_the_next_is_in_one() -> None:
    lanes = [polyline((-50, 0), (0, 0)), polyline((0, 0), (40, 10))]
    assert one_lane(linked(map_with_lanes(*lanes), 0, 1), -0.5, 0, degrees=8)
    assert not one_lane(map_with_lanes(*lanes), -0.5, 0, degrees=8)
    # The link is the other way.
    assert one_lane(linked(map_with_lanes(*lanes), 1, 0), -0.5, 0, degrees=8)


def test_a_car_on_three_lanes_one_after_the_other_is_in_one() -> None:
    """The one in the middle is a metre long."""
    lanes = [polyline((-50, 0), (0, 0)), polyline((0, 0), (1, 0)), polyline((1, 0), (50, 0))]
    road = map_with_lanes(*lanes)
    assert one_lane(linked(linked(road, 0, 1), 1, 2), 0.5, 0)
    assert not one_lane(linked(road, 0, 1), 0.5, 0)


def test_lanes_that_part_from_a_third_are_two() -> None:
    """At x = 14 their centres are 4.5 m apart, and the car is in the middle."""
    lanes = [polyline((-50, 0), (0, 0)), polyline((0, 0), (50, 8)), polyline((0, 0), (50, -8))]
    road = linked(linked(map_with_lanes(*lanes), 0, 1), 0, 2)
    assert not one_lane(road, 14, 0)
    assert one_lane(road, 14, 2)
    assert one_lane(road, 14, -2)


def test_a_link_that_is_padding_leads_nowhere() -> None:
    road = map_with_lanes(polyline((-50, 0), (0, 0)), polyline((0, 0), (40, 10)))
    road = linked(road, 0, 1)
    links = road.links.replace(valid=torch.zeros_like(road.links.valid))
    assert not one_lane(road.replace(links=links), -0.5, 0, degrees=8)


def test_points_that_are_repeated_make_no_lane() -> None:
    lane = polyline((-50, 0), (0, 0), (0, 0), (50, 0))
    assert direction_at(map_with_lanes(lane), 0, 0.5, 0) == [1, 0]
    assert one_lane(map_with_lanes(lane), 0, 0)


def test_no_lanes_at_all_are_none() -> None:
    edges = map_with_lanes(polyline((-50, 0), (50, 0)), kind=MapFeatureType.ROAD_EDGE_BOUNDARY)
    assert not found_at(edges, 0, 0, 0).valid
    assert not one_lane(edges, 0, 0)


def linked(roadgraph: RoadGraph, feature: int, following: int) -> RoadGraph:
    """A map on which a lane leads to another one."""
    links, zero = roadgraph.links, torch.zeros(1, 1, dtype=torch.int64)
    one = LaneLinks(
        feature=zero + feature,
        type=zero + int(LaneLinkType.EXIT_LANE),
        other_id=roadgraph.feature_id[:, following : following + 1],
        span=zero[..., None].expand(1, 1, 4),
        boundary_type=zero,
        neighbor=zero,
        valid=zero == 0,
    )
    names = ("feature", "type", "other_id", "span", "boundary_type", "neighbor", "valid")
    joined = {name: torch.cat([getattr(links, name), getattr(one, name)], dim=1) for name in names}
    return roadgraph.replace(links=LaneLinks(**joined))
