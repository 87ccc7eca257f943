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
