"""Simulated futures, in the form in which the challenge takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, FUTURE_STEPS, HISTORY_STEPS, NUM_STEPS
from catk_sim.datatypes import TensorTree, Trajectory
from catk_sim.metrics.box_trajectory import BoxTrajectory, take_agents
from catk_sim.metrics.sim_agents.scene import EvaluatedScene, file_coordinates


@dataclass(frozen=True, eq=False, kw_only=True)
class JointScenes(TensorTree):
    """Rollouts of a scenario's sim agents: what a submission to the challenge holds.

    In the file's own coordinates, in float32. The agents are those of an `EvaluatedScene`, in its
    order.

    Attributes:
        x: Centres of the boxes after the current step (m).
        y: Likewise (m).
        z: Likewise (m).
        heading: Directions (rad).
    """

    x: Float[Tensor, "rollouts *batch agents steps"]
    y: Float[Tensor, "rollouts *batch agents steps"]
    z: Float[Tensor, "rollouts *batch agents steps"]
    heading: Float[Tensor, "rollouts *batch agents steps"]

    def boxes(self, scene: EvaluatedScene) -> BoxTrajectory:
        """Returns the boxes of all steps: the history as logged, then the future.

        Boxes keep the size that they have at the current step.
        """
        rollouts = self.x.shape[0]

        def joined(name: str) -> Float[Tensor, "rollouts *batch agents steps"]:
            history = getattr(scene.logged, name)[..., :HISTORY_STEPS]
            return torch.cat([history.expand(rollouts, *history.shape), getattr(self, name)], -1)

        def constant(name: str) -> Float[Tensor, "rollouts *batch agents steps"]:
            size = getattr(scene.logged, name)[..., CURRENT_STEP, None]
            return size.expand(rollouts, *size.shape[:-1], NUM_STEPS)

        valid = scene.always_valid()
        return BoxTrajectory(
            **{name: joined(name) for name in ("x", "y", "z", "heading")},
            **{name: constant(name) for name in ("length", "width", "height")},
            valid=valid.expand(rollouts, *valid.shape),
        )

    @classmethod
    def from_log(cls, scene: EvaluatedScene) -> "JointScenes":
        """Takes what was logged for the only rollout, zeros included."""
        future = scene.logged.slice(HISTORY_STEPS)
        return cls(
            x=future.x[None], y=future.y[None], z=future.z[None], heading=future.heading[None]
        )

    @classmethod
    def from_rollout(
        cls, simulated: Trajectory, scene: EvaluatedScene, *, hold_absent: bool = False
    ) -> "JointScenes":
        """Takes the sim agents' futures out of simulated rollouts.

        Args:
            simulated: `Rollout.simulated`: rollouts along the first dimension, then the scenario's.
            scene: The sim agents of what was simulated.
            hold_absent: Whether a sim agent that leaves stays where it was last. The challenge
                wants every sim agent at all steps, but the log, for one, has gaps.

        Raises:
            ValueError: The rollouts do not have 91 steps, or lack a sim agent at some step and
                `hold_absent` is false.
        """
        if simulated.num_steps != NUM_STEPS:
            raise ValueError(
                f"wanted rollouts of {NUM_STEPS} steps, history included, got {simulated.num_steps}"
            )
        present = take_agents(simulated.valid, scene.track)[..., HISTORY_STEPS:]
        lost = scene.is_sim_agent & ~present.all(dim=-1)
        if hold_absent:
            simulated = _held(simulated)
        elif lost.any():
            raise ValueError(
                f"{int(lost.sum())} futures of sim agents have steps without the agent: "
                "hold_absent=True holds it where it was last"
            )
        future = simulated.slice(HISTORY_STEPS, NUM_STEPS)
        origin = scene.origin[..., None, None, :]

        def taken(values: Tensor) -> Tensor:
            return take_agents(values, scene.track)

        return cls(
            x=file_coordinates(taken(future.xy[..., 0]), origin[..., 0]),
            y=file_coordinates(taken(future.xy[..., 1]), origin[..., 1]),
            z=file_coordinates(taken(future.z), origin[..., 2]),
            heading=taken(future.heading).float(),
        )

    @classmethod
    def from_arrays(
        cls,
        object_id: ndarray,
        x: ndarray,
        y: ndarray,
        z: ndarray,
        heading: ndarray,
        scene: EvaluatedScene,
    ) -> "JointScenes":
        """Checks rollouts of one scenario that come from outside, and orders their agents.

        Args:
            object_id: WOMD's track ids of the agents (integers), in any order.
            x: Centres (rollouts, agents, 80), in the file's own coordinates (m).
            y: Likewise (m).
            z: Likewise (m).
            heading: Directions (rad), of that shape.
            scene: The scenario's sim agents. Without batch dimensions.

        Raises:
            ValueError: A shape is wrong, an id occurs twice, an agent is missing or is no sim agent
                of the scenario, or a number is not finite.
        """
        arrays = {"x": x, "y": y, "z": z, "heading": heading}
        return cls(**_ordered(object_id, arrays, scene, FUTURE_STEPS))


def _held(simulated: Trajectory) -> Trajectory:
    """Repeats the last valid state of agents that are absent."""
    steps = torch.arange(simulated.num_steps, device=simulated.valid.device)
    last = torch.where(simulated.valid, steps, 0).cummax(dim=-1).values
    wide = last[..., None]
    return simulated.replace(
        xy=torch.take_along_dim(simulated.xy, wide, dim=-2),
        z=simulated.z.gather(-1, last),
        heading=simulated.heading.gather(-1, last),
    )


def generated_scenes(
    object_id: ndarray,
    states: Mapping[str, ndarray],
    sizes: Mapping[str, ndarray],
    scene: EvaluatedScene,
) -> BoxTrajectory:
    """Checks generated scenes of one scenario that come from outside, and orders their agents.

    Args:
        object_id: As for `JointScenes.from_arrays`.
        states: x, y, z (m) and heading (rad), of shape (scenes, agents, 91).
        sizes: length, width and height (m), of shape (agents, 91): the same in all scenes.
        scene: The scenario's sim agents. Without batch dimensions.

    Raises:
        ValueError: As for `JointScenes.from_arrays`.
    """
    motion = _ordered(object_id, states, scene, NUM_STEPS)
    boxes = _ordered(
        object_id, {name: size[None] for name, size in sizes.items()}, scene, NUM_STEPS
    )
    shape = motion["x"].shape
    return BoxTrajectory(
        **motion,
        **{name: size.expand(shape) for name, size in boxes.items()},
        valid=scene.always_valid().expand(shape),
    )


def _ordered(
    object_id: ndarray, arrays: Mapping[str, ndarray], scene: EvaluatedScene, num_steps: int
) -> dict[str, Float[Tensor, "_ _ _"]]:
    """Checks arrays of shape (rollouts, agents, steps) and puts the agents in the scene's order."""
    _check_shapes(object_id, arrays, num_steps)
    ids, wanted = object_id.tolist(), scene.object_id.tolist()
    check_agents(ids, wanted, f"scenario {scene.scenario_id[0]!r}")
    row = {agent: index for index, agent in enumerate(ids)}
    order = torch.tensor([row[agent] for agent in wanted])
    ordered = {}
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        values = torch.as_tensor(native, dtype=torch.float32)[:, order].to(scene.origin.device)
        bad = ~values.isfinite().all(dim=-1).all(dim=0)
        if bad.any():
            raise ValueError(
                f"scenario {scene.scenario_id[0]}: {name} is not finite for the agents "
                f"{scene.object_id[bad].tolist()}"
            )
        ordered[name] = values
    return ordered


