"""Agents driven by a model of Stable-Baselines3: `pip install 'catk-sim[rl]'`.

A model file is a zip of Stable-Baselines3, with a note beside the weights of what its actions and
views mean. Stable-Baselines3 pickles a part of it: load files only from those you trust.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from typing_extensions import override

from catk_sim.datasets.whole_file import whole_file
from catk_sim.datatypes import Action, RoadGraph, SimState, TensorTree
from catk_sim.dynamics import DynamicsModel
from catk_sim.envs.actions import ActionInterface
from catk_sim.envs.config import EnvConfig
from catk_sim.envs.sb3 import WaymoVecEnv
from catk_sim.envs.views import ViewSizes, view, visible_points
from catk_sim.extras import needs_extra
from catk_sim.observation import MapPoints

with needs_extra("rl", "reinforcement learning"):
    import stable_baselines3
    from gymnasium import spaces
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

_NOTE = "catk_sim.json"
_FORMAT = 1


class ViewEncoder(BaseFeaturesExtractor):
    """Reads a view of `catk_sim.envs.views`, for the `policy_kwargs` of Stable-Baselines3.

    Neighbours, map points and lights are sets: each member goes through the same small network, and
    the largest value of each feature over the valid members is kept (Qi et al., "PointNet",
    arXiv:1612.00593). An empty set gives zero. The order of members does not matter.

    Args:
        observation_space: That of a view.
        hidden_dim: Features of each part.
    """

    def __init__(self, observation_space: spaces.Space, hidden_dim: int = 64) -> None:
        super().__init__(observation_space, features_dim=4 * hidden_dim)
        self.own = _mlp(14 + 6, hidden_dim)
        self.sets = nn.ModuleDict(
            {
                name: _mlp(_width(observation_space, name), hidden_dim)
                for name in ("neighbors", "map", "lights")
            }
        )
        for name, units in _UNITS.items():
            self.register_buffer(f"{name}_units", torch.tensor(units), persistent=False)

    @override
    def forward(self, observations: dict[str, Tensor]) -> Float[Tensor, "rows features"]:
        own = observations["own"]
        scaled = own / self.get_buffer("own_units")
        parts = [self.own(torch.cat([scaled, _goal_features(own)], dim=-1))]
        for name, encoder in self.sets.items():
            members = encoder(observations[name] / self.get_buffer(f"{name}_units"))
            valid = observations[f"{name}_valid"] > 0
            # What comes out of the encoder is not negative, so an empty set gives zero.
            parts.append((members * valid[..., None]).amax(-2))
        return torch.cat(parts, dim=-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class SB3Memory(TensorTree):
    """What the policy keeps: the map that can be seen.

    Attributes:
        points: Lanes and road edges.
    """

    points: MapPoints


class SB3Policy:
    """Drives agents as a model of Stable-Baselines3 does, each by what it sees.

    Args:
        model: A model that was trained on `WaymoVecEnv`.
        action: What its actions are, as in `EnvConfig`.
        action_repeat: How often in a row each is applied, as in `EnvConfig`.
        deterministic: Whether the most likely action is taken, or one is drawn.
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        *,
        action: str,
        action_repeat: int,
        deterministic: bool = True,
    ) -> None:
        self._network = model.policy
        self._network.set_training_mode(False)
        self._sizes = _view_sizes(model)
        self._deterministic = deterministic
        config = EnvConfig(data=None, action=action, action_repeat=action_repeat)
        self._actions = ActionInterface(config, max_agents=1)

    @property
    def dynamics(self) -> DynamicsModel:
        """What its actions mean."""
        return self._actions.dynamics

    def init(self, state: SimState) -> SB3Memory:
        """Picks the lanes and road edges out of the map."""
        return SB3Memory(points=visible_points(state.scenario.roadgraph))

    def act(
        self, state: SimState, memory: SB3Memory, generator: Generator | None
    ) -> tuple[Action, SB3Memory]:
        """Chooses for every controlled agent. The others' actions are zero."""
        num_dims = state.controlled.dim() - 1
        worlds = _in_one_dimension(_without_map(state, num_dims), num_dims)
        points = _in_one_dimension(memory.points, num_dims)
        acts = worlds.controlled & worlds.current.valid[..., 0]
        seen = view(worlds, points, self._sizes, acts)
        with torch.no_grad():
            rows = self._choose(
                {name: values.to(self._network.device) for name, values in seen.items()}, generator
            )
        chosen = rows.new_zeros(*acts.shape, *rows.shape[1:])
        chosen[acts.to(rows.device)] = rows
        data = self._actions.decode(chosen, worlds).data.to(acts.device)
        data = data.reshape(*state.controlled.shape, *data.shape[2:])
        return Action(data=data, valid=state.controlled), memory

    def _choose(self, seen: dict[str, Tensor], generator: Generator | None) -> Tensor:
        network, space = self._network, self._network.action_space
        if len(seen["own"]) == 0:
            return torch.zeros(0, *(space.shape or ()), dtype=_dtype(space))
        if self._deterministic or generator is None:
            rows = network._predict(seen, deterministic=self._deterministic)
        else:
            # Stable-Baselines3 draws from torch's own generator only.
            seed = torch.randint(2**62, (), generator=generator, device=generator.device)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seed))
                rows = network._predict(seen, deterministic=False)
        if not isinstance(space, spaces.Box):
            return rows
        return rows if network.squash_output else rows.clamp(-1, 1)


