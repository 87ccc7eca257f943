"""Behavior cloning: open-loop training on logged tokens.

python -m trainers.bc [preset] [--field value ...]
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from catk_sim.constants import HISTORY_MARKS
from catk_sim.tokens import MotionTokens
from policies.checkpoint import load_checkpoint, load_ego_gmm
from policies.ego_gmm.model import EgoGMM
from policies.pretrained import folder_of
from policies.smart.attention import RelationalAttention
from policies.smart.model import SMART
from trainers.cli import parse_preset, run_trainer
from trainers.configs import BehaviorCloningConfig, EgoPolicyConfig, FitConfig
from trainers.ego_gmm import ego_cloning_loss
from trainers.evaluate import Validation
from trainers.loop import Stage, fit, seed_of
from trainers.losses import score_moves
from trainers.presets import BC_PRESETS
from trainers.run import Run, open_run
from trainers.scenes import BatchPlan, Scene, batches


def behavior_cloning_loss(
    model: SMART, scene: Scene, config: FitConfig
) -> tuple[Tensor, dict[str, float]]:
    """Scores the logged tokens under the policy that reads the logged tokens.

    Args:
        model: The policy.
        scene: A batch of scenes.
        config: Label smoothing.

    Returns:
        The loss, the share of labels that the policy finds most likely, and the number of moves
        that both are means over.
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
        config: Label smoothing.
    """
    weighted = moves & scene.learned[..., None]
    features = model.features(tokens, scene.scenario.agents, scene.map_tokens)
    return score_moves(
        model.head,
        features[..., HISTORY_MARKS - 1 :, :][weighted],
        label[weighted],
        label_smoothing=config.label_smoothing,
    )


def train_behavior_cloning(run: Run, model: SMART | EgoGMM, config: FitConfig) -> None:
    """Runs the stage, or what is left of it, and saves its policy in the run's folder."""

    def loss(scene: Scene) -> tuple[Tensor, dict[str, float]]:
        if isinstance(model, EgoGMM):
            assert isinstance(run.config, EgoPolicyConfig)
            return ego_cloning_loss(model, scene, run.config.learners)
        return behavior_cloning_loss(model, scene, config)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    run_stage(run, model, "bc", config, loss=loss, parameters=trained)


def run_stage(
    run: Run,
    model: SMART | EgoGMM,
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
        loss: The loss of a part of a batch that is on the run's device, and further numbers to log.
            See `Stage`.
        parameters: What is trained.
    """
    seed = seed_of(run.config.seed, name)
    plan = BatchPlan(
        batch_size=config.batch_size,
        seed=seed,
        max_learned_agents=config.max_trained_agents,
        part_size=run.config.max_scenarios_at_once,
        batches_per_pool=config.batches_per_pool,
    )
    if isinstance(model, EgoGMM):
        # Here, as SMART's training does without.
        from trainers.ego_benchmark import EgoValidation

        validate = partial(EgoValidation(run), model)
    else:
        validate = partial(Validation(run), model)
    fit(
        model,
        Stage(
            name=name,
            config=config,
            folder=run.folder / name,
            loss=lambda scene: loss(scene.to(run.device)),
            batches=lambda first: batches(run.train, plan, first=first, workers=run.config.workers),
            parameters=lambda: parameters,
            validate=validate,
            seed=seed,
            autocast=run.autocast,
            fingerprint=run.fingerprint,
        ),
    )
    run.save(name, model)


def make_model(run: Run, checkpoint: Path | None) -> SMART | EgoGMM:
    """Makes the policy of a run: that of a checkpoint, or with weights drawn from its seed."""
    model = _new_model(run) if checkpoint is None else _load_model(run, checkpoint)
    if run.config.gradient_checkpointing:
        checkpoint_attention(model)
    return model.to(run.device)


def _new_model(run: Run) -> SMART | EgoGMM:
    torch.manual_seed(seed_of(run.config.seed, "weights"))
    if isinstance(run.config, EgoPolicyConfig):
        if run.config.encoder is not None:
            smart = load_checkpoint(folder_of(run.config.encoder), vocabulary=run.vocabulary)
            return EgoGMM.upon(smart, run.config.mixture)
        return EgoGMM(run.config.model, run.config.mixture, run.vocabulary)
    return SMART(run.config.model, run.vocabulary)


def _load_model(run: Run, checkpoint: Path) -> SMART | EgoGMM:
    load = load_ego_gmm if isinstance(run.config, EgoPolicyConfig) else load_checkpoint
    return load(folder_of(checkpoint), vocabulary=run.vocabulary)


def checkpoint_attention(model: nn.Module) -> None:
    """Makes attention layers keep their inputs alone, and compute the rest again for the gradient.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
    """
    for layer in model.modules():
        if isinstance(layer, RelationalAttention):
            layer.forward = partial(recomputed, layer.forward, use_reentrant=False)


def main(args: list[str]) -> None:
    """Runs the training that the command line asks for."""
    config: BehaviorCloningConfig = parse_preset(
        BC_PRESETS, "demo", args, prog="python -m trainers.bc"
    )
    run = open_run(config, "bc")
    train_behavior_cloning(run, make_model(run, config.checkpoint), config.bc)


if __name__ == "__main__":
    run_trainer(main)
