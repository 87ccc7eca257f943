import pytest
import torch

from catk_sim.datatypes import Trajectory


def test_a_step_outside_the_trajectory_is_refused(log: Trajectory) -> None:
    with pytest.raises(IndexError, match="step 5 is outside a trajectory of 5 steps"):
        log.at(5)


def test_negative_steps_count_from_the_end(log: Trajectory) -> None:
    assert torch.equal(log.at(-1).xy, log.at(4).xy)
    assert torch.equal(log.at(-5).xy, log.at(0).xy)


def test_parts_join_to_the_whole(log: Trajectory) -> None:
    whole = Trajectory.join([log.slice(0, 2), log.slice(2, 5)])
    assert torch.equal(whole.xy, log.xy)
    assert torch.equal(whole.valid, log.valid)


def test_gathering_takes_steps_for_each_scenario(log: Trajectory) -> None:
    batch = Trajectory.stack([log, log])
    taken = batch.gather(torch.tensor([[0, 1], [3, 4]]))
    assert torch.equal(taken.select(0).xy, log.slice(0, 2).xy)
    assert torch.equal(taken.select(1).xy, log.slice(3, 5).xy)
    assert torch.equal(taken.select(1).heading, log.slice(3, 5).heading)


def test_nobody_is_there_before_the_start_or_after_the_end(log: Trajectory) -> None:
    taken = log.gather(torch.tensor([-1, 0, 5]))
    assert taken.valid[0].tolist() == [False, True, False]


def test_agents_are_taken_from_one_or_the_other(log: Trajectory) -> None:
    other = log.replace(xy=log.xy + 100, heading=log.heading + 1, valid=~log.valid)
    mixed = log.where(torch.tensor([True, False]), other)
    assert torch.equal(mixed.xy[0], log.xy[0])
    assert torch.equal(mixed.xy[1], other.xy[1])
    assert torch.equal(mixed.heading[1], other.heading[1])
    assert torch.equal(mixed.valid[1], other.valid[1])
