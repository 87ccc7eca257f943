import dataclasses

import pytest
import torch

from catk_sim.datatypes import Scenario, Trajectory
from tests import scenes


def test_a_field_cannot_be_assigned(log: Trajectory) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        log.xy = torch.zeros_like(log.xy)  # pyright: ignore[reportAttributeAccessIssue]


def test_stacking_adds_a_leading_batch_dimension(log: Trajectory) -> None:
    batch = Trajectory.stack([log, log, log])
    assert batch.xy.shape == (3, 2, 5, 2)
    assert batch.num_agents == 2
    assert batch.num_steps == 5


def test_selecting_undoes_stacking(log: Trajectory) -> None:
    other = log.replace(xy=log.xy + 1)
    assert torch.equal(Trajectory.stack([log, other]).select(1).xy, other.xy)


def test_joining_batches_keeps_every_entry(log: Trajectory) -> None:
    batch = Trajectory.stack([log, log.replace(xy=log.xy + 1)])
    assert torch.equal(Trajectory.cat([batch, batch]).select(3).xy, log.xy + 1)


def test_nothing_cannot_be_stacked() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        Trajectory.stack([])
    with pytest.raises(ValueError, match="cat needs at least one record"):
        Trajectory.cat([])


def test_fields_of_unequal_shape_are_refused(log: Trajectory) -> None:
    with pytest.raises(Exception, match="heading"):
        log.replace(heading=log.heading[:, :-1])


def test_labels_follow_their_scenarios() -> None:
    first = scenes.straight_road()
    second = first.replace(scenario_id=("other",))
    batch = Scenario.stack([first, second])
    assert batch.scenario_id == ("straight_road", "other")
    assert batch.select(1).scenario_id == ("other",)
    assert batch.select(-1).scenario_id == ("other",)
    repeated = batch.repeat(3)
    assert repeated.select(2).scenario_id == ("straight_road", "other")
    assert repeated.select(2).select(0).scenario_id == ("straight_road",)


def test_repeating_takes_no_memory(log: Trajectory) -> None:
    assert log.repeat(1000).xy.data_ptr() == log.xy.data_ptr()


def test_a_cast_leaves_ids_and_masks_alone() -> None:
    scenario = scenes.straight_road().to(torch.float64)
    assert scenario.log.xy.dtype == torch.float64
    assert scenario.agents.agent_id.dtype == torch.int64
    assert scenario.log.valid.dtype == torch.bool
