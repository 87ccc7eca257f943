import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from catk_sim.geometry.se2 import to_local
from policies.ego_gmm.mixture import PoseMixture
from tests.shared import shared_path

# Class size of a vehicle.
CAR = torch.tensor([4.8, 2.0])


def some_mixture(seed: int, *batch: int, modes: int = 4) -> PoseMixture:
    generator = Generator().manual_seed(seed)
    return PoseMixture(
        logits=torch.randn(*batch, modes, generator=generator),
        poses=2 * torch.randn(*batch, modes, 3, generator=generator),
        std=torch.tensor([0.5, 0.2]).expand(*batch, 2),
    )


def two_modes(first: list[float], second: list[float], logits: list[float]) -> PoseMixture:
    return PoseMixture(
        logits=torch.tensor(logits),
        poses=torch.tensor([first, second]),
        std=torch.tensor([1.0, 0.1]),
    )


def local_pose(xy: Tensor, heading: Tensor, now_xy: Tensor, now_heading: Tensor) -> Tensor:
    xy_local = to_local(xy, now_xy, now_heading)
    return torch.cat([xy_local, (heading - now_heading)[..., None]], dim=-1)


@given(seed=st.integers(0, 2**32 - 1))
def test_the_likelihood_is_that_of_torchs_mixture(seed: int) -> None:
    mixture = some_mixture(seed, 5)
    pose = torch.randn(5, 3, generator=Generator().manual_seed(seed + 1))

    def placement(pose: Tensor) -> Tensor:
        x, y, heading = pose.unbind(-1)
        return torch.stack([x, y, heading.cos(), heading.sin()], dim=-1)

    std = torch.tensor([0.5, 0.5, 0.2, 0.2])
    reference = MixtureSameFamily(
        Categorical(logits=mixture.logits), Independent(Normal(placement(mixture.poses), std), 1)
    )
    likelihood = mixture.negative_log_likelihood(pose)
    torch.testing.assert_close(likelihood, -reference.log_prob(placement(pose)), atol=1e-3, rtol=0)


def density(mixture: PoseMixture, pose: Tensor, bandwidth: float) -> Tensor:
    """The blurred density, up to a factor."""
    wider = (1 + (bandwidth / mixture.std[0]) ** 2) ** 0.5
    return -mixture.replace(std=mixture.std * wider).negative_log_likelihood(pose)


def test_the_peak_is_where_the_blurred_density_is_highest() -> None:
    mixture = some_mixture(3, 1)
    peak = mixture.peak(0.4)
    around = peak + 0.02 * torch.randn(500, 3, generator=Generator().manual_seed(0))
    highest = density(mixture, peak, 0.4)
    assert (
        torch.stack([density(mixture, pose[None], 0.4) for pose in around]) <= highest + 1e-4
    ).all()


def test_narrow_modes_side_by_side_have_one_peak_and_far_ones_their_own() -> None:
    # The likeliest of three is at the edge of a pair; alone is a third.
    mixture = PoseMixture(
        logits=torch.tensor([1.0, 0.9, 0.9]),
        poses=torch.tensor([[2.0, 0.0, 0.1], [2.2, 0.0, 0.1], [9.0, 1.0, 0.5]]),
        std=torch.tensor([0.05, 0.01]),
    )
    torch.testing.assert_close(mixture.peak(1e-4), torch.tensor([2.0, 0.0, 0.1]), atol=1e-3, rtol=0)
    share = torch.tensor([1.0, 0.9]).softmax(-1)
    between = torch.tensor([2.0 * share[0] + 2.2 * share[1], 0.0, 0.1])
    torch.testing.assert_close(mixture.peak(0.5), between, atol=2e-3, rtol=0)


def golden() -> dict[str, Tensor]:
    with np.load(shared_path("golden/catk/ego_gmm.npz")) as arrays:
        return {name: torch.as_tensor(arrays[name]) for name in arrays.files}


def golden_mixture(logits: Tensor, poses: Tensor) -> PoseMixture:
    return PoseMixture(
        logits=logits, poses=poses, std=torch.tensor([1.0, 0.1]).expand(*logits.shape[:-1], 2)
    )


def test_the_loss_is_the_references() -> None:
    g = golden()
    mixture = golden_mixture(g["logits"], g["poses"])
    # Moves leave marks 1 to 16, and positions are kilometres from the origin.
    pose = local_pose(
        *(g[name][:, 2:].double() for name in ("gt_pos_raw", "gt_head_raw")),
        *(g[name][:, 1:-1].double() for name in ("pred_pos", "pred_head")),
    ).float()
    weighted = g["pred_valid"][:, 1:-1] & g["gt_valid_raw"][:, 2:]
    assert weighted.sum() == g["count_hardFalse"] == g["count_hardTrue"]
    soft = mixture.negative_log_likelihood(pose)[weighted].mean()
    assert soft.item() == pytest.approx(g["loss_hardFalse"].item(), rel=1e-5)
    # The reference's hard loss has no part for the probability of the mode.
    hard = mixture.negative_log_likelihood(pose, "hard")
    chosen = mixture.nearest_mode(pose)[..., None]
    unlikely = mixture.logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)
    hard = (hard + unlikely)[weighted].mean()
    assert hard.item() == pytest.approx(g["loss_hardTrue"].item(), rel=1e-5)


def golden_step() -> tuple[PoseMixture, Tensor]:
    g = golden()
    logged = local_pose(
        *(g[name].double() for name in ("step_pos_next_gt", "step_head_next_gt")),
        *(g[name].double() for name in ("step_pos_now", "step_head_now")),
    )
    return golden_mixture(g["step_logits"], g["step_poses"]), logged.float()


