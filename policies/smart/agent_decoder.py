"""Agents at half-second marks to features of what they do next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from catk_sim.constants import NUM_MARKS
from catk_sim.geometry.se2 import rotate
from policies.smart.attention import RelationalAttention, Turn, split_blocks, take_turns
from policies.smart.config import SMARTConfig
from policies.smart.graph import (
    ANGLE_RANGE,
    Neighbors,
    Poses,
    radius_edges,
    relative_pose,
    relative_ranges,
)
from policies.smart.layers import MLP, FourierEmbedding, Memo, MLPEmbedding
from policies.smart.memory import MapMemory, Past
from policies.smart.native.encoding import Encoding
from policies.smart.native.library import takes
from policies.smart.nodes import AgentNodes
from policies.smart.relation import Relation


@dataclass(frozen=True, eq=False, kw_only=True)
class Situation:
    """Agents at marks, with all that the decoder's blocks read of them and learn nothing of.

    Attributes:
        nodes: The agents at marks.
        inputs: Token, motion, type and size of each, embedded.
        to_map: How they stand to the map.
        to_agents: How those of a mark stand to each other.
    """

    nodes: AgentNodes
    inputs: Float[Tensor, "nodes hidden"]
    to_map: Relation
    to_agents: Relation

    @classmethod
    def cat(cls, situations: Sequence["Situation"]) -> "Situation":
        """Joins what was seen mark by mark."""
        counts = [situation.nodes.count for situation in situations]
        to_agents = [situation.to_agents for situation in situations]
        return cls(
            nodes=AgentNodes.cat([situation.nodes for situation in situations]),
            inputs=torch.cat([situation.inputs for situation in situations]),
            to_map=Relation.cat([situation.to_map for situation in situations], counts),
            to_agents=Relation.cat(to_agents, counts, sources=counts),
        )


class DecoderBlock(nn.Module):
    """Attends to one's own past, then to the map, then to other agents."""

    def __init__(self, config: SMARTConfig) -> None:
        super().__init__()
        self.temporal = RelationalAttention.from_config(config, is_bipartite=False)
        self.map_to_agent = RelationalAttention.from_config(config, is_bipartite=True)
        self.agent_to_agent = RelationalAttention.from_config(config, is_bipartite=False)


