"""The simulation: pure functions from state to state."""

import torch
from jaxtyping import Bool
from torch import Tensor

from catk_sim.constants import CURRENT_STEP, HISTORY_STEPS
from catk_sim.datatypes import Action, Scenario, SimState, Trajectory
from catk_sim.dynamics import DynamicsModel


class Simulator:
    """Advances scenarios by actions. Keeps no state, so states may be stored and replayed.

    Args:
        dynamics: What an action means.
    """

    def __init__(self, dynamics: DynamicsModel) -> None:
        self.dynamics = dynamics

    def reset(self, scenario: Scenario, controlled: Bool[Tensor, "*batch agents"]) -> SimState:
        """Starts scenarios at their current step, with the logged history behind them.

        Args:
            scenario: One scenario, or a batch.
            controlled: Agents that will follow actions. Agents that the log does not have at the
                current step cannot be controlled: they follow the log.
        """
        history = self.dynamics.history(scenario.log, scenario.agents)
        batch = scenario.log.valid.shape[:-2]
        controlled = controlled & history.at(-1).valid[..., 0]
        return SimState(
            scenario=scenario,
            history=history,
            step=torch.full(batch, CURRENT_STEP, device=controlled.device),
            controlled=controlled,
            last_action=Action(
                data=torch.zeros(controlled.shape, dtype=torch.int64, device=controlled.device),
                valid=torch.zeros_like(controlled),
            ),
        )

    def step(self, state: SimState, action: Action) -> SimState:
        """Applies one action: `dynamics.steps_per_action` steps of motion.

        Agents that are not controlled, and those whose action is not valid, follow the log.
        """
        motion = self.dynamics.forward(state.current, action.data, state.scenario.agents)
        acts = state.controlled & action.valid
        return self.advance(state, motion, acts).replace(
            last_action=Action(data=action.data, valid=acts)
        )

    def advance(
        self, state: SimState, motion: Trajectory, follows: Bool[Tensor, "*batch agents"]
    ) -> SimState:
        """Moves the agents of `follows` along a given motion and the others along the log."""
        num_steps = motion.num_steps
        ahead = torch.arange(1, num_steps + 1, device=state.step.device)
        log = state.scenario.log.gather(state.step[..., None] + ahead)
        moved = motion.where(follows, log)
        history = Trajectory.join([state.history, moved])
        return state.replace(
            history=history.slice(num_steps, num_steps + HISTORY_STEPS),
            step=state.step + num_steps,
            last_action=Action(
                data=torch.zeros_like(state.controlled, dtype=torch.int64),
                valid=torch.zeros_like(state.controlled),
            ),
        )
