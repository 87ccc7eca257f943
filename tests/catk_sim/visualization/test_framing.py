import numpy as np
import pytest
import torch

from catk_sim.datatypes import Scenario
from catk_sim.visualization.framing import Follow, Framing, Point, bounding_square
from tests import scenes


def center(scenario: Scenario, follow: Follow, start: int, stop: int) -> Point:
    motion = scenario.log.slice(start, stop)
    return Framing(scenario, follow).center(motion.xy.double().numpy(), motion.valid.numpy())


def test_an_agent_is_followed_to_where_it_is_last() -> None:
    # The sdc starts at (-40, -2) and drives a metre a step.
    assert center(scenes.straight_road(), "sdc", 20, 31) == (-10.0, -2.0)


def test_an_agent_that_has_not_come_is_awaited_where_it_appears() -> None:
    scenario = scenes.straight_road()
    # From step 6 on the car of index 2 is in the log; let it drive from (40, -2) north.
    xy = scenario.log.xy.clone()
    xy[2, :, 1] = torch.arange(91.0)
    driving = scenario.replace(log=scenario.log.replace(xy=xy))
    assert center(driving, 2, 0, 5) == (40.0, 6.0)


def test_the_scene_is_as_large_as_what_its_agents_visit() -> None:
    framing = Framing(scenes.straight_road(), "scene")
    # From (-40, -2) to (50, 6), and a tenth more.
    assert framing.metres == pytest.approx(99.0)
    assert center(scenes.straight_road(), "scene", 0, 1) == (5.0, 2.0)


def test_padding_is_no_part_of_the_scene() -> None:
    scenario = scenes.straight_road()
    present = torch.tensor([True, False, False])
    without = scenario.replace(agents=scenario.agents.replace(valid=present))
    assert center(without, "scene", 0, 1) == (5.0, -2.0)


def test_a_scene_where_nobody_moves_is_not_magnified() -> None:
    middle, side = bounding_square(np.array([[3.0, 4.0]]))
    assert middle == (3.0, 4.0)
    assert side == 40.0


def test_a_scene_of_nobody_lies_around_the_origin() -> None:
    assert bounding_square(np.zeros((0, 2))) == ((0.0, 0.0), 80.0)
