import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.constants import NUM_STEPS
from catk_sim.datasets import ScenarioSize, collate, uncollate
from catk_sim.datasets.schema import leaves, size_of
from catk_sim.datatypes import Scenario
from catk_sim.metrics.collision import collision_indication
from catk_sim.metrics.displacement import displacement_error
from catk_sim.metrics.offroad import offroad_indication
from tests import scenes
from tests.catk_sim.datasets.arbitrary import arbitrary_scenario, assert_equal, sizes

EMPTY = ScenarioSize(agents=1, steps=1, points=0, features=0, links=0, lights=0)
LARGE = ScenarioSize(agents=9, steps=NUM_STEPS + 9, points=999, features=9, links=9, lights=9)


@given(some=st.lists(sizes, min_size=1, max_size=4))
def test_a_collated_scenario_uncollates_to_itself(some: list[ScenarioSize]):
    scenarios = [arbitrary_scenario(size, seed) for seed, size in enumerate(some)]
    back = uncollate(collate(scenarios))
    assert len(back) == len(scenarios)
    for before, after in zip(scenarios, back, strict=True):
        assert_equal(before, after)


@given(some=st.lists(sizes, min_size=2, max_size=4))
def test_a_batch_is_as_large_as_its_largest_member_in_each_dimension(some: list[ScenarioSize]):
    batch = collate([arbitrary_scenario(size, seed) for seed, size in enumerate(some)])
    largest = [max(lengths) for lengths in zip(*some, strict=True)]
    assert size_of(batch) == ScenarioSize(*largest)._replace(
        features=max(1, max(size.features for size in some))
    )


@given(size=sizes)
def test_padding_is_zero(size: ScenarioSize):
    batch = collate([arbitrary_scenario(size, 0), arbitrary_scenario(LARGE, 1)])
    for leaf in leaves(Scenario):
        padded = leaf.of(batch)[0].clone()
        padded[tuple(slice(length) for length in leaf.shape(size))] = 0
        assert not padded.any(), leaf.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collating_keeps_the_float_dtype(dtype: torch.dtype):
    batch = collate([arbitrary_scenario(EMPTY, 0, dtype), arbitrary_scenario(LARGE, 1, dtype)])
    assert batch.log.xy.dtype == batch.roadgraph.xyz.dtype == dtype


def test_labels_of_a_batch_follow_the_order_of_the_scenarios():
    batch = collate([arbitrary_scenario(EMPTY, seed) for seed in (3, 0, 1)])
    assert batch.scenario_id == ("scenario 3", "scenario 0", "scenario 1")
    assert batch.lacks == ("a map", "", "a map")


def test_a_batch_of_scenarios_without_a_map_has_a_padded_map_feature_to_point_at():
    batch = collate([arbitrary_scenario(EMPTY, seed) for seed in range(2)])
    assert batch.roadgraph.feature_valid.tolist() == [[False], [False]]
    assert batch.roadgraph.point_type.shape == (2, 0)


def test_padded_points_are_of_a_feature_that_exists():
    batch = collate([arbitrary_scenario(EMPTY, 0), arbitrary_scenario(LARGE, 1)])
    assert batch.roadgraph.point_type.shape == (2, LARGE.points)
    assert not batch.roadgraph.is_segment[0].any()


def test_padding_changes_no_metric():
    scene = scenes.straight_road().replace(scenario_id=("scene",))
    moved = scene.log.replace(xy=scene.log.xy + torch.tensor([70.0, 1.5]))
    batch = collate([scene, arbitrary_scenario(LARGE, 1, torch.float32)])
    padded = batch.log.replace(xy=batch.log.xy + torch.tensor([70.0, 1.5]))
    for alone, together in [
        (displacement_error(moved, scene.log), displacement_error(padded, batch.log)),
        (collision_indication(moved, scene), collision_indication(padded, batch)),
        (offroad_indication(moved, scene), offroad_indication(padded, batch)),
    ]:
        valid = together.valid[0]
        assert valid.sum() == alone.valid.sum()
        torch.testing.assert_close(together.value[0][valid], alone.value[alone.valid])


def test_scenarios_of_equal_size_collate_as_they_stack():
    scenarios = [arbitrary_scenario(LARGE, seed) for seed in range(3)]
    assert_equal(collate(scenarios), Scenario.stack(scenarios))


def test_what_cannot_be_collated_is_refused():
    scenario = arbitrary_scenario(EMPTY, 0)
    with pytest.raises(ValueError, match="at least one scenario"):
        collate([])
    with pytest.raises(ValueError, match="without batch dimensions"):
        collate([collate([scenario])])
    with pytest.raises(
        ValueError, match=r"origin is torch\.float64 in one scenario and torch\.float32 in"
    ):
        collate([scenario, arbitrary_scenario(EMPTY, 1, torch.float32)])
    torn = scenario.replace(agents=arbitrary_scenario(LARGE, 0).agents)
    with pytest.raises(ValueError, match=r"agents\.agent_id has 9 of agents, expected 1"):
        collate([torn])
