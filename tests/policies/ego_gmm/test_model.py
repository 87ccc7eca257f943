from typing import Any

import pytest
import torch

from catk_sim.tokens import MotionVocabulary
from policies.ego_gmm.config import MixtureConfig
from policies.ego_gmm.model import EgoGMM, MixtureHead, of_sdc
from policies.smart.config import SMARTConfig
from policies.smart.model import SMART
from tests import scenes


def test_it_is_as_large_as_catks() -> None:
    model = EgoGMM(SMARTConfig.preset("mini"), MixtureConfig(), MotionVocabulary.default())
    assert sum(value.numel() for value in model.parameters()) == 3_194_818
    assert sum(value.numel() for value in model.fine_tuning_parameters()) == 2_047_680


def test_the_encoder_makes_features_and_no_tokens() -> None:
    model = EgoGMM(SMARTConfig.preset("micro"), MixtureConfig(), scenes.arc_vocabulary())
    assert not any(name.startswith("encoder.head") for name in model.state_dict())


def test_the_encoder_may_start_as_a_trained_smart() -> None:
    smart = SMART(SMARTConfig.preset("micro"), scenes.arc_vocabulary())
    mixture = MixtureConfig(num_modes=5)

    model = EgoGMM.upon(smart, mixture)

    assert (model.config, model.mixture_config) == (smart.config, mixture)
    kept = smart.state_dict()
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, kept[name])
    # The SMART is not trained with it.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for name, weight in smart.state_dict().items():
        assert torch.equal(weight, kept[name])
    assert not torch.equal(next(model.encoder.parameters()), next(smart.parameters()))


def test_a_head_makes_mixtures_of_the_wanted_shape() -> None:
    config = MixtureConfig(num_modes=5, position_std=2.0, heading_std=0.3)
    mixture = MixtureHead(8, config)(torch.randn(2, 3, 8))
    assert mixture.logits.shape == (2, 3, 5)
    assert mixture.poses.shape == (2, 3, 5, 3)
    torch.testing.assert_close(mixture.std, torch.tensor([2.0, 0.3]).expand(2, 3, 2))


@pytest.mark.parametrize("learn_std", [False, True])
def test_deviations_are_learnt_if_wanted_and_never_fine_tuned(learn_std: bool) -> None:
    mixture = MixtureConfig(learn_std=learn_std)
    model = EgoGMM(SMARTConfig.preset("micro"), mixture, scenes.arc_vocabulary())
    std = model.head.log_std
    assert std.requires_grad == learn_std
    assert all(parameter is not std for parameter in model.fine_tuning_parameters())
    loss = model.head(torch.randn(4, 32)).negative_log_likelihood(torch.randn(4, 3)).sum()
    loss.backward()
    assert (std.grad is not None) == learn_std


def test_means_are_told_from_where_the_agent_gets_if_it_goes_on() -> None:
    model = EgoGMM(
        SMARTConfig.preset("micro"), MixtureConfig(from_last_move=True), scenes.arc_vocabulary()
    )
    features = torch.randn(2, 32)
    # The first goes 3 m the way that it is heading, north, and slides 1 m; the second goes back.
    moved = torch.tensor([[1.0, 3.0], [-2.0, 0.0]])
    heading = torch.tensor([torch.pi / 2, 0.0])
    means = model.mixture(features, moved, heading).poses - model.head(features).poses
    expected = torch.tensor([[3.0, 0.0, 0.0], [-2.0, 0.0, 0.0]])[:, None].expand(2, 16, 3)
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=0)


def test_by_default_means_are_told_from_where_the_agent_is() -> None:
    model = EgoGMM(SMARTConfig.preset("micro"), MixtureConfig(), scenes.arc_vocabulary())
    features = torch.randn(2, 32)
    means = model.mixture(features, torch.ones(2, 2), torch.zeros(2)).poses
    assert torch.equal(means, model.head(features).poses)


def test_the_sdcs_values_are_picked_of_each_scenario() -> None:
    agents = scenes.straight_road().agents
    is_sdc = torch.tensor([[False, True, False], [True, False, False]])
    agents = agents.repeat(2).replace(is_sdc=is_sdc)
    assert of_sdc(torch.tensor([[1, 2, 3], [4, 5, 6]]), agents).tolist() == [2, 4]
    deep = torch.arange(12.0).view(2, 3, 2)
    assert of_sdc(deep, agents).tolist() == [[2.0, 3.0], [6.0, 7.0]]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_modes": 0}, "num_modes must be at least 1, got 0"),
        ({"position_std": 0.0}, "position_std must be positive, got 0.0"),
        ({"heading_std": -1.0}, "heading_std must be positive, got -1.0"),
    ],
)
def test_impossible_mixtures_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MixtureConfig(**change)
