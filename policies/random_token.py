"""Agents that move at random."""

import torch
from torch import Generator

from catk_sim.datatypes import Action, SimState
from catk_sim.dynamics import TokenDynamics
from catk_sim.tokens import MotionVocabulary
from policies.memory import NoMemory


class RandomToken:
    """Draws a motion token for every agent, each as likely as any other of its type.

    Args:
        vocabulary: The tokens; by default those that ship with the package.
    """

    def __init__(self, vocabulary: MotionVocabulary | None = None) -> None:
        self.dynamics = TokenDynamics(
            MotionVocabulary.default() if vocabulary is None else vocabulary
        )

    def init(self, state: SimState) -> NoMemory:
        """Prepares nothing."""
        return NoMemory()

    def act(
        self, state: SimState, memory: NoMemory, generator: Generator | None
    ) -> tuple[Action, NoMemory]:
        """Draws the tokens."""
        device = state.controlled.device
        token = torch.randint(
            self.dynamics.vocabulary.num_tokens,
            state.controlled.shape,
            generator=generator,
            device=device if generator is None else generator.device,
        )
        return Action(data=token.to(device), valid=state.controlled), memory
