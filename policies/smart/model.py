"""SMART: scores of the next token, at all marks at once or mark by mark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap
from operator import itemgetter

import torch
from jaxtyping import Float
from torch import Tensor, nn

from catk_sim.constants import HISTORY_MARKS, NUM_MARKS
from catk_sim.datatypes import AgentMetadata, TensorTree
from catk_sim.tokens import MotionTokens, MotionVocabulary
from policies.smart.agent_decoder import AgentDecoder, Situation
from policies.smart.config import SMARTConfig
from policies.smart.layers import MLP, initialise
from policies.smart.map_encoder import MapEncoder
from policies.smart.map_tokens import MapTokens
from policies.smart.map_vocabulary import map_vocabulary
from policies.smart.memory import MapMemory, Past
from policies.smart.native.library import takes
from policies.smart.nodes import AgentNodes, DistinctEntries

# The radius (m) in which an agent would see as many tokens as a map has, were these all around it:
# in a dense scene of 2,100 tokens, 200 are within 30 m.
_REACH = 100.0
# Bytes for what is worked on at a time. Without native kernels it should stay in the cache.
_CACHE = 2**24
_PROCESSOR_MEMORY = 2**26
_ACCELERATOR_MEMORY = 2**31


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
        tokens, motion = tokens.slice(0, NUM_MARKS - 1), motion[..., : NUM_MARKS - 1, :]
        shape = tokens.valid.shape
        map_memory = self.remember_map(map_tokens)
        maps = DistinctEntries(len(shape) - 2, map_memory)
        nodes = AgentNodes.from_padded(tokens, agents, motion, maps.index.to(motion.device))
        features, _ = self.decoder(nodes, maps.flatten(map_memory))
        return nodes.pad(features, shape)

    def features_of(
        self,
        record: Sequence[Situation],
        map_features: Float[Tensor, "*batch map_tokens hidden"],
    ) -> tuple[Float[Tensor, "nodes hidden"], AgentNodes]:
        """Returns features at all marks that `step` went through, and where they are, all at once.

        What was observed then is not computed again. So the gradient reaches what is trained in
        fine-tuning and nothing else.

        Args:
            record: What `step` kept at each mark, from mark 0 on.
            map_features: Those of the memory, in which no map is repeated.
        """
        situation = Situation.cat(record)
        keys_values = self.decoder.map_keys_values(map_features)
        features, _ = self.decoder.attend(situation, keys_values)
        return features, situation.nodes

    def remember_map(self, map_tokens: MapTokens) -> MapMemory:
        """Encodes maps, each once, in the form that agents attend to."""
        maps = DistinctEntries(map_tokens.valid.dim() - 1, map_tokens)
        features = self.map_encoder(maps.flatten(map_tokens))
        return MapMemory(
            xy=map_tokens.xy,
            heading=map_tokens.heading,
            valid=map_tokens.valid,
            features=maps.expand(features),
            keys_values=maps.expand(self.decoder.map_keys_values(features)),
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
        at_once: int | None = None,
        record: list[Situation] | None = None,
    ) -> tuple[Float[Tensor, "*batch agents tokens"], SMARTMemory]:
        """Scores the next token at one more mark.

        Args:
            tokens: Agents at that mark: a sequence of length one.
            agents: Type and size of the agents.
            memory: What `remember` or the step before returned.
            motion: Change of position since the mark before (m), as in `forward`.
            at_once: How many entries of the first batch dimension are worked on at a time. By
                default what takes a small part of the memory.
            record: Where to keep what is observed at this mark, for `features_of`. Then all entries
                are worked on at once.

        Returns:
            Logits, arbitrary where the agent is not valid, and the memory for the next mark.
        """
        logits, memory = self.step_valid(
            tokens, agents, memory, motion=motion, at_once=at_once, record=record
        )
        valid = tokens.valid[..., 0]
        padded = logits.new_zeros(*valid.shape, logits.shape[-1])
        return padded.index_put((valid,), logits), memory

    def step_valid(
        self,
        tokens: MotionTokens,
        agents: AgentMetadata,
        memory: SMARTMemory,
        *,
        motion: Float[Tensor, "*batch agents 1 2"] | None = None,
        at_once: int | None = None,
        record: list[Situation] | None = None,
    ) -> tuple[Float[Tensor, "nodes tokens"], SMARTMemory]:
        """Does what `step` does, but returns logits of the valid agents only, one by one."""
        past = memory.past
        if motion is None:
            motion = (tokens.xy - past.xy[..., -1:, :]).where(past.valid[..., -1:, None], 0)
        parts = [slice(None)]
        if record is None and tokens.valid.dim() > 2:
            parts = _even_slices(tokens.valid.shape[0], at_once or self._at_once(tokens, memory))
        logits, keys_values = [], []
        for part in map(itemgetter, parts):
            map_memory = memory.map_memory
            if len(parts) > 1 and not map_memory.distinct[0].num_repeated:
                map_memory = map_memory.map(part)
            # The copies of a map are alike.
            maps, map_memory = map_memory.distinct
            num_entries = part(tokens.valid).shape[:-2].numel()
            nodes = AgentNodes.from_padded(
                tokens.map(part),
                agents.map(part),
                part(motion),
                maps.index[:num_entries].to(motion.device),
            )
            situation = self.decoder.observe(nodes, map_memory)
            if record is not None:
                record.append(situation)
            features, remembered = self.decoder.attend(
                situation, map_memory.keys_values, past.map(part)
            )
            logits.append(self.head(features))
            keys_values.append(remembered)
        return torch.cat(logits), memory.replace(past=past.append(tokens, keys_values))

    def _at_once(self, tokens: MotionTokens, memory: SMARTMemory) -> int:
        """Tells for how many entries the encodings of relations to the map take some memory."""
        is_cpu = tokens.valid.device.type == "cpu"
        budget = _CACHE if is_cpu else _ACCELERATOR_MEMORY
        if takes(tokens.xy):
            budget = _PROCESSOR_MEMORY
        # Counting would have an accelerator waited for.
        agents = int(tokens.valid[0].sum()) if is_cpu else tokens.valid[0].numel()
        in_reach = (self.config.map_agent_radius / _REACH) ** 2 * memory.map_memory.valid.shape[-1]
        bytes_of_one = 4 * self.config.hidden_dim * agents * in_reach
        return max(1, int(budget / max(1.0, bytes_of_one)))


def _even_slices(count: int, size: int) -> list[slice]:
    """Cuts a batch into as few parts of at most some size as there can be, about equally large."""
    num_parts = max(1, math.ceil(count / size))
    bounds = [count * part // num_parts for part in range(num_parts + 1)]
    return list(starmap(slice, pairwise(bounds)))


def motion_since_last_mark(tokens: MotionTokens) -> Float[Tensor, "*batch agents marks 2"]:
    """Tells how far agents moved (m) since the mark before; zero where that is not valid."""
    moved = tokens.xy.diff(dim=-2).where(tokens.valid[..., :-1, None], 0)
    return torch.cat([torch.zeros_like(tokens.xy[..., :1, :]), moved], dim=-2)
