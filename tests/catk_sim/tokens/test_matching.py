import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS, NUM_MARKS, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentMetadata, AgentType, Scenario, Trajectory
from catk_sim.geometry import se2
from catk_sim.tokens import (
    MotionTokens,
    MotionVocabulary,
    corner_distance,
    match_step,
    match_trajectory,
    noisy_tokenize,
    recovery_token,
    token_distance,
    token_end,
    tokenize,
)
from catk_sim.tokens.matching import _Standstill
from tests import scenes

VOCABULARY = scenes.arc_vocabulary().to(torch.float64)
SEEDS = st.integers(0, 2**32 - 1)
AGENTS = scenes.agents_of([AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST])


def winding_motion(seed: int, num_steps: int = 36) -> Trajectory:
    """Three agents that speed up, slow down and turn, in float64 so that nothing ties."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    speed = (5 + uniform(-0.5, 0.5, 3, num_steps).cumsum(-1)).clamp(0, 14)
    heading = uniform(-3, 3, 3, 1) + uniform(-0.08, 0.08, 3, num_steps).cumsum(-1)
    velocity = speed[..., None] * torch.stack([heading.cos(), heading.sin()], dim=-1)
    return Trajectory(
        xy=uniform(-100, 100, 3, 1, 2) + (0.1 * velocity).cumsum(-2),
        z=torch.zeros(3, num_steps, dtype=torch.float64),
        heading=heading,
        velocity=velocity,
        valid=uniform(0, 1, 3, num_steps) > 0.05,
    )


def moved(motion: Trajectory, shift: tuple[float, float], turn: float) -> Trajectory:
    angle = torch.tensor(turn, dtype=torch.float64)
    return motion.replace(
        xy=se2.rotate(motion.xy, angle) + torch.tensor(shift, dtype=torch.float64),
        heading=motion.heading + angle,
        velocity=se2.rotate(motion.velocity, angle),
    )


def test_every_token_is_matched_by_itself() -> None:
    for row, kind in enumerate((AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST)):
        # Tokens of no speed at all end where token 0 does, whatever their name.
        ends = VOCABULARY.end_poses[row, 8:]
        types = torch.full((len(ends),), int(kind))
        token = match_step(VOCABULARY, types, ends[:, :2], ends[:, 2])
        assert torch.equal(token, torch.arange(8, VOCABULARY.num_tokens))


def test_many_agents_are_matched_as_each_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    types = torch.randint(0, 5, (40, 30), generator=generator)
    xy = 6 * torch.rand(40, 30, 2, generator=generator, dtype=torch.float64)
    heading = torch.rand(40, 30, generator=generator, dtype=torch.float64)
    together = match_step(VOCABULARY, types, xy, heading)
    nearest = token_distance(VOCABULARY, types, xy, heading).argmin(-1)
    assert torch.equal(together, nearest)
    assert torch.equal(match_step(VOCABULARY, types[7], xy[7], heading[7]), together[7])


@pytest.mark.parametrize("reach", [0.02, 0.1, 0.5])
def test_who_hardly_moves_is_told_by_the_nearest_token(
    reach: float, generator: torch.Generator
) -> None:
    vocabulary = MotionVocabulary.default().to(torch.float64)
    agents = scenes.agents_of([AgentType.VEHICLE, AgentType.PEDESTRIAN, AgentType.CYCLIST] * 40)
    pose = reach * torch.randn(120, 3, generator=generator, dtype=torch.float64)
    path = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None] * pose[:, None]
    log = Trajectory(
        xy=path[..., :2],
        z=torch.zeros_like(path[..., 0]),
        heading=path[..., 2],
        velocity=torch.zeros_like(path[..., :2]),
        valid=torch.ones_like(path[..., 0], dtype=torch.bool),
    )
    told = match_trajectory(log, agents, vocabulary).tokens
    nearest = token_distance(vocabulary, agents.type, pose[:, :2], pose[:, 2]).argmin(-1)
    assert torch.equal(told.token[:, 0], nearest)


def test_of_all_tokens_only_the_first_is_a_standstill() -> None:
    vocabulary = MotionVocabulary.default()
    standstill = _Standstill(vocabulary, AGENTS.type, torch.float32)
    for token, corners in enumerate(vocabulary.end_corners.unbind(1)):
        assert standstill.includes(corners).tolist() == [token == 0] * 3


def test_a_vocabulary_of_standstill_alone_tells_any_motion() -> None:
    vocabulary = MotionVocabulary.from_poses(torch.zeros(3, 1, 6, 3), VOCABULARY.size.float())
    told = match_trajectory(winding_motion(3), AGENTS, vocabulary).tokens
    assert not told.token.any()


def test_nobody_is_matched_to_nothing() -> None:
    nobody = torch.zeros(2, 0, dtype=torch.int64)
    token = match_step(VOCABULARY, nobody, torch.zeros(2, 0, 2), torch.zeros(2, 0))
    assert token.shape == (2, 0)


def test_a_turn_counts_more_for_a_bus_than_for_a_car() -> None:
    right_place, right_heading = [0.3, 0.0, 0.0], [0.6, 0.0, 0.1]
    poses = torch.zeros(3, 3, 6, 3)
    poses[:, 1:, -1] = torch.tensor([right_place, right_heading])
    vocabulary = MotionVocabulary.from_poses(poses, VOCABULARY.size.float())
    token = match_step(
        vocabulary,
        torch.tensor([1, 1]),
        torch.tensor([[0.3, 0.0], [0.3, 0.0]]),
        torch.tensor([0.1, 0.1]),
        box_size=torch.tensor([[4.0, 2.0], [12.0, 2.5]]),
    )
    assert token.tolist() == [1, 2]


@given(seed=SEEDS, shift=st.tuples(*[st.floats(-500, 500)] * 2), turn=st.floats(-7, 7))
def test_moving_or_turning_the_scene_changes_no_token(
    seed: int, shift: tuple[float, float], turn: float
) -> None:
    motion = winding_motion(seed)
    here = tokenize(motion, AGENTS, VOCABULARY).tokens
    there = tokenize(moved(motion, shift, turn), AGENTS, VOCABULARY).tokens
    assert torch.equal(there.valid, here.valid)
    assert torch.equal(there.token[there.valid], here.token[here.valid])


@given(seed=SEEDS)
def test_a_batch_is_told_as_its_members_are(seed: int) -> None:
    members = [winding_motion(seed), winding_motion(seed + 1)]
    agents = AgentMetadata.stack([AGENTS, AGENTS])
    together = tokenize(Trajectory.stack(members), agents, VOCABULARY).tokens
    for index, member in enumerate(members):
        alone = tokenize(member, AGENTS, VOCABULARY).tokens
        assert torch.equal(together.token[index], alone.token)
        assert torch.equal(together.valid[index], alone.valid)


@given(seed=SEEDS, order=st.permutations(range(3)))
def test_the_order_of_agents_does_not_matter(seed: int, order: list[int]) -> None:
    motion, permutation = winding_motion(seed), torch.tensor(order)
    told = tokenize(motion, AGENTS, VOCABULARY).tokens
    again = tokenize(
        motion.map(lambda tensor: tensor[permutation]),
        AGENTS.map(lambda tensor: tensor[permutation]),
        VOCABULARY,
    ).tokens
    assert torch.equal(again.token, told.token[permutation])


@given(seed=SEEDS)
def test_tokens_lead_from_mark_to_mark(seed: int) -> None:
    told = match_trajectory(winding_motion(seed), AGENTS, VOCABULARY).tokens
    pose = torch.cat([told.xy, told.heading[..., None]], dim=-1)
    for mark in range(1, told.token.shape[-1]):
        reached = token_end(VOCABULARY, AGENTS.type, told.token[:, mark], pose[:, mark - 1])
        linked = told.valid[:, mark] & told.valid[:, mark - 1]
        torch.testing.assert_close(reached[linked], pose[linked, mark])


@pytest.mark.parametrize("seed", range(3))
def test_errors_do_not_add_up(seed: int) -> None:
    motion = winding_motion(seed, num_steps=91).replace(valid=torch.ones(3, 91) > 0)
    told = tokenize(motion, AGENTS, VOCABULARY)
    size = VOCABULARY.size[VOCABULARY.type_index(AGENTS.type)][:, None]
    pose = torch.cat([told.tokens.xy, told.tokens.heading[..., None]], dim=-1)
    logged = torch.cat([told.logged_xy, told.logged_heading[..., None]], dim=-1)
    # Neighbouring tokens lie up to half a metre and a sixth of a radian apart.
    assert corner_distance(pose, logged, size).max() < 0.8


def test_after_an_absence_matching_starts_from_the_log() -> None:
    scenario = scenes.straight_road()
    valid = torch.ones(3, 91, dtype=torch.bool)
    valid[0, 17:33] = False
    log = scenario.log.replace(valid=valid)
    told = match_trajectory(log, scenario.agents, scenes.arc_vocabulary())
    # Marks end at steps 5, 10, ..., so those at steps 20 to 35 lack an end.
    expected = [mark not in (3, 4, 5, 6) for mark in range(NUM_MARKS)]
    assert told.tokens.valid[0].tolist() == expected
    logged = told.logged_xy[0, 6]
    torch.testing.assert_close(told.tokens.xy[0, 6], logged)
    ten_metres_a_second = 10 * 7 + 3 + 1
    assert told.tokens.token[0, 7] == ten_metres_a_second


def test_the_history_gives_the_two_marks_it_gives_within_the_log() -> None:
    motion = winding_motion(3).replace(valid=torch.ones(3, 36, dtype=torch.bool))
    history = tokenize(motion.slice(0, HISTORY_STEPS), AGENTS, VOCABULARY).tokens
    whole = tokenize(motion, AGENTS, VOCABULARY).tokens
    assert history.token.shape == (3, 2)
    assert torch.equal(history.token, whole.token[:, :2])
    assert torch.equal(history.xy, whole.xy[:, :2])


def test_who_is_absent_now_is_not_told() -> None:
    motion = winding_motion(3)
    valid = torch.ones(3, 36, dtype=torch.bool)
    valid[1, CURRENT_STEP] = False
    told = tokenize(motion.replace(valid=valid), AGENTS, VOCABULARY).tokens
    assert told.valid.any(-1).tolist() == [True, False, True]


def test_padding_is_not_told() -> None:
    agents = AGENTS.replace(valid=torch.tensor([True, True, False]))
    log = winding_motion(3).replace(valid=torch.ones(3, 36, dtype=torch.bool))
    assert tokenize(log, agents, VOCABULARY).tokens.valid.all(-1).tolist() == [True, True, False]


def test_whoever_is_there_now_has_a_token_that_led_there() -> None:
    motion = winding_motion(3)
    for entry in range(CURRENT_STEP + 1):
        valid = (torch.arange(36) >= entry).expand(3, 36)
        told = tokenize(motion.replace(valid=valid), AGENTS, VOCABULARY).tokens
        assert told.valid[:, 1].all()
        assert (told.valid[:, 0] == (entry < STEPS_PER_TOKEN)).all()


def test_who_is_far_from_the_sdc_may_be_hidden() -> None:
    scenario: Scenario = scenes.straight_road()
    told = tokenize(scenario.log, scenario.agents, scenes.arc_vocabulary(), sdc_radius=60.0).tokens
    # The sdc comes within 60 m of the parked car at step 21, of the pedestrian before it starts.
    assert told.valid[2].tolist()[:6] == [False] * 4 + [True] * 2
    assert told.valid[1].tolist()[:6] == [True] * 6


def test_a_log_shorter_than_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="a log of 5 steps is shorter than a token"):
        match_trajectory(winding_motion(3, num_steps=5), AGENTS, VOCABULARY)


def test_noise_among_one_token_is_none(generator: torch.Generator) -> None:
    motion = winding_motion(4)
    noisy = noisy_tokenize(motion, AGENTS, VOCABULARY, k=1, generator=generator).tokens
    assert torch.equal(noisy.token, tokenize(motion, AGENTS, VOCABULARY).tokens.token)


def test_noise_draws_from_the_nearest_and_is_corrected(generator: torch.Generator) -> None:
    motion = winding_motion(4, num_steps=91).replace(valid=torch.ones(3, 91, dtype=torch.bool))
    noisy = noisy_tokenize(motion, AGENTS, VOCABULARY, k=5, generator=generator)
    tokens: MotionTokens = noisy.tokens
    assert not torch.equal(tokens.token, tokenize(motion, AGENTS, VOCABULARY).tokens.token)
    now = torch.cat([motion.xy[:, 0], motion.heading[:, :1]], dim=-1)
    for mark in range(NUM_MARKS):
        xy_local = se2.to_local(noisy.logged_xy[:, mark], now[:, :2], now[:, 2])
        turn = noisy.logged_heading[:, mark] - now[:, 2]
        distance = token_distance(VOCABULARY, AGENTS.type, xy_local, turn)
        drawn = distance.gather(-1, tokens.token[:, mark, None])
        assert ((distance < drawn).sum(-1) < 5).all()
        now = torch.cat([tokens.xy[:, mark], tokens.heading[:, mark, None]], dim=-1)
    drift = torch.linalg.vector_norm(tokens.xy - noisy.logged_xy, dim=-1)
    assert drift.max() < 2


def test_cold_noise_is_none(generator: torch.Generator) -> None:
    motion = winding_motion(4)
    noisy = noisy_tokenize(
        motion, AGENTS, VOCABULARY, k=5, temperature=1e-6, generator=generator
    ).tokens
    assert torch.equal(noisy.token, tokenize(motion, AGENTS, VOCABULARY).tokens.token)


def test_noise_of_an_impossible_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be from 1"):
        noisy_tokenize(winding_motion(4), AGENTS, VOCABULARY, k=1000)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        noisy_tokenize(winding_motion(4), AGENTS, VOCABULARY, k=2, temperature=0.0)


def test_recovery_leads_back_to_the_log() -> None:
    now = torch.tensor([[3.0, 4.0, math.pi / 2]], dtype=torch.float64)
    # Two metres ahead, which is north: 4 m/s straight on.
    then = torch.tensor([[3.0, 6.0, math.pi / 2 - 2 * math.pi]], dtype=torch.float64)
    token = recovery_token(VOCABULARY, torch.tensor([1]), now, then)
    assert token.tolist() == [4 * 7 + 3 + 1]
