"""Complete configurations of the runs that we report or test, by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from policies.ego_gmm.config import MixtureConfig
from policies.smart.config import SMARTConfig
from trainers.configs import (
    BehaviorCloningConfig,
    CatKConfig,
    EgoCatKConfig,
    EgoCloningConfig,
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
        data="synthetic:200",
        validation_data="synthetic:24:1",
        model=replace(SMARTConfig.preset("micro"), map_agent_radius=12.0),
        k=128,
        bc=FitConfig(
            num_steps=600,
            label_smoothing=0.1,
            validate_every=200,
            save_every=200,
            optimizer=OptimizerConfig(learning_rate=6e-3, warmup_steps=50),
        ),
        catk=FitConfig(
            num_steps=150,
            validate_every=50,
            save_every=50,
            optimizer=OptimizerConfig(learning_rate=5e-4, final_ratio=0.05, warmup_steps=15),
        ),
        rollouts=RolloutConfig(num_rollouts=4, max_scenarios=24),
    )


def pretrained() -> CatKConfig:
    """A stage of the policy that ships, `smart_nano` (1.2M): generated scenarios, a CPU.

    policies/pretrained/README.md tells how its stages follow on each other.
    """
    return CatKConfig(
        data="synthetic:640",
        validation_data="synthetic:32:1",
        model=SMARTConfig.preset("nano"),
        k=128,
        bc=FitConfig(
            num_steps=1000,
            validate_every=250,
            save_every=100,
            optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=50),
        ),
        catk=FitConfig(
            num_steps=300,
            validate_every=100,
            save_every=50,
            optimizer=OptimizerConfig(learning_rate=5e-4, final_ratio=0.05, warmup_steps=15),
        ),
        rollouts=RolloutConfig(num_rollouts=4, max_scenarios=32),
        output=Path("runs/pretrained_catk"),
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


def few_scenes() -> CatKConfig:
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


def smart_nano_catk() -> CatKConfig:
    """SMART nano (1.2M) as in arXiv:2412.05334: behavior cloning, unless given, then CAT-K."""
    return _paper("nano")


def smart_mini_catk() -> CatKConfig:
    """SMART mini (3.4M) as in arXiv:2412.05334: behavior cloning, unless given, then CAT-K."""
    return _paper("mini")


def smart_tiny_catk() -> CatKConfig:
    """SMART tiny (7.0M) as in arXiv:2412.05334: behavior cloning, unless given, then CAT-K."""
    return _paper("tiny")


def smart_large_catk() -> CatKConfig:
    """SMART large (102M) as in arXiv:2412.05334: behavior cloning, unless given, then CAT-K."""
    return _paper("large")


def _paper(model: str) -> CatKConfig:
    # 487k scenarios in batches of 80: 32 epochs of behavior cloning, 10 of fine-tuning. The rate
    # falls with every step, which in catk it does with every epoch.
    steps_per_epoch = 487_000 // 80
    return CatKConfig(
        data="womd/training",
        validation_data="womd/validation",
        model=SMARTConfig.preset(model),
        k=32,
        bc=FitConfig(
            num_steps=32 * steps_per_epoch,
            batch_size=80,
            # Not in catk. Processes wait for the slowest, so their scenes had better be alike.
            batches_per_pool=16,
            label_smoothing=0.1,
            max_trained_agents=32,
            validate_every=steps_per_epoch,
            save_every=1000,
            optimizer=OptimizerConfig(
                learning_rate=5e-4, final_ratio=0.01, weight_decay=0.01, gradient_clip=0.5
            ),
        ),
        catk=FitConfig(
            num_steps=10 * steps_per_epoch,
            batch_size=80,
            batches_per_pool=16,
            label_smoothing=0.0,
            max_trained_agents=32,
            validate_every=steps_per_epoch,
            save_every=1000,
            optimizer=OptimizerConfig(
                learning_rate=5e-5, final_ratio=0.05, weight_decay=0.01, gradient_clip=0.5
            ),
        ),
        rollouts=RolloutConfig(num_rollouts=32),
        output=Path(f"runs/smart_{model}_catk"),
    )


def ego_gmm_catk() -> EgoCatKConfig:
    """The ego policy (3.2M) as in arXiv:2412.05334: behavior cloning, unless given, then CAT-K."""
    # In batches of 10: 64 epochs of behavior cloning, as catk's configuration has it, and the 5 of
    # fine-tuning that the paper tells.
    steps_per_epoch = 487_000 // 10
    return EgoCatKConfig(
        data="womd/training",
        validation_data="womd/validation",
        model=SMARTConfig.preset("mini"),
        k=3,
        bc=FitConfig(
            num_steps=64 * steps_per_epoch,
            batch_size=10,
            batches_per_pool=16,
            validate_every=steps_per_epoch,
            save_every=1000,
            optimizer=OptimizerConfig(learning_rate=5e-4, final_ratio=0.05),
        ),
        catk=FitConfig(
            num_steps=5 * steps_per_epoch,
            batch_size=10,
            batches_per_pool=16,
            validate_every=steps_per_epoch,
            save_every=1000,
            optimizer=OptimizerConfig(learning_rate=1e-4, final_ratio=0.05),
        ),
        rollouts=RolloutConfig(num_rollouts=32),
        output=Path("runs/ego_gmm_catk"),
    )


def ego_gmm_demo_catk() -> EgoCatKConfig:
    """The ego policy in twenty minutes on a laptop: behavior cloning, unless given, then CAT-K.

    Hundreds of scenarios are not the paper's 487 thousand. So every vehicle teaches, the encoder
    starts as the policy that ships, and means are told from where the last move leads. Modes are
    narrow and the policy drives to the peak of their blurred density. CAT-K teaches the way back,
    but nothing of how far ahead or behind the log the ego is, which it cannot see (EXPERIMENTS.md).
    """
    return EgoCatKConfig(
        data="synthetic:640",
        validation_data="synthetic:100:1",
        encoder=Path("smart_nano"),
        learners="vehicles",
        mixture=MixtureConfig(
            position_std=0.1, heading_std=0.02, learn_std=True, from_last_move=True, bandwidth=0.3
        ),
        k=3,
        recovery="way",
        max_deviation=3.0,
        bc=FitConfig(
            num_steps=1200,
            validate_every=300,
            save_every=100,
            optimizer=OptimizerConfig(learning_rate=1.5e-3, final_ratio=0.02, warmup_steps=50),
        ),
        catk=FitConfig(
            num_steps=500,
            validate_every=250,
            save_every=100,
            optimizer=OptimizerConfig(learning_rate=3e-4, final_ratio=0.02, warmup_steps=50),
        ),
        rollouts=RolloutConfig(num_rollouts=1, max_scenarios=100),
    )


def ego_gmm_debug_catk() -> EgoCatKConfig:
    """Seconds: the ego policy on next to nothing. For tests and for a first look at own data."""
    return EgoCatKConfig(
        data="synthetic:6",
        model=SMARTConfig.preset("micro"),
        bc=FitConfig(num_steps=6, batch_size=2, validate_every=3, save_every=3),
        catk=FitConfig(num_steps=4, batch_size=2, validate_every=2, save_every=2),
        rollouts=RolloutConfig(num_rollouts=2, max_scenarios=4, batch_size=2),
    )


def _first_stage(whole: Callable[[], CatKConfig]) -> Callable[[], BehaviorCloningConfig]:
    def preset() -> BehaviorCloningConfig:
        config = whole()
        is_ego = isinstance(config, EgoCatKConfig)
        kind = EgoCloningConfig if is_ego else BehaviorCloningConfig
        fields = {name: getattr(config, name) for name in kind.__dataclass_fields__}
        if config.output is not None:
            fields["output"] = config.output.with_name(_name_of_first_stage(config.output.name))
        return kind(**fields)

    preset.__doc__ = (whole.__doc__ or "").replace(", unless given, then CAT-K", "")
    return preset


def _name_of_first_stage(name: str) -> str:
    return name.removesuffix("_catk") + "_bc" if name.endswith("_catk") else name


CATK_PRESETS = {
    preset.__name__: preset
    for preset in (
        demo,
        pretrained,
        debug,
        few_scenes,
        smart_nano_catk,
        smart_mini_catk,
        smart_tiny_catk,
        smart_large_catk,
        ego_gmm_debug_catk,
        ego_gmm_demo_catk,
        ego_gmm_catk,
    )
}
"""Behavior cloning and fine-tuning, by name."""

BC_PRESETS = {
    _name_of_first_stage(name): _first_stage(whole) for name, whole in CATK_PRESETS.items()
}
"""The behavior cloning of these alone: `smart_tiny_bc` is the first stage of `smart_tiny_catk`."""
