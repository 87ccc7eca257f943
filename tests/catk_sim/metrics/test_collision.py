import torch

from catk_sim.metrics.collision import collision_indication
from tests import scenes


def test_a_car_that_drives_into_a_parked_one_collides() -> None:
    """A drives through C, which stands at x = 40: their centres are 4.8 m apart, and less."""
    scenario = scenes.straight_road()
    present = scenario.log.replace(valid=torch.ones_like(scenario.log.valid))
    result = collision_indication(present, scenario)
    hit = ((present.xy[0, :, 0] - 40).abs() < 4.8).tolist()
    assert any(hit)
    assert result.value.bool().tolist() == [hit, [False] * 91, hit]


def test_an_absent_agent_collides_with_nobody() -> None:
    """C leaves after step 60; A would have reached it at step 76."""
    scenario = scenes.straight_road()
    assert not collision_indication(scenario.log, scenario).value.any()


def test_it_is_defined_where_the_agent_is_present() -> None:
    scenario = scenes.straight_road()
    result = collision_indication(scenario.log, scenario)
    assert torch.equal(result.valid, scenario.log.valid)


def test_pedestrians_collide_too() -> None:
    scenario = scenes.straight_road()
    xy = scenario.log.xy.clone()
    xy[1] = xy[0] + 1.0
    result = collision_indication(scenario.log.replace(xy=xy), scenario)
    assert result.value[1].all()


def test_rollouts_are_judged_one_by_one() -> None:
    scenario = scenes.straight_road()
    batch = type(scenario).stack([scenario, scenario])
    rollouts = batch.log.repeat(3)
    valid = rollouts.valid.clone()
    valid[2, 1] = True
    result = collision_indication(rollouts.replace(valid=valid), batch)
    assert result.value.shape == (3, 2, 3, 91)
    hit = result.value.bool().any(dim=-1).any(dim=-1)
    assert hit.tolist() == [[False, False], [False, False], [False, True]]