def save_model(model: BaseAlgorithm, file: Path | str) -> None:
    """Writes a model with a note of how it drives.

    Args:
        model: A model whose environment is a `WaymoVecEnv`.
        file: Ends in ".zip".

    Raises:
        ValueError: The file has another ending, the model is not of `WaymoVecEnv`, or it was
            trained with a motion vocabulary of its own.
    """
    file = Path(file)
    if file.suffix != ".zip":
        raise ValueError(f"a model's file must end in .zip, got {file}")
    envs = model.get_env()
    envs = None if envs is None else envs.unwrapped
    if not isinstance(envs, WaymoVecEnv):
        raise ValueError(f"wanted a model with a WaymoVecEnv, got {type(envs).__name__}")
    config = envs.episodes.envs.config
    if config.action == "token" and config.vocabulary is not None:
        raise ValueError("a model's tokens must be of the vocabulary that ships with the package")
    note = {
        "format": _FORMAT,
        "algorithm": type(model).__name__,
        "action": config.action,
        "action_repeat": config.action_repeat,
    }
    with whole_file(file) as unfinished:
        with unfinished.open("wb") as stream:
            model.save(stream)
        with zipfile.ZipFile(unfinished, "a") as archive:
            archive.writestr(_NOTE, json.dumps(note, indent=2) + "\n")


def load_policy(file: Path | str, *, deterministic: bool = True) -> SB3Policy:
    """Reads a model that `save_model` wrote, on the CPU. It runs what is pickled in it.

    Args:
        file: The zip.
        deterministic: See `SB3Policy`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a model that `save_model` wrote.
    """
    note = _read_note(Path(file))
    algorithm = getattr(stable_baselines3, note["algorithm"], None)
    if algorithm is None:
        raise ValueError(f"{file} is of an algorithm that is unknown: {note['algorithm']}")
    return SB3Policy(
        # The schedule is code, which another Python may not be able to read, and is not needed.
        algorithm.load(
            file, device="cpu", custom_objects={"learning_rate": 0.0, "lr_schedule": None}
        ),
        action=note["action"],
        action_repeat=note["action_repeat"],
        deterministic=deterministic,
    )


def _read_note(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no model at {file}")
    try:
        with zipfile.ZipFile(file) as archive:
            note = json.loads(archive.read(_NOTE))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{file} is no model that policies.sb3.save_model wrote") from error
    if note["format"] != _FORMAT:
        raise ValueError(f"{file} must be of format {_FORMAT}, got {note['format']}")
    return note


_UNITS = {
    "own": (10.0, 10.0, 4.0, 1.0, 5.0, 2.0, 1.0, 1.0, 1.0, 1.0, 40.0, 40.0, 8.0, 1.0),
    "neighbors": (20.0, 20.0, 1.0, 1.0, 10.0, 10.0, 5.0, 2.0, 1.0, 1.0, 1.0, 1.0),
    "map": (20.0, 20.0, 1.0, 1.0, 1.0, 1.0),
    "lights": (20.0, 20.0, 1.0, 1.0, 1.0, 1.0),
}
"""What numbers of a view are divided by, so that they are about one."""


def _goal_features(own: Float[Tensor, "rows own"]) -> Float[Tensor, "rows 6"]:
    """Tells where the goal is in ways from which controls are easily read off."""
    goal, seconds = own[:, 10:12], own[:, 12]
    distance = goal.norm(dim=-1)
    direction = goal / distance.clamp(min=1)[:, None]
    pace = distance / seconds.clamp(min=0.5)
    speed = own[:, 0]
    # The circle that is tangent to the heading and leads to the goal has this curvature.
    curvature = 2 * goal[:, 1] / distance.square().clamp(min=4)
    return torch.stack(
        [
            direction[:, 0],
            direction[:, 1],
            (1 + distance).log() / 4,
            (pace / 10).clamp(max=4),
            ((pace - speed) / 5).clamp(-4, 4),
            (10 * curvature).clamp(-4, 4),
        ],
        dim=-1,
    )


def _mlp(num_inputs: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_inputs, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ReLU(),
    )


def _width(space: spaces.Space, name: str) -> int:
    assert isinstance(space, spaces.Dict)
    shape = space[name].shape
    assert shape is not None
    return shape[-1]


def _dtype(space: spaces.Space) -> torch.dtype:
    return torch.float32 if isinstance(space, spaces.Box) else torch.int64


def _view_sizes(model: BaseAlgorithm) -> ViewSizes:
    space = model.observation_space
    if not isinstance(space, spaces.Dict) or "neighbors" not in space.spaces:
        raise ValueError(f"wanted a model that sees views (catk_sim.envs.views), got {space}")
    room = {name: (space[name].shape or (0,))[0] for name in ("neighbors", "map", "lights")}
    return ViewSizes(
        max_neighbors=room["neighbors"], max_map_points=room["map"], max_lights=room["lights"]
    )


def _without_map(state: SimState, num_dims: int) -> SimState:
    # Rollouts share the map's memory until they are laid out one after the other.
    empty: RoadGraph = state.scenario.roadgraph.map(lambda tensor: tensor.narrow(num_dims, 0, 0))
    return state.replace(scenario=state.scenario.replace(roadgraph=empty))


def _in_one_dimension(tree: Any, num_dims: int) -> Any:
    if num_dims == 0:
        return tree.map(lambda tensor: tensor[None])
    return tree.map(lambda tensor: tensor.flatten(0, num_dims - 1))
