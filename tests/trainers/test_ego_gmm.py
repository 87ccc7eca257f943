"""The ego policy's losses, and the rollouts that it learns from."""

from functools import partial

import pytest
import torch
from torch import Tensor

from catk_sim.constants import HISTORY_MARKS, NUM_MARKS, STEPS_PER_TOKEN
from catk_sim.datatypes import AgentType
from catk_sim.tokens import MotionTokens, MotionVocabulary
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.mixture import PoseMixture
from policies.ego_gmm.model import EgoGMM, of_sdc
from policies.smart.config import SMARTConfig
from policies.smart.model import motion_since_last_mark
from trainers.ego_gmm import (
    Learners,
    drive_egos,
    ego_catk_loss,
    ego_cloning_loss,
    next_logged_poses,
    poses_of,
    relative_pose,
    who_is_learnt_from,
    within_reach,
)
from trainers.recovery import along_the_log
from trainers.scenes import Scene

SMALL = SMARTConfig(hidden_dim=16, num_map_layers=1, num_agent_layers=1)


@pytest.fixture(params=[False, True], ids=["from_here", "from_last_move"])
def ego(request: pytest.FixtureRequest, vocabulary: MotionVocabulary) -> EgoGMM:
    torch.manual_seed(0)
    mixture = MixtureConfig(num_modes=4, from_last_move=request.param)
    return EgoGMM(SMALL, mixture, vocabulary).eval()


def poses(tokens: MotionTokens, batch: Scene) -> Tensor:
    """Where the sdc is at each mark."""
    return of_sdc(poses_of(tokens), batch.scenario.agents)


def logged_next(batch: Scene) -> tuple[Tensor, Tensor]:
    """Where the sdc is logged next, and whether."""
    pose, has_log = next_logged_poses(batch)
    agents = batch.scenario.agents
    return of_sdc(pose, agents), of_sdc(has_log, agents)


def mixtures(ego: EgoGMM, tokens: MotionTokens, batch: Scene) -> PoseMixture:
    """What the policy makes of states, in one parallel pass."""
    agents = batch.scenario.agents
    features = ego.encoder.features(tokens, agents, batch.map_tokens)
    values = (features, motion_since_last_mark(tokens), tokens.heading)
    now = slice(HISTORY_MARKS - 1, NUM_MARKS - 1)
    return ego.mixture(*(of_sdc(value, agents)[:, now] for value in values))


def visited(ego: EgoGMM, batch: Scene, k: int, whom: Learners = "sdc") -> MotionTokens:
    """The states of a rollout, as the encoder saw them; absent agents are zero."""
    shape = batch.tokenized.tokens.valid.shape
    rollout = drive_egos(ego, batch, who_is_learnt_from(batch, whom), k)
    marks = [situation.nodes for situation in rollout.record]

    def padded(values: list[Tensor]) -> Tensor:
        one = torch.Size((*shape[:-1], 1))
        return torch.cat(
            [nodes.pad(value, one) for nodes, value in zip(marks, values, strict=True)], dim=2
        )

    return MotionTokens(
        token=padded([nodes.token.float() for nodes in marks]).long(),
        xy=padded([nodes.poses.xy for nodes in marks]),
        heading=padded([nodes.poses.heading for nodes in marks]),
        valid=padded([torch.ones_like(nodes.poses.heading) for nodes in marks]) > 0,
    )


def test_the_loss_is_the_mean_over_the_sdcs_logged_moves(ego: EgoGMM, batch: Scene) -> None:
    loss, numbers = ego_cloning_loss(ego, batch)
    with torch.no_grad():
        mixture = mixtures(ego, batch.tokenized.tokens, batch)
    logged = batch.tokenized
    now = poses(logged.tokens, batch)[:, 1:-1]
    then = torch.cat([logged.logged_xy, logged.logged_heading[..., None]], dim=-1)
    target = relative_pose(of_sdc(then, batch.scenario.agents)[:, 2:], now)
    # Both sdcs are there throughout.
    assert numbers["moves"] == 2 * 16
    expected = mixture.negative_log_likelihood(target).mean()
    torch.testing.assert_close(loss.detach(), expected, atol=1e-4, rtol=1e-4)
    error = (mixture.mean_of(mixture.logits.argmax(-1)) - target)[..., :2].norm(dim=-1).mean()
    assert numbers["pose_error"] == pytest.approx(error.item(), rel=1e-3)


