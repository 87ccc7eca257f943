"""A simulated episode."""

from dataclasses import dataclass

from catk_sim.datatypes.action import Action
from catk_sim.datatypes.sim_state import SimState
from catk_sim.datatypes.tensor_tree import TensorTree
from catk_sim.datatypes.trajectory import Trajectory


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout(TensorTree):
    """States and actions of an episode.

    Attributes:
        simulated: The history followed by the simulated steps, aligned with the log's steps.
        final: The state after the last action.
        actions: The actions, stacked along a new dimension after the batch:
            `data` has shape (*batch, decisions, agents, ...).
    """

    simulated: Trajectory
    final: SimState
    actions: Action
