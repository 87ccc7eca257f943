import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datatypes import MapFeatureType
from catk_sim.visualization.polylines import dashes, features_by_type, offset
from tests import scenes

LINE = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 6.0]])


def length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def test_features_are_read_by_their_type() -> None:
    features = features_by_type(scenes.straight_road().roadgraph)
    assert {kind: len(lines) for kind, lines in features.items() if lines} == {
        MapFeatureType.LANE_SURFACE_STREET: 2,
        MapFeatureType.ROAD_EDGE_BOUNDARY: 2,
    }
    lane = features[MapFeatureType.LANE_SURFACE_STREET][1]
    assert lane[[0, -1]].tolist() == [[100.0, 2.0], [-100.0, 2.0]]


def test_padded_points_belong_to_no_feature() -> None:
    roadgraph = scenes.straight_road().roadgraph
    valid = roadgraph.point_valid.clone()
    valid[-3:] = False
    features = features_by_type(roadgraph.replace(point_valid=valid))
    assert [len(edge) for edge in features[MapFeatureType.ROAD_EDGE_BOUNDARY]] == [101, 98]


def test_a_map_without_points_has_no_features() -> None:
    roadgraph = scenes.straight_road().roadgraph
    empty = roadgraph.replace(point_valid=torch.zeros_like(roadgraph.point_valid))
    assert not any(features_by_type(empty).values())


def test_dashes_go_around_corners() -> None:
    # 10 m: dashes of 3 m from 0 and from 5 m on.
    first, second = dashes(LINE, 3.0, 2.0)
    assert first.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]
    assert second.tolist() == [[4, 1], [4, 2], [4, 3], [4, 4]]


def test_the_last_dash_ends_with_the_line() -> None:
    assert dashes(LINE, 3.0, 1.0)[-1][-1].tolist() == [4, 6]


@given(seed=st.integers(0, 1000))
def test_dashes_lie_on_their_line_and_are_no_longer_than_asked(seed: int) -> None:
    line = np.cumsum(np.random.default_rng(seed).uniform(0.1, 1, (20, 2)), axis=0)
    parts = dashes(line, 1.0, 0.5)
    assert all(length(part) <= 1.0 + 1e-9 for part in parts)
    along = np.interp(parts[..., 0], line[:, 0], line[:, 1])
    np.testing.assert_allclose(parts[..., 1], along, atol=1e-9)


def test_a_positive_offset_is_to_the_left() -> None:
    east = np.array([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]])
    np.testing.assert_allclose(offset(east, 2.0), east + np.array([0, 2]))
    np.testing.assert_allclose(offset(east, -2.0), east - np.array([0, 2]))


def test_a_line_of_one_point_has_no_side() -> None:
    point = np.array([[1.0, 2.0]])
    assert offset(point, 3.0).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("line", [LINE[:1], np.zeros((3, 2))])
def test_a_line_without_length_has_no_dash(line: np.ndarray) -> None:
    assert len(dashes(line, 3.0, 2.0)) == 0
