"""SMART: scores of the next token, at all marks at once or mark by mark."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from catk_sim.constants import HISTORY_MARKS, NUM_MARKS
from catk_sim.datatypes import AgentMetadata, TensorTree
from catk_sim.tokens import MotionTokens, MotionVocabulary
from policies.smart.agent_decoder import AgentDecoder, MapMemory, Past
from policies.smart.config import SMARTConfig
from policies.smart.layers import MLP, initialise
from policies.smart.map_encoder import MapEncoder
from policies.smart.map_tokens import MapTokens
from policies.smart.map_vocabulary import map_vocabulary
from policies.smart.nodes import AgentNodes, DistinctEntries


@dataclass(frozen=True, eq=False, kw_only=True)
class SMARTMemory(TensorTree):
    """What SMART must remember between marks. It does not grow.

    Attributes:
        map_memory: The map, in the form that agents attend to.
        past: The last marks, the latest last.
    """

    map_memory: MapMemory
    past: Past


class SMART(nn.Module):
    """Predicts the next motion token of every agent.

    SMART (arXiv:2405.15677) as catk trains it (arXiv:2412.05334).

    Args:
        config: Sizes and ranges.
        vocabulary: The motion tokens.
        curves: The map vocabulary (m); by default `map_vocabulary()`.
    """

    def __init__(
        self,
        config: SMARTConfig,
        vocabulary: MotionVocabulary,
        curves: Float[Tensor, "curves points 2"] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.map_encoder = MapEncoder(config, map_vocabulary() if curves is None else curves)
        self.decoder = AgentDecoder(config, vocabulary.end_corners)
        self.head = MLP(config.hidden_dim, config.hidden_dim, vocabulary.num_tokens)
        self.apply(initialise)

    @property
    def curves(self) -> Float[Tensor, "curves points 2"]:
        """The map vocabulary (m)."""
        return self.map_encoder.curves.unflatten(1, (-1, 2))

    def fine_tuning_parameters(self) -> list[nn.Parameter]:
        """Lists what CAT-K trains: the decoder's attention and the head."""
        return [*self.decoder.blocks.parameters(), *self.head.parameters()]

    def forward(
        self,
        tokens: MotionTokens,
        agents: AgentMetadata,
        map_tokens: MapTokens,
        *,
        motion: Float[Tensor, "*batch agents marks 2"] | None = None,
    ) -> Float[Tensor, "*batch agents predicted_marks tokens"]:
        """Scores the next token at every mark from the current one on, all at once.

        Args:
            tokens: Agents at consecutive marks from mark 0 on. Nothing follows mark 17, so it is
                not read.
            agents: Type and size of the agents.
            map_tokens: The map. Entries that `TensorTree.repeat` made are encoded once.
            motion: Change of position since the mark before (m). By default that of `tokens`,
                and zero where the mark before is not valid.

        Returns:
            Logits at marks 1, 2, ..., arbitrary where the agent is not valid.
        """
        features = self.features(tokens, agents, map_tokens, motion=motion)
        return self.head(features[..., HISTORY_MARKS - 1 :, :])

    def features(
        self,
        tokens: MotionTokens,
        agents: AgentMetadata,
        map_tokens: MapTokens,
        *,
        motion: Float[Tensor, "*batch agents marks 2"] | None = None,
    ) -> Float[Tensor, "*batch agents read_marks hidden"]:
        """Computes what `head` scores tokens from; zero where the agent is not valid.

        For a loss on some of the marks: the head need not see the others.
        """
        motion = motion_since_last_mark(tokens) if motion is None else motion
        tokens, motion = _slice_marks(tokens, NUM_MARKS - 1), motion[..., : NUM_MARKS - 1, :]
        shape = tokens.valid.shape
        map_memory = self.remember_map(map_tokens)
        maps = DistinctEntries(len(shape) - 2, map_memory)
        nodes = AgentNodes.from_padded(tokens, agents, motion, maps.index.to(motion.device))
        features, _ = self.decoder(nodes, maps.flatten(map_memory))
        return nodes.pad(features, shape)

    def remember_map(self, map_tokens: MapTokens) -> MapMemory:
        """Encodes maps, each once, in the form that agents attend to."""
        maps = DistinctEntries(map_tokens.valid.dim() - 1, map_tokens)
        keys_values = self.decoder.map_keys_values(self.map_encoder(maps.flatten(map_tokens)))
        return MapMemory(
            xy=map_tokens.xy,
            heading=map_tokens.heading,
            valid=map_tokens.valid,
            keys_values=maps.expand(keys_values),
        )

    def remember(self, agents: AgentMetadata, map_tokens: MapTokens) -> SMARTMemory:
        """Starts a memory: it knows the map and no mark yet."""
        map_memory = self.remember_map(map_tokens)
        keys_values = map_memory.keys_values
        shape = (*agents.type.shape, self.config.temporal_span)
        past = Past(
            xy=map_memory.xy.new_zeros(*shape, 2),
            heading=map_memory.xy.new_zeros(shape),
            valid=map_memory.valid.new_zeros(shape),
            keys_values=keys_values.new_zeros(*shape, *keys_values.shape[-2:]),
        )
        return SMARTMemory(map_memory=map_memory, past=past)

    def step(
        self,
        tokens: MotionTokens,
        agents: AgentMetadata,
        memory: SMARTMemory,
        *,
        motion: Float[Tensor, "*batch agents 1 2"] | None = None,
    ) -> tuple[Float[Tensor, "*batch agents tokens"], SMARTMemory]:
        """Scores the next token at one more mark.

        Args:
            tokens: Agents at that mark: a sequence of length one.
            agents: Type and size of the agents.
            memory: What `remember` or the step before returned.
            motion: Change of position since the mark before (m), as in `forward`.

        Returns:
            Logits, arbitrary where the agent is not valid, and the memory for the next mark.
        """
        shape, past = tokens.valid.shape, memory.past
        if motion is None:
            motion = (tokens.xy - past.xy[..., -1:, :]).where(past.valid[..., -1:, None], 0)
        maps = DistinctEntries(len(shape) - 2, memory.map_memory)
        nodes = AgentNodes.from_padded(tokens, agents, motion, maps.index.to(motion.device))
        features, keys_values = self.decoder(nodes, maps.flatten(memory.map_memory), past)
        past = past.append(tokens, nodes.pad(keys_values, shape))
        logits = nodes.pad(self.head(features), shape)
        return logits[..., 0, :], memory.replace(past=past)


def motion_since_last_mark(tokens: MotionTokens) -> Float[Tensor, "*batch agents marks 2"]:
    """Tells how far agents moved (m) since the mark before; zero where that is not valid."""
    moved = tokens.xy.diff(dim=-2).where(tokens.valid[..., :-1, None], 0)
    return torch.cat([torch.zeros_like(tokens.xy[..., :1, :]), moved], dim=-2)


def _slice_marks(tokens: MotionTokens, stop: int) -> MotionTokens:
    return MotionTokens(
        token=tokens.token[..., :stop],
        xy=tokens.xy[..., :stop, :],
        heading=tokens.heading[..., :stop],
        valid=tokens.valid[..., :stop],
    )