class AgentDecoder(nn.Module):
    """Blocks of attention over agents at marks (SMART, arXiv:2405.15677, section 3.3).

    Args:
        config: Sizes and ranges.
        end_corners: Corners of an agent's box after each token, per type, in its frame before.
    """

    end_corners: Tensor

    def __init__(self, config: SMARTConfig, end_corners: Float[Tensor, "types tokens 4 2"]) -> None:
        super().__init__()
        self.span = config.temporal_span
        self.num_heads = config.num_heads
        # Memories hold keys and values of all blocks side by side.
        self.memory_stride = 2 * config.num_heads * config.num_agent_layers
        self.map_agent_radius = config.map_agent_radius
        self.agent_radius = config.agent_radius
        self.history_dropout = config.history_dropout
        hidden, frequencies = config.hidden_dim, config.num_frequencies
        self.register_buffer("end_corners", end_corners.flatten(-2), persistent=False)
        num_types = end_corners.shape[0]
        self.token_embeddings = nn.ModuleList(MLPEmbedding(8, hidden) for _ in range(num_types))
        self.type_embedding = nn.Embedding(num_types, hidden)
        self.size_embedding = MLP(3, hidden, hidden)
        self.motion_embedding = FourierEmbedding((None, ANGLE_RANGE), frequencies, hidden)
        self.fusion = MLPEmbedding(2 * hidden, hidden)
        self.temporal_relation = FourierEmbedding(
            (None, ANGLE_RANGE, ANGLE_RANGE, (-float(config.temporal_span), 0.0)),
            frequencies,
            hidden,
        )
        self.map_relation = FourierEmbedding(
            relative_ranges(config.map_agent_radius), frequencies, hidden
        )
        self.agent_relation = FourierEmbedding(
            relative_ranges(config.agent_radius), frequencies, hidden
        )
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.num_agent_layers))
        self._token_table = Memo()

    def map_keys_values(
        self, features: Float[Tensor, "*batch map_tokens hidden"]
    ) -> Float[Tensor, "*batch map_tokens blocks keys_values"]:
        """Projects map features to the keys and values of every block."""
        return torch.stack(
            [block.map_to_agent.keys_values(features) for block in self._blocks()], dim=-2
        )

    def forward(
        self, nodes: AgentNodes, maps: MapMemory, past: Past | None = None
    ) -> tuple[Float[Tensor, "nodes hidden"], Float[Tensor, "nodes blocks keys_values"]]:
        """Runs all blocks.

        Args:
            nodes: Agents at marks. Those of one mark see each other.
            maps: The maps that they are on; one batch dimension.
            past: Their last marks, if the nodes are all of the mark that follows. By default,
                nodes see the nodes of marks before.

        Returns:
            Features, and keys and values for nodes of later marks to attend to.
        """
        return self.attend(self.observe(nodes, maps), maps.keys_values, past)

    def observe(self, nodes: AgentNodes, maps: MapMemory) -> Situation:
        """Embeds agents at marks, and relates them to the map and to each other."""
        return Situation(
            nodes=nodes,
            inputs=self.inputs(nodes),
            to_map=self._relate_to_map(nodes, maps),
            to_agents=self._relate_to_agents(nodes),
        )

    def attend(
        self,
        situation: Situation,
        map_keys_values: Float[Tensor, "*batch map_tokens blocks keys_values"],
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "nodes hidden"], Float[Tensor, "nodes blocks keys_values"]]:
        """Runs all blocks on what was observed; see `forward`."""
        map_memory = split_blocks(map_keys_values)
        past_memory = None if past is None else split_blocks(past.sources.keys_values)
        temporal = self.relate_to_past(situation.nodes, past)
        turns = []
        for index, block in enumerate(self._blocks()):
            its_past = None if past_memory is None else past_memory[index]
            turns += [
                Turn(block.temporal, temporal, its_past, remembers=True),
                Turn(block.map_to_agent, situation.to_map, map_memory[index]),
                Turn(block.agent_to_agent, situation.to_agents),
            ]
        return take_turns(situation.inputs, turns)

    def relate_to_past(self, nodes: AgentNodes, past: Past | None = None) -> Relation:
        """Relates nodes to their past; see `forward`."""
        return self._relate_in_time(nodes) if past is None else self._relate_to(past, nodes)

    def inputs(self, nodes: AgentNodes) -> Float[Tensor, "nodes hidden"]:
        """Embeds token, motion, type and size of each node."""
        table = self._token_table(self._embed_tokens, self.token_embeddings.parameters())
        token = table.index_select(0, nodes.type * self.end_corners.shape[1] + nodes.token)
        x, y = rotate(nodes.motion, -nodes.poses.heading).unbind(dim=-1)
        motion = torch.stack([torch.hypot(x, y), torch.atan2(y, x + 0.0)], dim=-1)
        kind = self.type_embedding(nodes.type) + self.size_embedding(nodes.size)
        return self.fusion(torch.cat([token, self.motion_embedding(motion, kind)], dim=-1))

    def _embed_tokens(self) -> Tensor:
        tables = zip(self.token_embeddings, self.end_corners, strict=True)
        return torch.cat([embed(corners) for embed, corners in tables])

    def _blocks(self) -> Iterable[DecoderBlock]:
        return cast(Iterable[DecoderBlock], self.blocks)

    def _keep(self, valid: Bool[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Drops some of the past while training."""
        if not self.training:
            return valid
        return valid & (torch.rand(valid.shape, device=valid.device) >= self.history_dropout)

    def _relate_in_time(self, nodes: AgentNodes) -> Relation:
        """Relates nodes to the same agent's nodes at earlier marks."""
        back = torch.arange(self.span, 0, -1, device=nodes.mark.device)
        track = nodes.track
        keys, order = (track * NUM_MARKS + nodes.mark).sort()
        wanted = (track * NUM_MARKS + nodes.mark)[:, None] - back
        position = torch.searchsorted(keys, wanted).clamp(max=nodes.count - 1)
        found = (keys[position] == wanted) & (nodes.mark[:, None] >= back)
        source = order[position]
        kept = self._keep(torch.ones_like(track, dtype=torch.bool))
        destination, place = (found & kept[:, None] & kept[source]).nonzero(as_tuple=True)
        neighbors = Neighbors.from_edges(
            destination, source[destination, place], nodes.count, padded=not takes(nodes.poses.xy)
        )
        encoding = self._encode_in_time(nodes, nodes.poses, nodes.mark, neighbors)
        return Relation.from_encoding(neighbors, encoding, num_heads=self.num_heads)

    def _relate_to(self, past: Past, nodes: AgentNodes) -> Relation:
        """Relates nodes of one mark to what their agents remember."""
        row = nodes.track
        valid = self._keep(past.valid).reshape(-1, self.span)[row]
        destination, place = valid.nonzero(as_tuple=True)
        neighbors = Neighbors.from_edges(
            destination,
            row[destination] * self.span + place,
            nodes.count,
            padded=not takes(nodes.poses.xy),
        )
        heading = past.heading.reshape(-1)
        poses = Poses(xy=past.xy.reshape(-1, 2), heading=heading, group=heading.long())
        mark = torch.arange(-self.span, 0, device=row.device).repeat(heading.shape[0] // self.span)
        nodes = replace(nodes, mark=torch.zeros_like(row))
        encoding = self._encode_in_time(nodes, poses, mark, neighbors)
        neighbors = replace(neighbors, source=past.sources.place(neighbors.source))
        return Relation.from_encoding(
            neighbors, encoding, num_heads=self.num_heads, stride=self.memory_stride
        )

    def _encode_in_time(
        self, nodes: AgentNodes, past: Poses, past_mark: Tensor, neighbors: Neighbors
    ) -> Float[Tensor, "slots hidden"] | Encoding:
        scalars = relative_pose(nodes.poses, past, neighbors)
        ago = past_mark[neighbors.source] - nodes.mark[neighbors.slot_destination]
        scalars = torch.cat([scalars, ago[:, None].to(scalars.dtype)], dim=1)
        return self.temporal_relation.encode(scalars)

    def _relate_to_map(self, nodes: AgentNodes, maps: MapMemory) -> Relation:
        """Relates nodes to the map tokens near them."""
        poses, place = maps.poses
        edges = radius_edges(nodes.poses, poses, self.map_agent_radius)
        neighbors = Neighbors.from_edges(*edges, nodes.count, padded=not takes(poses.xy))
        scalars = relative_pose(nodes.poses, poses, neighbors)
        neighbors = replace(neighbors, source=place[neighbors.source])
        return Relation.from_encoding(
            neighbors,
            self.map_relation.encode(scalars),
            num_heads=self.num_heads,
            stride=self.memory_stride,
        )

    def _relate_to_agents(self, nodes: AgentNodes) -> Relation:
        """Relates nodes to those of other agents at the same mark."""
        moment = nodes.entry * NUM_MARKS + nodes.mark
        poses = replace(nodes.poses, group=moment)
        edges = radius_edges(poses, poses, self.agent_radius)
        neighbors = Neighbors.from_edges(*edges, nodes.count, padded=not takes(poses.xy))
        scalars = relative_pose(poses, poses, neighbors)
        encoding = self.agent_relation.encode(scalars)
        return Relation.from_encoding(neighbors, encoding, num_heads=self.num_heads)
