"""Behavior cloning: open-loop training on logged tokens.

python -m trainers.bc [preset] [--field value ...]
"""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from catk_sim.constants import HISTORY_MARKS
from catk_sim.tokens import MotionTokens
from catk_sim.tokens.cleaning import train_mask
from policies.checkpoint import load_checkpoint, save_checkpoint
from policies.smart.model import SMART
from trainers.cli import parse_preset, run_command
from trainers.configs import BehaviorCloningConfig, FitConfig
from trainers.evaluate import validation_numbers
from trainers.loop import Stage, fit, seed_of
from trainers.losses import next_token_cross_entropy
from trainers.presets import BC_PRESETS
from trainers.run import Run, open_run
from trainers.scenes import Scene, batches


def behavior_cloning_loss(
    model: SMART, scene: Scene, config: FitConfig
) -> tuple[Tensor, dict[str, float]]:
    """Scores the logged tokens under the policy that reads the logged tokens.

    Args:
        model: The policy.
        scene: A batch of scenes.
        config: Label smoothing, and how many agents carry loss.

    Returns:
        The loss, and the share of labels that the policy finds most likely.
    """
    tokens = scene.tokenized.tokens
    label = tokens.token[..., HISTORY_MARKS:]
    moves = tokens.valid[..., HISTORY_MARKS - 1 : -1] & tokens.valid[..., HISTORY_MARKS:]
    return token_loss(model, scene, tokens, label, moves, config)


def token_loss(
    model: SMART,
    scene: Scene,
    tokens: MotionTokens,
    label: Int[Tensor, "*batch agents moves"],
    moves: Bool[Tensor, "*batch agents moves"],
    config: FitConfig,
) -> tuple[Tensor, dict[str, float]]:
    """Scores labels at all marks in one parallel pass.

    Args:
        model: The policy.
        scene: A batch of scenes.
        tokens: What the policy reads: logged or visited states.
        label: The token to learn at each mark from the current step on.
        moves: Which of them are known.
        config: Label smoothing, and how many agents carry loss.
    """
    learned = train_mask(
        scene.scenario.log, scene.scenario.agents, max_agents=config.max_trained_agents
    )
    weighted = moves & learned[..., None]
    features = model.features(tokens, scene.scenario.agents, scene.map_tokens)
    # The head is large, so it only sees the moves that count.
    logits: Float[Tensor, "moves tokens"] = model.head(
        features[..., HISTORY_MARKS - 1 :, :][weighted]
    )
    labels = label[weighted]
    loss = next_token_cross_entropy(
        logits,
        labels,
        torch.ones_like(labels, dtype=torch.bool),
        label_smoothing=config.label_smoothing,
    )
    accuracy = (logits.argmax(-1) == labels).float().mean() if len(labels) else loss.detach()
    return loss, {"accuracy": accuracy.item(), "moves": float(len(labels))}


def train_behavior_cloning(run: Run, model: SMART, config: FitConfig) -> None:
    """Runs the stage, or what is left of it, and saves its policy in the run's folder."""
    run_stage(
        run,
        model,
        "bc",
        config,
        loss=lambda scene: behavior_cloning_loss(model, scene, config),
        parameters=list(model.parameters()),
    )


def run_stage(
    run: Run,
    model: SMART,
    name: str,
    config: FitConfig,
    *,
    loss: Callable[[Scene], tuple[Tensor, dict[str, float]]],
    parameters: list[nn.Parameter],
) -> None:
    """Runs a stage of a run, or what is left of it, and saves its policy in the run's folder.

    Args:
        run: The run.
        model: The policy.
        name: The stage's name, folder and part of its seed.
        config: Steps, batches and optimiser.
        loss: The loss of a batch that is on the run's device, and further numbers to log.
        parameters: What is trained.
    """
    seed = seed_of(run.config.seed, name)
    fit(
        model,
        Stage(
            name=name,
            config=config,
            folder=run.folder / name,
            loss=lambda scene: loss(scene.to(run.device)),
            batches=lambda first: batches(
                run.train,
                batch_size=config.batch_size,
                seed=seed,
                first=first,
                workers=run.config.workers,
            ),
            parameters=lambda: parameters,
            validate=lambda: validation_numbers(run, model),
            seed=seed,
            autocast=run.autocast,
            fingerprint=run.fingerprint,
        ),
    )
    save_checkpoint(run.folder / name, model, run.vocabulary)


def make_model(run: Run, checkpoint: Path | None) -> SMART:
    """Makes the policy of a run: that of a checkpoint, or with weights drawn from its seed."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint, vocabulary=run.vocabulary).to(run.device)
    torch.manual_seed(seed_of(run.config.seed, "weights"))
    return SMART(run.config.model, run.vocabulary).to(run.device)


def main(args: list[str]) -> None:
    """Runs the training that the command line asks for."""
    config: BehaviorCloningConfig = parse_preset(BC_PRESETS, "demo", args)
    run = open_run(config, "bc")
    train_behavior_cloning(run, make_model(run, config.checkpoint), config.bc)


if __name__ == "__main__":
    run_command(main)