def _check_shapes(object_id: ndarray, arrays: Mapping[str, ndarray], num_steps: int) -> None:
    if object_id.ndim != 1 or object_id.dtype.kind not in "iu":
        raise ValueError(
            f"object_id: wanted integers of shape (agents,), got {object_id.dtype} of "
            f"{object_id.shape}"
        )
    first = next(iter(arrays.values()))
    wanted = (len(first) if first.ndim else 0, len(object_id), num_steps)
    for name, array in arrays.items():
        if array.shape != wanted or not wanted[0] or not _is_float32_or_wider(array):
            raise ValueError(
                f"{name}: wanted floats (float32 or wider) of shape (rollouts, {wanted[1]} agents, "
                f"{num_steps} steps), with the same number of rollouts (at least 1) for all, "
                f"got {array.dtype} of {array.shape}"
            )


def _is_float32_or_wider(array: ndarray) -> bool:
    # Kilometres from the origin float16 resolves metres.
    return array.dtype.kind == "f" and array.dtype.itemsize >= 4


def check_agents(ids: Sequence[int], wanted: Sequence[int], where: str) -> None:
    """Refuses rollouts whose agents are not the sim agents, each once.

    Args:
        ids: WOMD's track ids of the rollouts' agents.
        wanted: Those of the sim agents.
        where: What the rollouts are of, for errors.

    Raises:
        ValueError: They are not.
    """
    twice = sorted({agent for agent in ids if ids.count(agent) > 1})
    problems = {
        "lack the sim agents": sorted(set(wanted) - set(ids)),
        "have agents that are no sim agents": sorted(set(ids) - set(wanted)),
        "have more than once the agents": twice,
    }
    found = [f"{problem} {agents}" for problem, agents in problems.items() if agents]
    if found:
        raise ValueError(
            f"{where}: the rollouts {' and '.join(found)} (sim agents are those valid at the "
            "current step)"
        )
