import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.datatypes import AgentType, Trajectory
from catk_sim.geometry import se2
from catk_sim.tokens import cleaning
from tests import scenes

SEEDS = st.integers(0, 2**32 - 1)
MENDERS = [cleaning.fill_gaps, cleaning.clean_headings, cleaning.extrapolate_backward]


def line(heading: list[float], valid: list[int]) -> Trajectory:
    """One agent that drives along x by a metre a step, at heights of ten times that."""
    steps = torch.arange(float(len(valid)))
    return Trajectory(
        xy=torch.stack([steps, torch.zeros_like(steps)], dim=-1)[None],
        z=10 * steps[None],
        heading=torch.tensor([heading]),
        velocity=torch.tensor([10.0, 0.0]).expand(1, len(valid), 2),
        valid=torch.tensor([valid]) > 0,
    )


@pytest.mark.parametrize("mend", MENDERS, ids=lambda mend: mend.__name__)
@given(seed=SEEDS)
def test_a_batch_is_mended_as_its_members_are(mend, seed: int) -> None:  # pyright: ignore[reportMissingParameterType]
    members = [scenes.random_motion(seed, num_steps=13), scenes.random_motion(seed + 1, 3, 13)]
    together = mend(Trajectory.stack(members))
    for index, member in enumerate(members):
        alone = mend(member)
        assert torch.equal(together.select(index).valid, alone.valid)
        torch.testing.assert_close(together.select(index).xy, alone.xy)
        torch.testing.assert_close(together.select(index).heading, alone.heading)


@pytest.mark.parametrize("mend", MENDERS, ids=lambda mend: mend.__name__)
def test_mending_leaves_its_argument_alone(mend) -> None:  # pyright: ignore[reportMissingParameterType]
    log = scenes.random_motion(5, num_steps=13)
    before = log.map(torch.clone)
    mend(log)
    assert torch.equal(log.xy, before.xy)
    assert torch.equal(log.heading, before.heading)
    assert torch.equal(log.valid, before.valid)


