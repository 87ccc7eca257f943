"""The environment of one world."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from typing_extensions import override

from catk_sim.datatypes import SimState
from catk_sim.envs.infos import Info, of_world
from catk_sim.envs.vector_env import WaymoVectorEnv


class WaymoEnv(gymnasium.Env[Any, Any]):
    """Closed-loop traffic in one world: `WaymoVectorEnv` with one, as Gymnasium's `Env`.

    Args:
        **arguments: The fields of `EnvConfig`, except `autoreset_mode` and `output`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's type)

    def __init__(self, **arguments: Any) -> None:
        for name in ("autoreset_mode", "output"):
            if name in arguments:
                raise ValueError(f"{name} is an argument of the vector environment only")
        self._vector = WaymoVectorEnv(
            num_envs=1, autoreset_mode=AutoresetMode.DISABLED, output="numpy", **arguments
        )
        self.metadata = {**self.metadata, "render_fps": self._vector.metadata["render_fps"]}
        self.render_mode = self._vector.render_mode
        self.action_space = self._vector.single_action_space
        self.observation_space = self._vector.single_observation_space

    @property
    def state(self) -> SimState:
        """The current state, without batch dimensions."""
        return self._vector.state.select(0)

    @override
    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Any, Info]:
        """Starts a new episode. `options` may have `scenario_index` or `scenario`."""
        is_first = self._np_random is None
        super().reset(seed=self._vector.config.seed if is_first and seed is None else seed)
        if is_first or seed is not None:
            self._vector.use_generator(0, self.np_random)
        observation, info = self._vector.reset(options=options)
        return of_world(observation, 0), _single(info)

    @override
    def step(self, action: Any) -> tuple[Any, float, bool, bool, Info]:
        """Plays one action."""
        observation, reward, terminated, truncated, info = self._vector.step(
            np.asarray(action)[None]
        )
        return (
            of_world(observation, 0),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            _single(info),
        )

    @override
    def render(self) -> np.ndarray | None:
        """Draws the world from above, as an array of (height, width, 3) bytes."""
        pictures = self._vector.render()
        return None if pictures is None else pictures[0]


def _single(info: Info) -> Info:
    return of_world({name: value for name, value in info.items() if f"_{name}" in info}, 0)
