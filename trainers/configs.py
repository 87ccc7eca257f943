"""What a run needs to know, and nothing that it can work out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from catk_sim.submission import NUM_ROLLOUTS, SubmissionMetadata
from catk_sim.submission.writer import check_archive_name
from policies.ego_gmm.config import MixtureConfig
from policies.smart.config import SMARTConfig


def _refuse_unless(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay (arXiv:2412.05334, appendix)."""

    learning_rate: float = 5e-4
    """Peak learning rate."""

    final_ratio: float = 0.01
    """Learning rate at the end, as a fraction of the peak."""

    warmup_steps: int = 0
    """Optimiser steps, not epochs, from zero to the peak."""

    weight_decay: float = 0.01
    """Decoupled weight decay of every parameter."""

    gradient_clip: float = 0.5
    """Largest allowed norm of the gradient."""

    def __post_init__(self) -> None:
        _refuse_unless(
            self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}"
        )
        _refuse_unless(
            0 <= self.final_ratio <= 1, f"final_ratio must be in [0, 1], got {self.final_ratio}"
        )
        _refuse_unless(
            self.gradient_clip > 0, f"gradient_clip must be positive, got {self.gradient_clip}"
        )


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """One stage of training: so many steps on batches of so many scenarios."""

    num_steps: int = 1000
    """Optimiser steps."""

    batch_size: int = 4
    """Scenarios per step, of all processes together."""

    batches_per_pool: int = 1
    """Batches that are drawn together and then cut by size, so that less of them is padding. With
    1, each is drawn for itself."""

    label_smoothing: float = 0.0
    """Probability that is spread over all tokens instead of the label."""

    max_trained_agents: int = 32
    """Agents per scenario that carry loss. All agents with a role do; others fill up at random."""

    validate_every: int = 250
    """Steps between validations."""

    save_every: int = 250
    """Steps between checkpoints that a killed run can resume from."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in (
            "num_steps",
            "batch_size",
            "batches_per_pool",
            "max_trained_agents",
            "validate_every",
            "save_every",
        ):
            value = getattr(self, name)
            _refuse_unless(value >= 1, f"{name} must be at least 1, got {value}")
        _refuse_unless(
            0 <= self.label_smoothing < 1,
            f"label_smoothing must be in [0, 1), got {self.label_smoothing}",
        )


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How policies are driven when they are measured."""

    num_rollouts: int = 4
    """Independent rollouts of each scenario. WOSAC asks for 32."""

    max_scenarios: int = 64
    """Scenarios to drive, the first of the held-out ones."""

    batch_size: int = 8
    """Scenarios driven at a time."""

    top_k: int = 48
    """Tokens that are sampled from, the most likely ones."""

    temperature: float = 1.0
    """Divides the logits before sampling."""

    metric_version: Literal["2023", "2024", "2024_pkg164", "2025"] = "2025"
    """Year of the Sim Agents metric."""

    def __post_init__(self) -> None:
        for name in ("num_rollouts", "max_scenarios", "batch_size", "top_k"):
            value = getattr(self, name)
            _refuse_unless(value >= 1, f"{name} must be at least 1, got {value}")
        _refuse_unless(
            self.temperature > 0, f"temperature must be positive, got {self.temperature}"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Which policies are measured, on what."""

    policies: tyro.conf.Positional[tuple[str, ...]]
    """Folders that a trainer saved (`runs/catk/bc`), names (log_replay, constant_velocity, idm,
    random_token, smart_nano), or your own: `path/to/file.py:Policy`, `package.module:Policy`."""

    data: str = "synthetic:32:1"
    """Scenarios to drive. See the trainers' `--data`."""

    output: Path = Path("runs/evaluation")
    """Folder for `metrics.json`."""

    cache: Path = Path("runs/cache")
    """Folder for parsed scenarios, so that a source is read once."""

    on_error: Literal["raise", "skip"] = "raise"
    """Whether a bad record ends the run, or is counted, listed and left out."""

    rollouts: RolloutConfig = field(default_factory=RolloutConfig)

    report_scenes: int = 20
    """Scenarios that can be played in `report.html`, with 4 rollouts at most. It tells of all."""

    seed: int = 0
    """Seed of every random draw."""

    device: str = "auto"
    """`auto` is the first GPU if there is one, else the CPU."""

    cpu_threads: int = 1
    """Threads that torch may use on the CPU."""

    def __post_init__(self) -> None:
        _refuse_unless(len(self.policies) > 0, "wanted at least one policy, got none")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training run has."""

    output: Path | None = None
    """Folder for checkpoints, logs and results. By default a new one below `runs`."""

    resume: bool = False
    """Go on with the run in `output`. Without it, a folder with a run in it is refused."""

    data: str = "synthetic:256"
    """Scenarios to learn from: a TFRecord, a GPUDrive JSON, a prepared cache, a folder or glob of
    these, or `synthetic`, `synthetic:COUNT`, `synthetic:COUNT:SEED` for generated ones."""

    validation_data: str = ""
    """The same for the held-out scenarios. Empty: a part of `data` is held out."""

    holdout: float = 0.1
    """Share of `data` that is held out when `validation_data` is empty."""

    cache: Path = Path("runs/cache")
    """Folder for parsed scenarios, so that a source is read once."""

    on_error: Literal["raise", "skip"] = "raise"
    """Whether a bad record ends the run, or is counted, listed and left out."""

    workers: int = 0
    """Processes that read and tokenise scenarios ahead of time. What fits into memory is made once
    and needs none."""

    model: SMARTConfig = field(default_factory=SMARTConfig)
    """Size of the policy, if it does not come from a checkpoint."""

    vocabulary: Path | None = None
    """Motion vocabulary. By default the one that ships with the package."""

    rollouts: RolloutConfig = field(default_factory=RolloutConfig)

    seed: int = 0
    """Seed of every random draw in the run."""

    device: str = "auto"
    """`auto` is the first GPU if there is one, else the CPU."""

    cpu_threads: int = 1
    """Threads that torch may use on the CPU. More help large models on an idle machine; on a busy
    one they wait for each other."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 autocast on a GPU, float32 on a CPU."""

    max_scenarios_at_once: int | None = None
    """Scenarios that a process works through at a time, if its share of a batch does not fit into
    memory. Gradients are added up; the batch stays the same."""

    gradient_checkpointing: bool = False
    """Compute attention a second time for its gradient, rather than keep what that needs."""

    def __post_init__(self) -> None:
        _refuse_unless(0 < self.holdout < 1, f"holdout must be in (0, 1), got {self.holdout}")
        at_once = self.max_scenarios_at_once
        _refuse_unless(
            at_once is None or at_once >= 1,
            f"max_scenarios_at_once must be at least 1, got {at_once}",
        )
        _refuse_unless(
            self.cpu_threads >= 1, f"cpu_threads must be at least 1, got {self.cpu_threads}"
        )


@dataclass(frozen=True, kw_only=True)
class BehaviorCloningConfig(RunConfig):
    """Open-loop training on logged tokens."""

    checkpoint: Path | None = None
    """Policy to start from: a folder, or smart_nano. `trainers.bc` goes on with it; `trainers.catk`
    fine-tunes it instead of one that it first trains by behavior cloning."""

    bc: FitConfig = field(
        default_factory=lambda: FitConfig(label_smoothing=0.1),
    )


@dataclass(frozen=True, kw_only=True)
class CatKConfig(BehaviorCloningConfig):
    """Behavior cloning, then closed-loop fine-tuning with closest-among-top-K rollouts."""

    k: int = 32
    """Tokens that a rollout may choose from."""

    catk: FitConfig = field(
        default_factory=lambda: FitConfig(
            optimizer=OptimizerConfig(learning_rate=5e-5, final_ratio=0.05)
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unless(self.k >= 1, f"k must be at least 1, got {self.k}")


@dataclass(frozen=True, kw_only=True)
class EgoPolicyConfig:
    """What makes a run train the ego policy: `model` is its encoder."""

    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """Shape of the ego policy's mixture, if it does not come from a checkpoint."""

    encoder: Path | None = None
    """Folder of a SMART that a trainer saved, or smart_nano: the encoder starts as it, and `model`
    is not used."""

    learners: Literal["sdc", "vehicles"] = "sdc"
    """Whose driving is learnt: the sdc's, as in the paper, or that of every vehicle which moves, so
    that a scene teaches many times as much."""


@dataclass(frozen=True, kw_only=True)
class EgoCloningConfig(EgoPolicyConfig, BehaviorCloningConfig):
    """Open-loop training of the ego policy."""


@dataclass(frozen=True, kw_only=True)
class EgoCatKConfig(EgoPolicyConfig, CatKConfig):
    """Behavior cloning of the ego policy, then closed-loop fine-tuning; `k` counts modes."""

    k: int = 3
    """Modes that a rollout may choose from."""

    recovery: Literal["pose", "way"] = "pose"
    """What visited states teach: to get to the log's next pose at once, as in the paper, or onto
    its way, ahead by as much as the log moves."""

    max_deviation: float | None = None
    """How far (m) a visited state may be from the log to be learnt from. By default all are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_unless(
            self.max_deviation is None or self.max_deviation > 0,
            f"max_deviation must be positive, got {self.max_deviation}",
        )


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """What is submitted to the Sim Agents Challenge."""

    policy: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="POLICY")]
    """Folder that a trainer saved (`runs/catk/catk`), a name (constant_velocity, idm,
    random_token, smart_nano), or your own: `path/to/file.py:Policy`, `package.module:Policy`."""

    data: str
    """The whole split that is submitted for: WOMD's folder scenario/testing or
    scenario/validation, or anything else that the trainers' `--data` takes."""

    metadata: SubmissionMetadata
    """What the submission says of itself."""

    output: Path = Path("runs/submission.tar.gz")
    """The archive to write. It is replaced if it exists."""

    cache: Path = Path("runs/cache")
    """Folder for parsed scenarios, so that a source is read once."""

    batch_size: int = 4
    """Scenarios driven at a time, in 32 rollouts each."""

    top_k: int = 48
    """Tokens that are sampled from, the most likely ones."""

    temperature: float = 1.0
    """Divides the logits before sampling."""

    seed: int = 0
    """Seed of every random draw."""

    device: str = "auto"
    """`auto` is the first GPU if there is one, else the CPU."""

    cpu_threads: int = 1
    """Threads that torch may use on the CPU."""

    @property
    def rollouts(self) -> RolloutConfig:
        """How the policy is driven."""
        return RolloutConfig(
            num_rollouts=NUM_ROLLOUTS,
            batch_size=self.batch_size,
            top_k=self.top_k,
            temperature=self.temperature,
        )

    def __post_init__(self) -> None:
        # Impossible values are refused before any scenario is driven.
        _ = self.rollouts
        check_archive_name(self.output)
