"""Complete configurations of the runs that we report or test, by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from policies.smart.config import SMARTConfig
from trainers.configs import (
    BehaviorCloningConfig,
    CatKConfig,
    FitConfig,
    OptimizerConfig,
    RolloutConfig,
)


def demo() -> CatKConfig:
    """The whole idea in minutes on a laptop: a micro SMART on generated scenarios.

    K is larger than the paper's 32: a policy this young finds more tokens likely, and what it
    visits with too small a K is too far from the log (EXPERIMENTS.md).
    """
    return CatKConfig(
        data="synthetic:160",
        validation_data="synthetic:24:1",
        model=replace(SMARTConfig.preset("micro"), map_agent_radius=12.0),
        k=128,
        bc=FitConfig(
            num_steps=450,
            label_smoothing=0.1,
            validate_every=150,
            save_every=150,
            optimizer=OptimizerConfig(learning_rate=6e-3, warmup_steps=50),
        ),
        catk=FitConfig(
            num_steps=120,
            validate_every=40,
            save_every=40,
            optimizer=OptimizerConfig(learning_rate=5e-4, final_ratio=0.05, warmup_steps=15),
        ),
        rollouts=RolloutConfig(num_rollouts=4, max_scenarios=24),
    )


def debug() -> CatKConfig:
    """Seconds: the same steps on next to nothing. For tests and for a first look at own data."""
    return CatKConfig(
        data="synthetic:6",
        model=SMARTConfig.preset("micro"),
        k=8,
        bc=FitConfig(num_steps=6, batch_size=2, validate_every=3, save_every=3),
        catk=FitConfig(num_steps=4, batch_size=2, validate_every=2, save_every=2),
        rollouts=RolloutConfig(num_rollouts=2, max_scenarios=4, batch_size=2),
    )


def smart_nano() -> CatKConfig:
    """SMART nano (1.2M), sized for a hundred scenarios or so and a CPU."""
    return CatKConfig(
        model=SMARTConfig.preset("nano"),
        bc=FitConfig(
            num_steps=2000,
            label_smoothing=0.1,
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50),
        ),
        catk=FitConfig(
            num_steps=500, optimizer=OptimizerConfig(learning_rate=2e-4, final_ratio=0.05)
        ),
    )


def smart_mini() -> CatKConfig:
    """SMART mini (3.4M) with the paper's recipe."""
    return _paper("mini")


def smart_tiny() -> CatKConfig:
    """SMART tiny (7.0M) with the paper's recipe (arXiv:2412.05334)."""
    return _paper("tiny")


def _paper(model: str) -> CatKConfig:
    # 487k scenarios in batches of 80: 32 epochs of behavior cloning, 10 of fine-tuning.
    steps_per_epoch = 487_000 // 80
    return CatKConfig(
        data="womd/training",
        validation_data="womd/validation",
        model=SMARTConfig.preset(model),
        bc=FitConfig(
            num_steps=32 * steps_per_epoch,
            batch_size=80,
            label_smoothing=0.1,
            validate_every=steps_per_epoch,
            save_every=1000,
            optimizer=OptimizerConfig(learning_rate=5e-4, final_ratio=0.01),
        ),
        catk=FitConfig(
            num_steps=10 * steps_per_epoch,
            batch_size=80,
            validate_every=steps_per_epoch,
            save_every=1000,
            optimizer=OptimizerConfig(learning_rate=5e-5, final_ratio=0.05),
        ),
        rollouts=RolloutConfig(num_rollouts=32),
        output=Path(f"runs/smart_{model}"),
    )


CATK_PRESETS = {
    preset.__name__: preset for preset in (demo, debug, smart_nano, smart_mini, smart_tiny)
}
"""Behavior cloning and fine-tuning, by name."""


def _only_behavior_cloning(preset: Callable[[], CatKConfig]) -> Callable[[], BehaviorCloningConfig]:
    def first_stage() -> BehaviorCloningConfig:
        whole = preset()
        fields = BehaviorCloningConfig.__dataclass_fields__
        return BehaviorCloningConfig(**{name: getattr(whole, name) for name in fields})

    first_stage.__doc__ = preset.__doc__
    return first_stage


BC_PRESETS = {name: _only_behavior_cloning(preset) for name, preset in CATK_PRESETS.items()}
"""Behavior cloning alone, by name."""
