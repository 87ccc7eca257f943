"""What has been simulated so far."""

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Int
from torch import Tensor

from catk_sim.datatypes.action import Action
from catk_sim.datatypes.scenario import Scenario
from catk_sim.datatypes.tensor_tree import TensorTree
from catk_sim.datatypes.trajectory import Trajectory


@dataclass(frozen=True, eq=False, kw_only=True)
class SimState(TensorTree):
    """The state of a simulation: its size does not grow with time.

    Attributes:
        scenario: What was logged, in the dtype of the simulation.
        history: The last `HISTORY_STEPS` steps. The last of them is the current one.
        step: Index of the current step in the log's time, for each scenario its own.
        controlled: Agents that follow actions. The others follow the log.
        last_action: The action that led here. Not valid for anyone after a reset.
    """

    scenario: Scenario
    history: Trajectory
    step: Int[Tensor, "*batch"]
    controlled: Bool[Tensor, "*batch agents"]
    last_action: Action

    @cached_property
    def current(self) -> Trajectory:
        """The current step, as a trajectory of length one."""
        return self.history.at(-1)
