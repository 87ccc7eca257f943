"""SMART as a policy: who drives."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from catk_sim.constants import STEPS_PER_TOKEN
from catk_sim.datatypes import Action, SimState, TensorTree
from catk_sim.dynamics.token import TokenDynamics
from catk_sim.geometry.se2 import to_local
from catk_sim.tokens import (
    MotionTokens,
    MotionVocabulary,
    match_step,
    sample_top_k,
    sample_top_p,
    tokenize,
)
from policies.smart.agent_decoder import Situation
from policies.smart.map_tokens import MapTokens, tokenize_map
from policies.smart.model import SMART, SMARTMemory
from policies.smart.nodes import DistinctEntries

Sampler = Callable[
    [Float[Tensor, "*batch tokens"], Generator | None],
    Int[Tensor, "*batch"],
]
"""Chooses tokens by their logits."""


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Samples among the `k` most likely tokens."""

    k: int = 48
    """How many may be chosen from. 1 is greedy."""

    temperature: float = 1.0
    """Divides the logits."""

    def __call__(
        self, logits: Float[Tensor, "*batch tokens"], generator: Generator | None
    ) -> Int[Tensor, "*batch"]:
        """Chooses a token for each row of logits."""
        return sample_top_k(logits, self.k, temperature=self.temperature, generator=generator)


@dataclass(frozen=True, kw_only=True)
class TopP:
    """Samples among the fewest tokens that are likely together."""

    p: float = 0.95
    """Probability that they have together."""

    temperature: float = 1.0
    """Divides the logits."""

    def __call__(
        self, logits: Float[Tensor, "*batch tokens"], generator: Generator | None
    ) -> Int[Tensor, "*batch"]:
        """Chooses a token for each row of logits."""
        return sample_top_p(logits, self.p, temperature=self.temperature, generator=generator)


GREEDY = TopK(k=1)
"""Takes the most likely token."""


@dataclass(frozen=True, eq=False, kw_only=True)
class StartMemory(TensorTree):
    """What is known before the first action, so that it is worked out once for all rollouts.

    Attributes:
        memory: What the model remembers, the current state included.
        logits: Scores at the current state.
    """

    memory: SMARTMemory
    logits: Float[Tensor, "*batch agents tokens"]

    def valid_logits(self) -> Float[Tensor, "... tokens"]:
        """Returns those of the valid agents, one by one; those of repeated entries are views."""
        repeated = DistinctEntries(self.logits.dim() - 2, self)
        first = (0,) * repeated.num_repeated
        logits = self.logits[first][self.memory.past.valid[first][..., -1]]
        return logits.expand(*repeated.batch[: repeated.num_repeated], *logits.shape)


class SMARTPolicy:
    """Drives agents by the tokens that SMART finds likely.

    Records no gradients, and leaves the model in its mode: call `model.eval()` before.

    Args:
        model: The network.
        vocabulary: Its motion vocabulary.
        sampler: Chooses among the tokens. The default is what catk submits to WOSAC
            (arXiv:2412.05334).
        at_once: Rollouts that are worked on at a time, which bounds the memory; see `SMART.step`.
            What is drawn does not depend on it.
        record: Where to keep what the model observes, mark by mark, for `SMART.features_of`.
    """

    def __init__(
        self,
        model: SMART,
        vocabulary: MotionVocabulary,
        sampler: Sampler | None = None,
        *,
        at_once: int | None = None,
        record: list[Situation] | None = None,
    ) -> None:
        self._at_once = at_once
        self._record = record
        self.model = model
        # The model's device, wherever the vocabulary was loaded.
        self.vocabulary = vocabulary = vocabulary.to(next(model.parameters()).device)
        self.sampler = TopK() if sampler is None else sampler
        self.dynamics = TokenDynamics(vocabulary)

    @torch.no_grad()
    def init(
        self,
        state: SimState,
        *,
        map_tokens: MapTokens | None = None,
        history: MotionTokens | None = None,
    ) -> StartMemory:
        """Reads the map and the history, up to the current state.

        Args:
            state: Where the episode starts.
            map_tokens: The map, if it has been tokenised before.
            history: The marks up to the current one, if these have been.
        """
        agents = state.scenario.agents
        if map_tokens is None:
            map_tokens = self._tokenize_map(state)
        memory = self.model.remember(agents, map_tokens)
        if history is None:
            history = tokenize(state.history, agents, self.vocabulary).tokens
        _, memory = self.model.step(history.at(0), agents, memory, record=self._record)
        logits, memory = self.model.step(history.at(1), agents, memory, record=self._record)
        return StartMemory(memory=memory, logits=logits)

    @torch.no_grad()
    def logits(
        self, state: SimState, memory: StartMemory | SMARTMemory
    ) -> tuple[Float[Tensor, "*batch agents tokens"], SMARTMemory]:
        """Scores every token for every agent; arbitrary for agents that are not there."""
        if isinstance(memory, StartMemory):
            return memory.logits, memory.memory
        return self.model.step(
            self._arrival(state),
            state.scenario.agents,
            memory,
            at_once=self._at_once,
            record=self._record,
        )

    @torch.no_grad()
    def act(
        self, state: SimState, memory: StartMemory | SMARTMemory, generator: Generator | None
    ) -> tuple[Action, SMARTMemory]:
        """Samples a token for every agent."""
        if isinstance(memory, StartMemory):
            logits, memory = memory.valid_logits(), memory.memory
        else:
            logits, memory = self.model.step_valid(
                self._arrival(state),
                state.scenario.agents,
                memory,
                at_once=self._at_once,
                record=self._record,
            )
        valid = memory.past.valid[..., -1]
        token = torch.zeros_like(state.last_action.data).masked_scatter(
            valid, self.sampler(logits, generator)
        )
        return Action(data=token, valid=valid), memory

    def _tokenize_map(self, state: SimState) -> MapTokens:
        roadgraph, lights = state.scenario.roadgraph, state.scenario.traffic_lights
        maps = DistinctEntries(state.step.dim(), roadgraph, lights)
        tokens = tokenize_map(maps.flatten(roadgraph), maps.flatten(lights), self.model.curves)
        return tokens.map(maps.expand)

    def _arrival(self, state: SimState) -> MotionTokens:
        """Tells the last half second as tokens: those that were chosen, else those that match."""
        before, now = state.history.at(-1 - STEPS_PER_TOKEN), state.current
        valid = before.valid & now.valid
        token = torch.where(state.last_action.valid, state.last_action.data, 0)
        unknown = (valid[..., 0] & ~state.last_action.valid).nonzero(as_tuple=True)
        if not len(unknown[0]):
            return MotionTokens(token=token[..., None], xy=now.xy, heading=now.heading, valid=valid)
        start = (before.xy[unknown][:, 0], before.heading[unknown][:, 0])
        matched = match_step(
            self.vocabulary,
            state.scenario.agents.type[unknown],
            to_local(now.xy[unknown][:, 0], *start),
            now.heading[unknown][:, 0] - start[1],
        )
        token = token.index_put(unknown, matched)
        return MotionTokens(token=token[..., None], xy=now.xy, heading=now.heading, valid=valid)
