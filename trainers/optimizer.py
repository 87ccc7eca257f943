"""AdamW and its schedule."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim.adamw import adamw

from trainers.configs import OptimizerConfig


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101).

    The arithmetic is torch's. To make a `torch.optim.AdamW` imports torch's compiler, which takes
    70 MB and as long as many steps.

    Args:
        parameters: What is trained.
        config: The optimiser's settings.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> None:
        self.parameters = list(parameters)
        self.learning_rate = config.learning_rate
        self.weight_decay = config.weight_decay
        # Made before the first step, whose temporary memory it would otherwise lie among.
        self._state = [
            {
                "step": value.new_zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(value),
                "exp_avg_sq": torch.zeros_like(value),
            }
            for value in map(Tensor.detach, self.parameters)
        ]

    def step(self) -> None:
        """Changes the parameters that have a gradient."""
        learnt = [place for place, value in enumerate(self.parameters) if value.grad is not None]
        state = [self._state[place] for place in learnt]
        averages = ([entry[name] for entry in state] for name in ("exp_avg", "exp_avg_sq"))
        with torch.no_grad():
            adamw(
                [self.parameters[place] for place in learnt],
                [cast(Tensor, self.parameters[place].grad) for place in learnt],
                *averages,
                max_exp_avg_sqs=[],
                state_steps=[entry["step"] for entry in state],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.learning_rate,
                weight_decay=self.weight_decay,
                eps=1e-8,
                maximize=False,
            )
        # The fused kernel writes without telling those who keep what they made of parameters.
        increment_version([self.parameters[place] for place in learnt])

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Returns the state of each parameter, by its place among all."""
        return dict(enumerate(self._state))

    def load_state_dict(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Restores what `state_dict` returned; the tensors may be on another device.

        Raises:
            ValueError: The state is that of other parameters.
        """
        wanted = {place: _shapes(entry) for place, entry in self.state_dict().items()}
        found = {place: _shapes(entry) for place, entry in state.items()}
        if found != wanted:
            raise ValueError(f"wanted the state of parameters of shapes {wanted}, got {found}")
        for place, entry in enumerate(self._state):
            for name, value in entry.items():
                value.copy_(state[place][name])


def _shapes(entry: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in entry.items()}


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
