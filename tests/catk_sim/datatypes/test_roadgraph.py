import torch

from catk_sim.datatypes import MapFeatureType
from tests import scenes


def test_every_feature_type_has_one_family() -> None:
    codes = torch.tensor([int(code) for code in MapFeatureType])
    families = torch.stack(
        [
            MapFeatureType.is_lane(codes),
            MapFeatureType.is_road_line(codes),
            MapFeatureType.is_road_edge(codes),
            codes >= MapFeatureType.STOP_SIGN,
        ]
    )
    assert families.sum(0).tolist() == [1] * len(MapFeatureType)


def test_no_segment_joins_two_features() -> None:
    roadgraph = scenes.straight_road().roadgraph
    # Four polylines of 101 points.
    assert roadgraph.is_segment.sum() == 4 * 100
    assert not roadgraph.is_segment[100]


def test_a_point_has_the_type_of_its_feature() -> None:
    point_type = scenes.straight_road().roadgraph.point_type
    assert point_type[0] == MapFeatureType.LANE_SURFACE_STREET
    assert point_type[-1] == MapFeatureType.ROAD_EDGE_BOUNDARY


def test_padding_is_no_segment() -> None:
    roadgraph = scenes.straight_road().roadgraph
    padded = roadgraph.replace(point_valid=torch.zeros_like(roadgraph.point_valid))
    assert not padded.is_segment.any()


def test_an_empty_map_gets_room_for_a_segment_that_is_not_there() -> None:
    roadgraph = scenes.straight_road().roadgraph
    nothing = roadgraph.map(lambda tensor: tensor[:0]).with_room_for_a_segment()
    assert nothing.xyz.shape == (2, 3)
    assert nothing.feature_id.shape == (1,)
    assert nothing.is_segment.tolist() == [False]
    assert roadgraph.with_room_for_a_segment() is roadgraph