def test_poses_are_told_in_the_frame_of_the_present_one() -> None:
    quarter = torch.pi / 2
    now = torch.tensor([10.0, 5.0, quarter])
    then = torch.tensor([9.0, 8.0, quarter + 0.5 - 2 * torch.pi])
    torch.testing.assert_close(relative_pose(then, now), torch.tensor([3.0, 1.0, 0.5]))


def test_moves_that_the_log_lacks_do_not_count(ego: EgoGMM, batch: Scene) -> None:
    logged = batch.tokenized.logged_valid.clone()
    logged[..., 5] = False
    gap = batch.replace(tokenized=batch.tokenized.replace(logged_valid=logged))
    for loss in (ego_cloning_loss(ego, gap), ego_catk_loss(ego, gap, 2)):
        assert loss[1]["moves"] == 2 * 15


def test_a_state_that_the_log_lacks_is_not_learnt_from(ego: EgoGMM, batch: Scene) -> None:
    tokens = batch.tokenized.tokens
    valid = tokens.valid.clone()
    valid[..., 5] = False
    gap = batch.replace(tokenized=batch.tokenized.replace(tokens=tokens.replace(valid=valid)))
    assert ego_cloning_loss(ego, gap)[1]["moves"] == 2 * 15
    # In a rollout the sdc is there all the same.
    assert ego_catk_loss(ego, gap, 2)[1]["moves"] == 2 * 16


def test_without_a_logged_move_the_loss_is_zero(ego: EgoGMM, batch: Scene) -> None:
    logged = torch.zeros_like(batch.tokenized.logged_valid)
    nothing = batch.replace(tokenized=batch.tokenized.replace(logged_valid=logged))
    for loss, numbers in (ego_cloning_loss(ego, nothing), ego_catk_loss(ego, nothing, 2)):
        loss.backward()
        assert (loss.item(), numbers["moves"]) == (0.0, 0.0)


def test_in_a_rollout_the_others_replay_their_tokens(ego: EgoGMM, batch: Scene) -> None:
    tokens, log = visited(ego, batch, 2), batch.tokenized.tokens
    others = log.valid[..., :-1] & ~batch.scenario.agents.is_sdc[..., None]
    assert torch.equal(tokens.valid & ~batch.scenario.agents.is_sdc[..., None], others)
    assert torch.equal(tokens.xy[others], log.xy[..., :-1, :][others])
    assert torch.equal(tokens.token[others], log.token[..., :-1][others])
    assert not torch.equal(poses(tokens, batch)[:, 3:], poses(log, batch)[:, 3:-1])
    assert torch.equal(poses(tokens, batch)[:, :2], poses(log, batch)[:, :2])


def test_with_one_mode_the_rollout_is_greedy(ego: EgoGMM, batch: Scene) -> None:
    tokens = visited(ego, batch, 1)
    with torch.no_grad():
        mixture = mixtures(ego, tokens, batch)
    driven = poses(tokens, batch)[:, HISTORY_MARKS - 1 :]
    moved = relative_pose(driven[:, 1:], driven[:, :-1])
    likeliest = mixture.mean_of(mixture.logits.argmax(-1))[:, :-1]
    torch.testing.assert_close(moved[..., :2], likeliest[..., :2], atol=2e-3, rtol=0)


def test_the_rollout_takes_the_mode_nearest_to_the_log(ego: EgoGMM, batch: Scene) -> None:
    tokens = visited(ego, batch, 3)
    with torch.no_grad():
        mixture = mixtures(ego, tokens, batch)
    driven = poses(tokens, batch)[:, HISTORY_MARKS - 1 :]
    logged, has_log = logged_next(batch)
    size = torch.tensor([4.8, 2.0]).expand(*has_log.shape, 2)
    wanted = mixture.closest_among_top_k(
        relative_pose(logged, driven), 3, has_log=has_log, box_size=size
    )
    moved = relative_pose(driven[:, 1:], driven[:, :-1])
    torch.testing.assert_close(moved[..., :2], wanted[:, :-1, :2], atol=2e-3, rtol=0)


