"""What a submission holds for one scenario, and whether the challenge would take it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from jaxtyping import Float32, Int
from numpy import ndarray

from catk_sim.constants import FUTURE_STEPS, HISTORY_STEPS
from catk_sim.datasets.errors import DataError
from catk_sim.datatypes import Scenario, Trajectory
from catk_sim.metrics.sim_agents.joint_scenes import check_agents
from catk_sim.rollout import sim_agents
from catk_sim.submission.schema import message_class

NUM_ROLLOUTS = 32
"""Rollouts of each scenario that the challenge wants."""

_PROTO_FIELDS = {"x": "center_x", "y": "center_y", "z": "center_z", "heading": "heading"}
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, eq=False, kw_only=True)
class ScenarioRollouts:
    """Simulated futures of a scenario's agents, in the coordinates of the scenario's file.

    Attributes:
        scenario_id: WOMD's id of the scenario.
        object_id: WOMD's track ids of the agents.
        x: Centres of the boxes at the steps after the current one (m).
        y: Likewise (m).
        z: Likewise (m).
        heading: Directions (rad), counter-clockwise from +x.
    """

    scenario_id: str
    object_id: Int[ndarray, " agents"]
    x: Float32[ndarray, "rollouts agents steps"]
    y: Float32[ndarray, "rollouts agents steps"]
    z: Float32[ndarray, "rollouts agents steps"]
    heading: Float32[ndarray, "rollouts agents steps"]


def simulated_rollouts(
    simulated: Trajectory, batch: Scenario
) -> Iterator[tuple[Scenario, ScenarioRollouts]]:
    """Takes the sim agents' futures out of simulated episodes.

    Args:
        simulated: `Rollout.simulated`: rollouts along the first dimension, then the batch.
        batch: What was simulated: scenarios along one dimension.

    Yields:
        Each scenario of the batch, with its rollouts.
    """
    future = simulated.slice(HISTORY_STEPS, simulated.num_steps)
    states = torch.cat([future.xy, future.z[..., None], future.heading[..., None]], dim=-1)
    for index in range(batch.batch_size):
        scenario = batch.select(index)
        chosen = sim_agents(scenario)
        # One addition rounds once, as WOSAC does. A heading is the same in both frames.
        offset = torch.cat([scenario.origin, scenario.origin.new_zeros(1)])
        absolute = (states[:, index, chosen] + offset).float().cpu().numpy()
        yield (
            scenario,
            ScenarioRollouts(
                scenario_id=scenario.scenario_id[0],
                object_id=scenario.agents.agent_id[chosen].cpu().numpy(),
                **dict(zip(_PROTO_FIELDS, np.moveaxis(absolute, -1, 0), strict=True)),
            ),
        )


def check_rollouts(rollouts: ScenarioRollouts, scenario: Scenario) -> None:
    """Refuses what the challenge's server would.

    Args:
        rollouts: What is to be submitted.
        scenario: The scenario of that id, not a batch.

    Raises:
        ValueError: The rollouts are not 32 of 80 steps in float32, do not have exactly the sim
            agents, each once, or hold a number that is not finite. The sim agents are all that are
            valid at the current step.
    """
    where = f"scenario {rollouts.scenario_id!r}"
    if (rollouts.scenario_id,) != scenario.scenario_id:
        raise ValueError(f"{where}: the rollouts are for scenario {scenario.scenario_id[0]!r}")
    object_id = rollouts.object_id.tolist()
    check_agents(object_id, scenario.agents.agent_id[sim_agents(scenario)].tolist(), where)
    wanted = (NUM_ROLLOUTS, len(object_id), FUTURE_STEPS)
    for name in _PROTO_FIELDS:
        values = getattr(rollouts, name)
        if values.shape != wanted or values.dtype != np.float32:
            raise ValueError(
                f"{where}: wanted {name} in float32 of shape {wanted} (rollouts, agents, steps), "
                f"got {values.dtype} of {values.shape}"
            )
        finite = np.isfinite(values).all(axis=(0, 2))
        if not finite.all():
            raise ValueError(
                f"{where}: {name} is not finite for the agents {rollouts.object_id[~finite]}"
            )


def encode(rollouts: ScenarioRollouts) -> bytes:
    """Serializes a message `ScenarioRollouts`."""
    message = message_class("ScenarioRollouts")(scenario_id=rollouts.scenario_id)
    object_id = rollouts.object_id.tolist()
    arrays = {field: getattr(rollouts, name) for name, field in _PROTO_FIELDS.items()}
    for rollout in range(len(rollouts.x)):
        scene = message.joint_scenes.add()
        for agent, number in enumerate(object_id):
            scene.simulated_trajectories.add(
                object_id=number,
                **{
                    field: values[rollout, agent].astype(_FLOAT).tobytes()
                    for field, values in arrays.items()
                },
            )
    return message.SerializeToString()


def decode(data: bytes, source: str) -> ScenarioRollouts:
    """Reads a message `ScenarioRollouts`.

    Args:
        data: The message.
        source: Where it comes from, for errors.

    Raises:
        DataError: It is no such message, a trajectory does not have 80 steps, or the joint scenes
            do not all have the same agents.
    """
    try:
        message = message_class("ScenarioRollouts").FromString(data)
    except DecodeError as error:
        raise DataError(f"not a ScenarioRollouts message: {error}", source) from error
    where = f"{source}, scenario {message.scenario_id!r}"
    if not message.joint_scenes:
        raise DataError("wanted at least one joint scene, got none", where)
    object_id = [one.object_id for one in message.joint_scenes[0].simulated_trajectories]
    trajectories = [
        trajectory
        for number, scene in enumerate(message.joint_scenes)
        for trajectory in _in_order(scene, object_id, f"{where}, joint scene {number}")
    ]
    shape = (len(message.joint_scenes), len(object_id), FUTURE_STEPS)
    return ScenarioRollouts(
        scenario_id=message.scenario_id,
        object_id=np.array(object_id, np.int64),
        **{
            name: _floats([getattr(one, field) for one in trajectories], shape, field, where)
            for name, field in _PROTO_FIELDS.items()
        },
    )


def _in_order(scene: Any, object_id: list[int], where: str) -> list[Any]:
    """Returns a joint scene's trajectories in the order of their ids."""
    found = [one.object_id for one in scene.simulated_trajectories]
    if sorted(found) != sorted(set(object_id)):
        raise DataError(
            f"wanted the agents of the first joint scene, each once ({object_id}), got {found}",
            where,
        )
    by_id = dict(zip(found, scene.simulated_trajectories, strict=True))
    return [by_id[number] for number in object_id]


def _floats(
    packed: list[bytes], shape: tuple[int, ...], field: str, where: str
) -> Float32[ndarray, "_ _ _"]:
    lengths = {len(values) for values in packed} - {FUTURE_STEPS * _FLOAT.itemsize}
    if lengths:
        raise DataError(
            f"wanted {FUTURE_STEPS} packed floats as {field} of each agent, got {sorted(lengths)} "
            f"bytes",
            where,
        )
    return np.frombuffer(b"".join(packed), _FLOAT).astype(np.float32).reshape(shape)
