import itertools

import pytest
import torch
from torch import Tensor

from catk_sim.datasets.schema import size_of
from catk_sim.datasets.synthetic import generate_scenario
from catk_sim.datatypes import Scenario
from catk_sim.tokens import MotionVocabulary
from tests import scenes
from trainers.scenes import BatchPlan, Scene, SceneDataset, batches, make_scene


@pytest.fixture
def few(vocabulary: MotionVocabulary) -> SceneDataset:
    roads = [scenes.straight_road().replace(scenario_id=(str(index),)) for index in range(5)]
    return SceneDataset(roads, range(5), vocabulary)


def ids(scene: Scene) -> tuple[str, ...]:
    return scene.scenario.scenario_id


def ids_of(
    scenes: SceneDataset, plan: BatchPlan, count: int, *, first: int = 0, workers: int = 0
) -> list[list[str]]:
    """Ids in the batches from some batch on."""
    some = itertools.islice(batches(scenes, plan, first=first, workers=workers), count)
    return [[name for part in parts for name in ids(part)] for parts in some]


def test_every_scene_comes_once_an_epoch(few: SceneDataset) -> None:
    epoch = ids_of(few, BatchPlan(batch_size=1, seed=0), 5)
    assert sorted(itertools.chain(*epoch)) == ["0", "1", "2", "3", "4"]


def test_a_resumed_run_sees_the_batches_that_were_left(few: SceneDataset) -> None:
    plan = BatchPlan(batch_size=2, seed=7)
    assert ids_of(few, plan, 5, first=4) == ids_of(few, plan, 9)[4:]


def test_epochs_differ_in_order(few: SceneDataset) -> None:
    order = ids_of(few, BatchPlan(batch_size=1, seed=0), 10)
    assert order[:5] != order[5:]


def test_a_batch_is_no_larger_than_the_data(few: SceneDataset) -> None:
    assert len(ids_of(few, BatchPlan(batch_size=100, seed=0), 1)[0]) == 5


def test_what_fills_no_batch_is_left_out(few: SceneDataset) -> None:
    assert [len(batch) for batch in ids_of(few, BatchPlan(batch_size=2, seed=0), 4)] == [2] * 4


def test_a_batch_comes_in_parts_that_fit_into_memory(few: SceneDataset) -> None:
    [parts] = itertools.islice(batches(few, BatchPlan(batch_size=5, seed=0, part_size=2)), 1)
    assert sorted(len(ids(part)) for part in parts) == [1, 2, 2]
    assert sorted(name for part in parts for name in ids(part)) == ["0", "1", "2", "3", "4"]


def test_a_pool_makes_batches_of_scenes_of_like_size(vocabulary: MotionVocabulary) -> None:
    names = [str(index) for index in range(8)]
    roads = [scenes.straight_road().replace(scenario_id=(name,)) for name in names]
    sizes = [size_of(roads[0])._replace(agents=index // 2) for index in range(8)]
    alike = SceneDataset(roads, range(8), vocabulary, sizes=sizes)
    pairs = ids_of(alike, BatchPlan(batch_size=2, seed=0, batches_per_pool=4), 4)
    assert sorted(sorted(pair) for pair in pairs) == [
        ["0", "1"],
        ["2", "3"],
        ["4", "5"],
        ["6", "7"],
    ]


def crowded(vocabulary: MotionVocabulary) -> SceneDataset:
    """Scenes with more agents than may be learnt from."""
    return SceneDataset([generate_scenario(seed) for seed in range(3)], range(3), vocabulary)


def learned(
    data: SceneDataset, part_size: int, *, first: int, later: int = 0
) -> dict[str, list[int]]:
    """Ids of the agents that carry loss, by scene, in a batch of three scenes."""
    plan = BatchPlan(batch_size=3, seed=0, max_learned_agents=16, part_size=part_size)
    *_, parts = itertools.islice(batches(data, plan, first=first), later + 1)
    return {
        scene.scenario.scenario_id[row]: scene.scenario.agents.agent_id[row][mask].tolist()
        for scene in parts
        for row, mask in enumerate(scene.learned)
    }


def test_who_carries_loss_is_drawn_anew_for_each_batch(vocabulary: MotionVocabulary) -> None:
    data = crowded(vocabulary)
    assert learned(data, 3, first=0) != learned(data, 3, first=1)
    assert learned(data, 3, first=1) == learned(data, 3, first=0, later=1)


def test_who_carries_loss_does_not_depend_on_the_parts(vocabulary: MotionVocabulary) -> None:
    data = crowded(vocabulary)
    assert learned(data, 3, first=0) == learned(data, 1, first=0)


def test_a_scene_is_made_once(few: SceneDataset) -> None:
    assert few[2] is few[2]


def test_a_kept_scene_keeps_nothing_else_alive(few: SceneDataset) -> None:
    def check(tensor: Tensor) -> Tensor:
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        return tensor

    few[2].map(check)


def test_the_map_is_only_kept_as_tokens(vocabulary: MotionVocabulary) -> None:
    scene = make_scene(scenes.straight_road(), vocabulary)
    assert scene.scenario.roadgraph.xyz.shape[0] == 0
    assert scene.map_tokens.valid.sum() > 0


def test_agents_far_from_the_sdc_are_hidden(vocabulary: MotionVocabulary) -> None:
    road: Scenario = scenes.straight_road()
    away = torch.zeros(3, 1, 2)
    away[2] = 500.0
    far = road.replace(log=road.log.replace(xy=road.log.xy + away))
    assert make_scene(road, vocabulary).scenario.log.valid[2].any()
    assert not make_scene(far, vocabulary).scenario.log.valid[2].any()


def test_a_log_without_a_future_cannot_be_learnt_from(vocabulary: MotionVocabulary) -> None:
    road = scenes.straight_road()
    history = road.replace(
        timestamps=road.timestamps[:11],
        log=road.log.slice(0, 11),
        log_size=road.log_size[:, :11],
    )
    with pytest.raises(ValueError, match="wants scenarios of 91 steps, and straight_road has 11"):
        make_scene(history, vocabulary)


def test_workers_change_nothing(few: SceneDataset) -> None:
    plan = BatchPlan(batch_size=2, seed=3)
    assert ids_of(few, plan, 3, first=1, workers=1) == ids_of(few, plan, 3, first=1)