def test_the_loss_of_a_rollout_is_that_of_its_states_read_anew(ego: EgoGMM, batch: Scene) -> None:
    near = within_reach(batch, batch.scenario.agents.is_sdc, ego.config, margin=1000.0)
    loss, numbers = ego_catk_loss(ego, batch, 3)
    tokens = visited(ego, near, 3)
    mixture = mixtures(ego, tokens, near)
    logged, _ = logged_next(batch)
    target = relative_pose(logged, poses(tokens, batch)[:, HISTORY_MARKS - 1 :])
    anew = mixture.negative_log_likelihood(target).mean()
    assert numbers["moves"] == 2 * 16
    torch.testing.assert_close(loss, anew, atol=1e-3, rtol=1e-3)
    trained = ego.fine_tuning_parameters()
    for mine, theirs in zip(
        torch.autograd.grad(loss, trained), torch.autograd.grad(anew, trained), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-2, rtol=1e-2)


def test_states_far_from_the_log_are_not_learnt_from(ego: EgoGMM, batch: Scene) -> None:
    driven = poses(visited(ego, batch, 4), batch)[:, 1:, :2]
    logged = of_sdc(batch.tokenized.logged_xy, batch.scenario.agents)[:, 1:-1]
    distance = (driven - logged).norm(dim=-1)
    limit = distance.median().item() + 1e-3
    near = int((distance <= limit).sum())
    assert 0 < near < distance.numel()
    assert ego_catk_loss(ego, batch, 4, max_deviation=limit)[1]["moves"] == near


def test_the_way_is_learnt_in_place_of_the_pose(ego: EgoGMM, batch: Scene) -> None:
    near = within_reach(batch, batch.scenario.agents.is_sdc, ego.config, margin=1000.0)
    loss, _ = ego_catk_loss(ego, batch, 3, recovery="way")
    tokens, agents = visited(ego, near, 3), batch.scenario.agents
    now = poses(tokens, batch)[:, HISTORY_MARKS - 1 :].flatten(0, 1)
    log = batch.scenario.log.map(lambda value: of_sdc(value, agents).repeat_interleave(16, 0))
    step = STEPS_PER_TOKEN * (1 + torch.arange(1, 17)).repeat(2)
    target = relative_pose(along_the_log(now, log, step), now).unflatten(0, (2, 16))
    anew = mixtures(ego, tokens, near).negative_log_likelihood(target).mean()
    torch.testing.assert_close(loss, anew, atol=1e-3, rtol=1e-3)
    assert not torch.isclose(loss, ego_catk_loss(ego, batch, 3)[0], rtol=1e-2)


def test_every_vehicle_that_moves_may_learn(ego: EgoGMM, batch: Scene) -> None:
    learners = who_is_learnt_from(batch, "vehicles")
    agents, log = batch.scenario.agents, batch.scenario.log
    assert learners.sum() > 2
    assert (agents.type[learners] == AgentType.VEHICLE).all()
    assert batch.learned[learners].all()
    parked = batch.replace(
        scenario=batch.scenario.replace(log=log.replace(xy=log.xy[..., 10:11, :].expand_as(log.xy)))
    )
    assert not who_is_learnt_from(parked, "vehicles").any()
    none = batch.replace(learned=torch.zeros_like(batch.learned))
    assert not who_is_learnt_from(none, "vehicles").any()
    for loss in (ego_cloning_loss, partial(ego_catk_loss, k=2)):
        of_all, of_one = (loss(ego, batch, whom=whom)[1]["moves"] for whom in ("vehicles", "sdc"))
        assert of_all > of_one == 2 * 16


def test_all_who_learn_drive_in_a_rollout(ego: EgoGMM, batch: Scene) -> None:
    learners = who_is_learnt_from(batch, "vehicles")
    tokens, log = visited(ego, batch, 2, "vehicles"), batch.tokenized.tokens
    replaying = log.valid[..., :-1] & ~learners[..., None]
    assert torch.equal(tokens.xy[replaying], log.xy[..., :-1, :][replaying])
    went = (tokens.xy - log.xy[..., :-1, :]).norm(dim=-1)[..., 2:].amax(-1)
    assert (went[learners & log.valid[..., 1]] > 0).all()