# The references carry 1 mm and 1e-4 of noise.
NOISE = {"atol": 6e-3, "rtol": 0}


def test_a_catk_step_is_the_references() -> None:
    mixture, logged = golden_step()
    everyone = torch.ones(4, dtype=torch.bool)
    chosen = mixture.closest_among_top_k(logged, 3, has_log=everyone, box_size=CAR.expand(4, 2))
    expected = golden()["topk_prob_sampled_with_dist_ego_next_local_pose_std1mm"]
    torch.testing.assert_close(chosen, expected, **NOISE)


def test_a_sampled_step_is_the_references() -> None:
    mixture, _ = golden_step()
    chosen = mixture.sample(3, temperature=1e-3, std_scale=0.0)
    expected = golden()["topk_prob_ego_next_local_pose_std1mm"]
    torch.testing.assert_close(chosen, expected, **NOISE)


def test_hard_assignment_trains_the_nearest_mode_and_its_probability() -> None:
    mixture = two_modes([1.0, 0.0, 0.0], [5.0, 0.0, 0.0], logits=[0.0, 0.0])
    logits, poses = mixture.logits.requires_grad_(), mixture.poses.requires_grad_()
    loss = mixture.negative_log_likelihood(torch.tensor([4.0, 0.0, 0.0]), "hard")
    loss.backward()
    assert logits.grad is not None
    assert poses.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([0.5, -0.5]))
    assert torch.equal(poses.grad[0], torch.zeros(3))
    # Towards the pose, by the distance over the variance.
    torch.testing.assert_close(poses.grad[1], torch.tensor([1.0, 0.0, 0.0]))


def test_the_nearest_mode_is_told_by_position_alone() -> None:
    mixture = two_modes([1.0, 0.0, 3.0], [3.0, 0.0, 0.0], logits=[0.0, 9.0])
    assert mixture.nearest_mode(torch.tensor([1.5, 0.0, 0.0])) == 0


@given(seed=st.integers(0, 2**32 - 1))
def test_with_all_modes_the_nearest_box_is_chosen_whatever_its_probability(seed: int) -> None:
    mixture = some_mixture(seed, 3)
    has_log, size = torch.ones(3, dtype=torch.bool), CAR.expand(3, 2)
    target = mixture.mean_of(torch.tensor([2, 0, 3]))
    chosen = mixture.closest_among_top_k(target, 4, has_log=has_log, box_size=size)
    assert torch.equal(chosen, target)


def test_a_mode_that_is_not_among_the_most_likely_is_not_chosen() -> None:
    mixture = two_modes([1.0, 0.0, 0.0], [5.0, 0.0, 0.0], logits=[1.0, 0.0])
    chosen = mixture.closest_among_top_k(
        torch.tensor([5.0, 0.0, 0.0]), 1, has_log=torch.tensor(True), box_size=CAR
    )
    assert chosen[0] == 1.0


def test_without_a_log_the_most_likely_mode_is_chosen() -> None:
    mixture = two_modes([1.0, 0.0, 0.0], [5.0, 0.0, 0.0], logits=[0.0, 1.0])
    for has_log, expected in ((True, 1.0), (False, 5.0)):
        chosen = mixture.closest_among_top_k(
            torch.tensor([0.0, 0.0, 0.0]), 2, has_log=torch.tensor(has_log), box_size=CAR
        )
        assert chosen[0] == expected


def test_boxes_tell_headings_apart() -> None:
    mixture = two_modes([1.0, 0.0, 1.5], [1.5, 0.0, 0.0], logits=[0.0, 0.0])
    chosen = mixture.closest_among_top_k(
        torch.tensor([1.0, 0.0, 0.0]), 2, has_log=torch.tensor(True), box_size=CAR
    )
    assert chosen[0] == 1.5


def test_samples_are_spread_as_the_mixture_says(generator: Generator) -> None:
    mixture = two_modes([1.0, 0.0, 0.3], [50.0, 0.0, -0.3], logits=[1.0, 0.0])
    many = mixture.repeat(20_000)
    drawn = many.sample(2, temperature=1.0, std_scale=1.0, generator=generator)
    near = drawn[:, 0] < 25
    assert near.float().mean().item() == pytest.approx(torch.tensor(1.0).sigmoid().item(), abs=0.02)
    assert drawn[near].mean(0).tolist() == pytest.approx([1.0, 0.0, 0.3], abs=0.05)
    assert drawn[near].std(0).tolist() == pytest.approx([1.0, 1.0, 0.1], abs=0.05)


def test_only_the_most_likely_modes_are_drawn_and_the_scale_is_obeyed(
    generator: Generator,
) -> None:
    mixture = two_modes([1.0, 0.0, 0.3], [50.0, 0.0, -0.3], logits=[0.1, 0.0]).repeat(500)
    drawn = mixture.sample(1, temperature=100.0, std_scale=1e-3, generator=generator)
    assert (drawn[:, 0] - 1).abs().max() < 0.01
    assert drawn[:, 0].std().item() == pytest.approx(1e-3, rel=0.2)


def test_a_low_temperature_draws_the_most_likely_mode(generator: Generator) -> None:
    mixture = two_modes([1.0, 0.0, 0.0], [50.0, 0.0, 0.0], logits=[0.0, 0.1]).repeat(500)
    drawn = mixture.sample(2, temperature=1e-3, std_scale=0.0, generator=generator)
    assert (drawn[:, 0] == 50).all()
