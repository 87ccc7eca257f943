"""The environment of one world."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from typing_extensions import override

from catk_sim.datatypes import SimState
from catk_sim.envs.config import RENDER_MODES
from catk_sim.envs.infos import Info, of_world
from catk_sim.envs.vector_env import WaymoVectorEnv


class WaymoEnv(gymnasium.Env[Any, Any]):
    """Closed-loop traffic in one world: `WaymoVectorEnv` with one, as Gymnasium's `Env`.

    Args:
        **arguments: The fields of `EnvConfig`, except `autoreset_mode` and `output`.

    Example:
        >>> import catk_sim
        >>> env = gymnasium.make(
        ...     "CatK-Waymo-v0", data="synthetic:1", controlled="sdc", action="bicycle"
        ... )
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(np.zeros(2, np.float32))
        >>> int(info["step"])
        11
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's type)
        "render_modes": list(RENDER_MODES)
    }

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
        """Draws the world from above, as an array of (height, width, 3) bytes.

        Returns None where `render_mode` is "human": `reset` and `step` have shown the world.
        """
        pictures = self._vector.render()
        return None if pictures is None else pictures[0]

    @override
    def close(self) -> None:
        """Closes the window, if there is one."""
        self._vector.close()


def _single(info: Info) -> Info:
    return of_world({name: value for name, value in info.items() if f"_{name}" in info}, 0)
