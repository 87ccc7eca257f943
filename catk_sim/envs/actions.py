"""The border between Gymnasium's actions and the simulator's."""

from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from catk_sim.datatypes import Action, SimState
from catk_sim.dynamics import (
    DeltaLocal,
    DynamicsModel,
    Held,
    InvertibleBicycle,
    StateDynamics,
    TokenDynamics,
)
from catk_sim.envs.config import EnvConfig
from catk_sim.observation import fit
from catk_sim.tokens import MotionVocabulary

# Powers of two, so that scaling an action and back is exact; but the bicycle has bounds of its own.
SCALES: dict[str, tuple[float, ...]] = {
    "delta": (8.0, 8.0, 4.0),
    "bicycle": (6.0, 0.3),
    "state": (1024.0, 1024.0, 4.0, 64.0, 64.0),
}
"""What an action of 1 means, by kind of action.

"delta": forward (m), to the left (m), turn (rad). "bicycle": acceleration (m/s^2), curvature (1/m).
"state": x, y (m) in the scenario's frame, heading (rad), velocity x, y (m/s).
"""


class ActionInterface:
    """Gymnasium's action space, and what an action in it means to the simulator.

    Tokens are Discrete. Controls are a Box from -1 to 1, in units of `SCALES`; numbers beyond 1 are
    understood, not cut off. If the sdc is who is controlled there is one action per world, else one
    per agent, for the first `max_agents` agents of the state.

    Args:
        config: The environment's arguments.
        max_agents: Agents that there is room for.
    """

    def __init__(self, config: EnvConfig, max_agents: int) -> None:
        self.dynamics = _dynamics(config)
        self._scale = None
        if config.action in SCALES:
            scale = torch.tensor(SCALES[config.action], dtype=config.dtype)
            self._scale = scale.to(config.device)
        self._device = torch.device(config.device)
        self._for_sdc = config.controls_sdc
        self._max_agents = max_agents
        self.single_space = self._single_space()

    def zero(self, state: SimState) -> Action:
        """Makes the action of nobody, in the shape that every later one has."""
        shape, controls = state.controlled.shape, self._scale
        if controls is None:
            data = torch.zeros(shape, dtype=torch.int64, device=state.controlled.device)
        else:
            data = controls.new_zeros(*shape, *controls.shape)
        return Action(data=data, valid=torch.zeros_like(state.controlled))

    def decode(self, actions: np.ndarray | Tensor, state: SimState) -> Action:
        """Reads a batch of Gymnasium's actions.

        Args:
            actions: One action per world; or one per agent, either for `max_agents` agents or for
                exactly those of the state.
            state: The worlds.

        Raises:
            ValueError: If the shape is wrong, or if on the CPU a token does not exist or a control
                is not finite. On an accelerator that would cost a wait, and is not looked for.
        """
        given = torch.as_tensor(actions, device=self._device)
        num_agents = state.controlled.shape[-1]
        given = self._check_shape(given, state.controlled.shape[0], num_agents)
        self._check_values(given)
        data = given.to(torch.int64) if self._scale is None else given.to(self._scale) * self._scale
        if self._for_sdc:  # Nobody else is controlled, so whose row it stands in does not matter.
            data = data[:, None].expand(-1, num_agents, *data.shape[1:])
        else:
            data = fit(data, 1, num_agents)
        return Action(data=data, valid=torch.ones_like(state.controlled))

    def _single_space(self) -> spaces.Space:
        agents = () if self._for_sdc else (self._max_agents,)
        if self._scale is not None:
            return spaces.Box(-1.0, 1.0, (*agents, *self._scale.shape), np.float32)
        assert isinstance(self.dynamics, TokenDynamics)
        num_tokens = self.dynamics.vocabulary.num_tokens
        if self._for_sdc:
            return spaces.Discrete(num_tokens)
        return spaces.MultiDiscrete([num_tokens] * self._max_agents)

    def _check_shape(self, given: Tensor, num_worlds: int, num_agents: int) -> Tensor:
        controls = () if self._scale is None else tuple(self._scale.shape)
        rows = [()] if self._for_sdc else [(self._max_agents,), (num_agents,)]
        wanted = [(num_worlds, *row, *controls) for row in rows]
        if tuple(given.shape) not in wanted:
            shapes = " or ".join(map(str, dict.fromkeys(wanted)))
            raise ValueError(f"actions must have shape {shapes}, got {tuple(given.shape)}")
        return given

    def _check_values(self, given: Tensor) -> None:
        if self._scale is None and given.is_floating_point():
            raise ValueError(f"tokens must be integers, got {given.dtype}")
        if given.device.type != "cpu" or given.numel() == 0:
            return
        if isinstance(self.dynamics, TokenDynamics):
            low, high = (int(token) for token in given.aminmax())
            num_tokens = self.dynamics.vocabulary.num_tokens
            if low < 0 or high >= num_tokens:
                raise ValueError(f"tokens must be from 0 to {num_tokens - 1}, got {low} to {high}")
        elif not given.isfinite().all():
            raise ValueError("controls must be finite, got NaN or infinity")


def _dynamics(config: EnvConfig) -> DynamicsModel:
    if config.action == "token":
        return TokenDynamics(_vocabulary(config).to(config.device).to(config.dtype))
    dynamics = {"delta": DeltaLocal, "bicycle": InvertibleBicycle, "state": StateDynamics}[
        config.action
    ]()
    return dynamics if config.action_repeat == 1 else Held(dynamics, config.action_repeat)


def _vocabulary(config: EnvConfig) -> MotionVocabulary:
    given = config.vocabulary
    if given is None:
        return MotionVocabulary.default()
    return MotionVocabulary.load(Path(given)) if isinstance(given, str | Path) else given
