import torch

from catk_sim.datasets.batching import collate
from catk_sim.metrics.planning.ego import EgoScenes, points_of_scenes, steps_of_rollouts
from tests.catk_sim.metrics.planning.drives import at_speed, road_with


def test_each_ego_has_the_size_and_the_log_of_its_scenario() -> None:
    roads = [road_with(at_speed(0, -2, speed)) for speed in (1, 2, 3)]
    for place, road in enumerate(roads):
        road.agents.size[0] += place
    batch = collate(roads)
    found = EgoScenes.of(batch.log.repeat(2), batch)
    front = found.corners[:, :, 10, 0]
    assert found.corners.shape == (2, 3, 91, 4, 2)
    assert front[:, :, 0].flatten().tolist() == torch.tensor([2.4, 2.9, 3.4] * 2).tolist()
    assert found.log.xy[:, 0, 20, 0].tolist() == [1, 2, 3]
    assert found.speed[:, :, 0].tolist() == [[1, 2, 3]] * 2


def test_points_of_scenes_are_put_back() -> None:
    values = torch.rand(4, 3, 91, 2)
    points = points_of_scenes(values)
    assert points.shape == (3, 4 * 91, 2)
    assert torch.equal(points[1, 2 * 91 + 7], values[2, 1, 7])
    assert torch.equal(steps_of_rollouts(points, 4), values)
