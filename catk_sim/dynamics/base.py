"""The interface that every dynamics model implements."""

from abc import ABC, abstractmethod

from torch import Tensor

from catk_sim.datatypes import AgentMetadata, Trajectory


class DynamicsModel(ABC):
    """Moves agents by actions, and infers the actions behind a logged motion.

    A model keeps no state. `forward` and `inverse` agree: applying the actions that `inverse`
    reads off a motion reproduces that motion, exactly or up to the model's resolution.
    """

    steps_per_action: int
    """Logged steps that one action covers."""

    @abstractmethod
    def forward(self, now: Trajectory, action: Tensor, agents: AgentMetadata) -> Trajectory:
        """Applies one action to every agent.

        Args:
            now: The agents' last step, of shape (*batch, agents, 1).
            action: One action per agent, of shape (*batch, agents, ...).
            agents: Type and size of the agents.

        Returns:
            The motion that follows, of shape (*batch, agents, steps_per_action). Agents that are
            invalid now stay invalid.
        """

    @abstractmethod
    def inverse(self, log: Trajectory, step: int, agents: AgentMetadata) -> Tensor:
        """Infers the actions that move the agents on from a logged step.

        Args:
            log: A logged motion with at least `step + steps_per_action + 1` steps.
            step: The step that the actions start from.
            agents: Type and size of the agents.

        Returns:
            One action per agent, of shape (*batch, agents, ...).
        """

    @abstractmethod
    def history(self, log: Trajectory, agents: AgentMetadata) -> Trajectory:
        """Tells the history that a simulation starts from.

        Args:
            log: A logged motion of at least `HISTORY_STEPS` steps.
            agents: Type and size of the agents.

        Returns:
            The first `HISTORY_STEPS` steps as this model can represent them.
        """
