import itertools

import pytest
import torch

from catk_sim.datatypes import Scenario
from catk_sim.tokens import MotionVocabulary
from tests import scenes
from trainers.scenes import Scene, SceneDataset, batches, make_scene


@pytest.fixture
def few(vocabulary: MotionVocabulary) -> SceneDataset:
    roads = [scenes.straight_road().replace(scenario_id=(str(index),)) for index in range(5)]
    return SceneDataset(roads, range(5), vocabulary)


def ids(scene: Scene) -> tuple[str, ...]:
    return scene.scenario.scenario_id


def test_every_scene_comes_once_an_epoch(few: SceneDataset) -> None:
    epoch = itertools.islice(batches(few, batch_size=1, seed=0, first=0), 5)
    assert sorted(ids(scene)[0] for scene in epoch) == ["0", "1", "2", "3", "4"]


def test_a_resumed_run_sees_the_batches_that_were_left(few: SceneDataset) -> None:
    whole = [ids(one) for one in itertools.islice(batches(few, batch_size=2, seed=7, first=0), 9)]
    rest = [ids(one) for one in itertools.islice(batches(few, batch_size=2, seed=7, first=4), 5)]
    assert rest == whole[4:]


def test_epochs_differ_in_order(few: SceneDataset) -> None:
    order = [
        ids(one)[0] for one in itertools.islice(batches(few, batch_size=1, seed=0, first=0), 10)
    ]
    assert order[:5] != order[5:]


def test_a_batch_is_no_larger_than_the_data(few: SceneDataset) -> None:
    assert len(ids(next(batches(few, batch_size=100, seed=0, first=0)))) == 5


def test_a_scene_is_made_once(few: SceneDataset) -> None:
    assert few[2] is few[2]


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
    alone = [ids(one) for one in itertools.islice(batches(few, batch_size=2, seed=3, first=1), 3)]
    helped = batches(few, batch_size=2, seed=3, first=1, workers=1)
    assert [ids(one) for one in itertools.islice(helped, 3)] == alone
