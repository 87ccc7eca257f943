import math

import pytest
import torch

from catk_sim.datatypes import Trajectory
from catk_sim.metrics.displacement import (
    agent_min_average_displacement_error,
    average_displacement_error,
    displacement_error,
    scene_min_average_displacement_error,
)


def displaced(log: Trajectory, *by: float) -> Trajectory:
    """One rollout per number of metres: the first agent off by it, the second by 4 m less it."""
    offset = torch.tensor([[[b, 0.0], [0.0, 4 - b]] for b in by])
    return log.repeat(len(by)).replace(xy=log.xy + offset[:, :, None])


def test_the_log_has_no_error(log: Trajectory) -> None:
    assert displacement_error(log, log).mean() == 0


def test_the_error_is_the_distance_in_the_plane(log: Trajectory) -> None:
    moved = log.replace(xy=log.xy + torch.tensor([3.0, 4.0]), z=log.z + 100)
    torch.testing.assert_close(displacement_error(moved, log).mean(), torch.tensor(5.0))


def test_it_is_defined_where_both_have_the_agent(log: Trajectory) -> None:
    late = log.replace(valid=torch.tensor([[False, True, True, True, True]] * 2))
    result = displacement_error(late, log)
    assert result.valid.tolist() == [
        [False, True, True, True, True],
        [False, True, True, False, False],
    ]


def test_an_average_skips_absent_steps(log: Trajectory) -> None:
    """B leaves after three steps; what is stored for it then does not matter."""
    xy = log.xy + torch.tensor([2.0, 0.0])
    xy[1, 3:] = 1e6
    error = average_displacement_error(log.replace(xy=xy), log)
    torch.testing.assert_close(error, torch.tensor([2.0, 2.0]))


def test_an_agent_that_is_never_there_has_no_average(log: Trajectory) -> None:
    absent = log.replace(valid=torch.zeros_like(log.valid))
    assert average_displacement_error(absent, log).isnan().all()


def test_the_least_error_is_each_agents_own(log: Trajectory) -> None:
    """Rollouts are off by (1, 3), (2, 2) and (3, 1)."""
    error = agent_min_average_displacement_error(displaced(log, 1.0, 2.0, 3.0), log)
    torch.testing.assert_close(error, torch.tensor([1.0, 1.0]))


def test_the_least_scene_error_is_that_of_one_joint_rollout(log: Trajectory) -> None:
    everyone = torch.ones(2, dtype=torch.bool)
    error = scene_min_average_displacement_error(displaced(log, 1.0, 3.0, 6.0), log, everyone)
    assert error.item() == pytest.approx(2.0)


def test_the_least_scene_error_is_over_those_who_count(log: Trajectory) -> None:
    first = torch.tensor([True, False])
    error = scene_min_average_displacement_error(displaced(log, 1.5, 3.0), log, first)
    assert error.item() == pytest.approx(1.5)
    nobody = scene_min_average_displacement_error(displaced(log, 1.5), log, first & False)
    assert math.isnan(nobody.item())