def test_a_gap_is_filled_on_the_straight_line() -> None:
    log = line([0.0] * 6, [0, 1, 0, 0, 1, 0])
    log = log.replace(xy=torch.where(log.valid[..., None], log.xy, 99.0), z=log.z.square())
    filled = cleaning.fill_gaps(log)
    assert filled.valid.tolist() == [[False, True, True, True, True, False]]
    torch.testing.assert_close(filled.xy[0, 1:5, 0], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(filled.z[0, 1:5], torch.tensor([100.0, 600.0, 1100.0, 1600.0]))


def test_velocities_are_filled_too() -> None:
    log = line([0.0] * 3, [1, 0, 1])
    velocity = torch.tensor([[[2.0, 0.0], [99.0, 99.0], [4.0, 2.0]]])
    filled = cleaning.fill_gaps(log.replace(velocity=velocity))
    torch.testing.assert_close(filled.velocity[0, 1], torch.tensor([3.0, 1.0]))


def test_a_heading_is_filled_the_short_way() -> None:
    filled = cleaning.fill_gaps(line([3.0, 0.0, -3.0], [1, 0, 1]))
    assert filled.heading[0, 1].item() == pytest.approx(math.pi)


@given(seed=SEEDS)
def test_filling_changes_no_valid_step_and_leaves_no_gap(seed: int) -> None:
    log = scenes.random_motion(seed, num_agents=4, num_steps=12)
    filled = cleaning.fill_gaps(log)
    assert torch.equal(filled.xy[log.valid], log.xy[log.valid])
    assert torch.equal(filled.heading[log.valid], log.heading[log.valid])
    borders = filled.valid.int().diff(dim=-1).abs().sum(-1)
    assert (borders <= 2).all()
    assert filled.xy.isfinite().all()


def test_an_agent_that_is_never_seen_stays_unseen() -> None:
    log = line([0.0] * 12, [0] * 12)
    for mend in MENDERS:
        assert not mend(log).valid.any()


def test_a_flipped_heading_is_held_until_it_comes_back() -> None:
    flipped = line([0.0, 0.1, 3.1, 3.1, 0.3], [1, 1, 1, 1, 1])
    cleaned = cleaning.clean_headings(flipped)
    torch.testing.assert_close(cleaned.heading[0], torch.tensor([0.0, 0.1, 0.1, 0.1, 0.3]))


def test_a_turn_across_pi_is_no_flip() -> None:
    log = line([3.1, -3.1], [1, 1])
    assert torch.equal(cleaning.clean_headings(log).heading, log.heading)


@pytest.mark.parametrize("absent", [0.0, 3.0])
def test_a_heading_after_a_gap_is_believed(absent: float) -> None:
    log = line([0.0, absent, 3.0], [1, 0, 1])
    assert torch.equal(cleaning.clean_headings(log).heading, log.heading)


@pytest.mark.parametrize(
    ("entry", "first"),
    [(0, 0), (1, 0), (4, 0), (5, 5), (8, 5), (9, 5), (10, 5), (12, 10), (15, 15)],
)
def test_late_entries_are_moved_back_to_the_start_of_a_token(entry: int, first: int) -> None:
    log = line([0.3] * 21, [0] * entry + [1] * (21 - entry))
    log = log.replace(xy=torch.where(log.valid[..., None], log.xy, 99.0))
    extended = cleaning.extrapolate_backward(log)
    assert extended.valid[0].tolist() == [step >= first for step in range(21)]
    # 10 m/s are a metre a step, so the line goes on as it was drawn.
    steps = torch.arange(first, 21.0)
    torch.testing.assert_close(extended.xy[0, first:, 0], steps, atol=1e-5, rtol=0)
    assert (extended.heading[0, first:] == 0.3).all()
    assert (extended.velocity[0, first:] == torch.tensor([10.0, 0.0])).all()


def test_who_is_far_from_the_sdc_is_hidden() -> None:
    agents = scenes.agents_of([AgentType.VEHICLE] * 3)
    log = line([0.0] * 4, [1] * 4).map(lambda tensor: tensor.expand(3, *tensor.shape[1:]))
    across = torch.tensor([0.0, 10.0, 10.0])
    above = torch.tensor([0.0, 0.0, 4.0])
    log = log.replace(
        xy=torch.stack([log.xy[..., 0], across[:, None].expand(3, 4)], dim=-1),
        z=log.z + above[:, None],
    )
    near = cleaning.limit_to_sdc(log, agents, radius=10.5)
    # Ten metres across; and sqrt(10^2 + 4^2) = 10.8 in space.
    assert near.valid.tolist() == [[True] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize("role", ["to_predict", "of_interest"])
def test_agents_with_a_role_are_all_learned_from(role: str, generator: torch.Generator) -> None:
    scenario = scenes.straight_road()
    nobody = torch.zeros(3, dtype=torch.bool)
    agents = scenario.agents.replace(is_sdc=nobody, to_predict=nobody, of_interest=nobody)
    agents = agents.replace(**{role: torch.ones(3, dtype=torch.bool)})
    mask = cleaning.train_mask(scenario.log, agents, max_agents=1, radius=1.0, generator=generator)
    assert mask.all()


def test_padding_is_not_learned_from(generator: torch.Generator) -> None:
    scenario = scenes.straight_road()
    agents = scenario.agents.replace(valid=torch.tensor([True, False, True]))
    mask = cleaning.train_mask(scenario.log, agents, generator=generator)
    assert mask.tolist() == [True, False, True]


def test_others_are_drawn_up_to_the_number(generator: torch.Generator) -> None:
    scenario = scenes.straight_road()
    masks = torch.stack(
        [
            cleaning.train_mask(scenario.log, scenario.agents, max_agents=2, generator=generator)
            for _ in range(50)
        ]
    )
    assert (masks.sum(-1) == 2).all()
    assert masks[:, 0].all()
    assert masks[:, 1].any()
    assert masks[:, 2].any()


def test_who_leaves_soon_or_is_far_is_not_learned_from(generator: torch.Generator) -> None:
    scenario = scenes.straight_road()
    leaves = scenario.log.valid.clone()
    leaves[2, 15:] = False  # Four steps after the current one.
    log = scenario.log.replace(valid=leaves.clone())
    mask = cleaning.train_mask(log, scenario.agents, radius=100.0, generator=generator)
    assert mask.tolist() == [True, True, False]
    leaves[2, 15] = True
    later = cleaning.train_mask(scenario.log.replace(valid=leaves), scenario.agents)
    assert later.tolist() == [True, True, True]
    # The pedestrian at (10, 6) is 40.8 m from the sdc at (-30, -2).
    mask = cleaning.train_mask(log, scenario.agents, radius=40.0, generator=generator)
    assert mask.tolist() == [True, False, False]


def test_who_is_absent_now_is_not_learned_from(generator: torch.Generator) -> None:
    scenario = scenes.straight_road()
    absent = scenario.log.valid.clone()
    absent[0, 10] = False
    mask = cleaning.train_mask(
        scenario.log.replace(valid=absent), scenario.agents, generator=generator
    )
    assert mask.tolist() == [False, True, True]


@given(seed=SEEDS)
def test_cleaned_headings_never_jump(seed: int) -> None:
    log = scenes.random_motion(seed, num_steps=13)
    cleaned = cleaning.clean_headings(log)
    jumps = se2.wrap_angle(cleaned.heading.diff(dim=-1)).abs() > 1.5
    assert not (jumps & log.valid[..., 1:] & log.valid[..., :-1]).any()
