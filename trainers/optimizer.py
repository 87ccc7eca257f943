"""AdamW and its schedule."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from trainers.configs import OptimizerConfig


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig
) -> torch.optim.AdamW:
    """Makes the optimiser of a stage."""
    return torch.optim.AdamW(
        list(parameters), lr=config.learning_rate, weight_decay=config.weight_decay
    )


def learning_rate(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Tells the learning rate of a step: a linear warm-up, then half a cosine.

    Args:
        step: The step that is about to be taken, from 0.
        num_steps: Steps of the stage.
        config: The optimiser's settings.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.final_ratio + (1 - config.final_ratio) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = value
