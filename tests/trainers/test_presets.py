"""The recipe of arXiv:2412.05334, number by number."""

import inspect
from pathlib import Path

import pytest

from catk_sim.tokens import MotionVocabulary
from catk_sim.tokens.cleaning import train_mask
from policies.smart.model import SMART
from trainers.configs import (
    BehaviorCloningConfig,
    EgoCatKConfig,
    EgoCloningConfig,
    FitConfig,
    OptimizerConfig,
)
from trainers.presets import BC_PRESETS, CATK_PRESETS
from trainers.scenes import SDC_RADIUS

SCENARIOS, BATCH = 487_000, 80
MODELS = ("nano", "mini", "tiny", "large")


def settings(config: FitConfig) -> dict[str, float]:
    """What catk sets too."""
    optimizer = config.optimizer
    return {
        "epochs": config.num_steps * BATCH / SCENARIOS,
        "batch": config.batch_size,
        "learning rate": optimizer.learning_rate,
        "final ratio": optimizer.final_ratio,
        "warm-up": optimizer.warmup_steps,
        "weight decay": optimizer.weight_decay,
        "clip": optimizer.gradient_clip,
        "smoothing": config.label_smoothing,
        "agents": config.max_trained_agents,
    }


def recipe(epochs: int, learning_rate: float, final_ratio: float, smoothing: float) -> object:
    return pytest.approx(
        {
            "epochs": epochs,
            "batch": BATCH,
            "learning rate": learning_rate,
            "final ratio": final_ratio,
            "warm-up": 0,
            "weight decay": 0.01,
            "clip": 0.5,
            "smoothing": smoothing,
            "agents": 32,
        },
        rel=1e-3,  # An epoch leaves out what fills no batch.
    )


@pytest.mark.parametrize("model", MODELS)
def test_behavior_cloning_is_the_papers(model: str) -> None:
    expected = recipe(32, learning_rate=5e-4, final_ratio=0.01, smoothing=0.1)
    assert settings(BC_PRESETS[f"smart_{model}_bc"]().bc) == expected
    assert settings(CATK_PRESETS[f"smart_{model}_catk"]().bc) == expected


@pytest.mark.parametrize("model", MODELS)
def test_fine_tuning_is_the_papers(model: str) -> None:
    config = CATK_PRESETS[f"smart_{model}_catk"]()
    expected = recipe(10, learning_rate=5e-5, final_ratio=0.05, smoothing=0.0)
    assert settings(config.catk) == expected
    assert config.k == 32
    rollouts = config.rollouts
    assert (rollouts.num_rollouts, rollouts.top_k, rollouts.temperature) == (32, 48, 1.0)


@pytest.mark.parametrize(
    ("model", "parameters", "fine_tuned"),
    [
        ("nano", 1_161_344, 754_240),
        ("mini", 3_433_984, 2_286_848),
        ("tiny", 7_001_024, 5_344_384),
        # Its layers are not published, only this.
        ("large", 102e6, None),
    ],
)
def test_models_and_what_fine_tuning_trains_are_as_large_as_catks(
    model: str, parameters: float, fine_tuned: int | None
) -> None:
    config = CATK_PRESETS[f"smart_{model}_catk"]()
    network = SMART(config.model, MotionVocabulary.default())
    count = sum(value.numel() for value in network.parameters())
    assert count == pytest.approx(parameters, rel=0 if fine_tuned else 0.02)
    trained = sum(value.numel() for value in network.fine_tuning_parameters())
    assert fine_tuned is None or trained == fine_tuned


def test_agents_are_hidden_and_learnt_by_the_papers_distances() -> None:
    assert SDC_RADIUS == 150.0
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(train_mask).parameters.items()
    }
    assert (defaults["radius"], defaults["min_future_steps"]) == (100.0, 5)


def test_a_stage_of_its_own_has_a_folder_of_its_own() -> None:
    assert BC_PRESETS["smart_tiny_bc"]().output == Path("runs/smart_tiny_bc")
    assert CATK_PRESETS["smart_tiny_catk"]().output == Path("runs/smart_tiny_catk")
    assert BC_PRESETS["demo"]().output is None


def test_a_preset_says_what_it_trains() -> None:
    assert BC_PRESETS["smart_tiny_bc"].__doc__ == (
        "SMART tiny (7.0M) as in arXiv:2412.05334: behavior cloning."
    )


def test_the_ego_policy_is_trained_by_the_papers_recipe() -> None:
    config, cloning = CATK_PRESETS["ego_gmm_catk"](), BC_PRESETS["ego_gmm_bc"]()
    assert isinstance(config, EgoCatKConfig)
    assert isinstance(cloning, EgoCloningConfig)
    assert cloning.bc == config.bc
    assert cloning.output == Path("runs/ego_gmm_bc")
    assert (config.k, config.max_deviation) == (3, None)
    mixture = config.mixture
    assert (mixture.num_modes, mixture.position_std, mixture.heading_std) == (16, 1.0, 0.1)
    assert (mixture.learn_std, mixture.assignment) == (False, "soft")
    for stage, epochs, rate in ((config.bc, 64, 5e-4), (config.catk, 5, 1e-4)):
        assert stage.batch_size == 10
        assert stage.num_steps * 10 / SCENARIOS == pytest.approx(epochs, rel=1e-3)
        assert stage.optimizer == OptimizerConfig(learning_rate=rate, final_ratio=0.05)


def test_a_preset_of_all_agents_is_none_of_the_ego() -> None:
    assert type(BC_PRESETS["demo"]()) is BehaviorCloningConfig
    assert type(BC_PRESETS["ego_gmm_demo_bc"]()) is EgoCloningConfig