def test_a_rollout_leaves_the_model_in_its_mode_and_without_gradient(
    ego: EgoGMM, batch: Scene
) -> None:
    ego.train()
    driven = drive_egos(ego, batch, batch.scenario.agents.is_sdc, 2)
    assert ego.training
    assert not driven.map_features.requires_grad


def crowd(batch: Scene) -> Scene:
    """Agents in a row, 14 m apart, the sdc first; a map token beside each."""
    tokens, agents = batch.tokenized.tokens, batch.scenario.agents
    num_agents, num_tokens = agents.type.shape[-1], batch.map_tokens.valid.shape[-1]
    place = 14.0 * torch.arange(num_agents)
    xy = torch.stack([place, torch.zeros(num_agents)], dim=-1)
    tokens = tokens.replace(
        xy=xy[:, None].expand(2, -1, NUM_MARKS, 2), valid=torch.ones_like(tokens.valid)
    )
    beside = torch.stack([14.0 * torch.arange(num_tokens), torch.ones(num_tokens)], dim=-1)
    is_sdc = (torch.arange(num_agents) == 0).expand(2, -1)
    return batch.replace(
        scenario=batch.scenario.replace(agents=agents.replace(is_sdc=is_sdc)),
        tokenized=batch.tokenized.replace(tokens=tokens),
        map_tokens=batch.map_tokens.replace(
            xy=beside.expand(2, -1, 2), valid=torch.ones_like(batch.map_tokens.valid)
        ),
    )


@pytest.mark.parametrize(
    ("layers", "margin", "agents", "map_tokens"),
    [
        (1, 0.0, 2, 4),  # Agents see agents and map tokens 20 m, these each other 10 m.
        (2, 0.0, 3, 5),
        (1, 15.0, 3, 6),  # The sdc may be 15 m closer.
        (2, 15.0, 4, 7),
    ],
)
def test_what_the_sdc_cannot_see_is_left_out(
    batch: Scene, layers: int, margin: float, agents: int, map_tokens: int
) -> None:
    config = SMARTConfig(num_map_layers=1, num_agent_layers=layers)
    scene = crowd(batch)
    near = within_reach(scene, scene.scenario.agents.is_sdc, config, margin=margin)
    kept = near.tokenized.tokens.valid
    assert kept.all(-1).sum(-1).tolist() == [agents] * 2
    assert kept.any(-1).sum(-1).tolist() == [agents] * 2
    reached = near.map_tokens.valid[:, :40].sum(-1).tolist()
    assert reached == [map_tokens] * 2


@pytest.mark.parametrize("layers", [1, 2])
def test_leaving_out_changes_nothing(
    vocabulary: MotionVocabulary, batch: Scene, layers: int
) -> None:
    torch.manual_seed(1)
    config = SMARTConfig(
        hidden_dim=16,
        num_map_layers=1,
        num_agent_layers=layers,
        agent_radius=8.0,
        map_agent_radius=8.0,
    )
    ego = EgoGMM(config, MixtureConfig(num_modes=4), vocabulary).eval()
    near = within_reach(batch, batch.scenario.agents.is_sdc, config)
    assert near.tokenized.tokens.valid.sum() < batch.tokenized.tokens.valid.sum()
    assert near.map_tokens.valid.sum() < batch.map_tokens.valid.sum() / 2
    with torch.no_grad():
        one, other = (mixtures(ego, scene.tokenized.tokens, scene) for scene in (near, batch))
    torch.testing.assert_close(one.poses, other.poses, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_small_ego_policy_learns_two_scenes_by_heart(
    vocabulary: MotionVocabulary, batch: Scene
) -> None:
    torch.manual_seed(0)
    ego = EgoGMM(SMALL, MixtureConfig(num_modes=4), vocabulary).eval()
    trained = [parameter for parameter in ego.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-2)
    errors = []
    for _ in range(80):
        loss, numbers = ego_cloning_loss(ego, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(numbers["pose_error"])
    assert errors[-1] < errors[0] / 5
