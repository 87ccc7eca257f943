"""Padded batches to flat lists of what is valid, and back."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from catk_sim.datatypes import AgentMetadata, TensorTree
from catk_sim.tokens import MotionTokens, MotionVocabulary
from policies.smart.graph import Poses

Tree = TypeVar("Tree", bound=TensorTree)


@dataclass(frozen=True, eq=False, kw_only=True)
class AgentNodes:
    """Valid agents at marks, in the order of batch entries, marks, agents.

    Attributes:
        entry: The entry of the flattened batch that each node comes from.
        agent: Its agent.
        mark: Its mark.
        poses: Where it is. The group is the map it is on.
        token: The token by which it arrived.
        type: Its row of the vocabulary.
        size: Length, width, height (m).
        motion: Change of position since the mark before (m).
        num_agents: Agents in an entry, with padding.
    """

    entry: Int[Tensor, " nodes"]
    agent: Int[Tensor, " nodes"]
    mark: Int[Tensor, " nodes"]
    poses: Poses
    token: Int[Tensor, " nodes"]
    type: Int[Tensor, " nodes"]
    size: Float[Tensor, "nodes 3"]
    motion: Float[Tensor, "nodes 2"]
    num_agents: int

    @classmethod
    def from_padded(
        cls,
        tokens: MotionTokens,
        agents: AgentMetadata,
        motion: Float[Tensor, "*batch agents marks 2"],
        map_index: Int[Tensor, " entries"],
    ) -> "AgentNodes":
        """Lists the valid agents of a batch.

        Args:
            tokens: Agents at marks.
            agents: Type and size of the agents.
            motion: Change of position since the mark before (m).
            map_index: The map that each entry of the flattened batch is on.
        """
        shape = tokens.valid.shape
        num_agents, num_marks = shape[-2:]
        valid = tokens.valid.reshape(prod(shape[:-2]), num_agents, num_marks)
        entry, mark, agent = valid.transpose(1, 2).nonzero(as_tuple=True)
        row = entry * num_agents + agent
        place = row * num_marks + mark
        type_index = MotionVocabulary.type_index(agents.type).expand(shape[:-1])
        return cls(
            entry=entry,
            agent=agent,
            mark=mark,
            poses=Poses(
                xy=tokens.xy.reshape(-1, 2)[place],
                heading=tokens.heading.reshape(-1)[place],
                group=map_index[entry],
            ),
            token=tokens.token.reshape(-1)[place],
            type=type_index.reshape(-1)[row],
            size=agents.size.expand(*shape[:-1], 3).reshape(-1, 3)[row].to(tokens.xy.dtype),
            motion=motion.reshape(-1, 2)[place],
            num_agents=num_agents,
        )

    @classmethod
    def cat(cls, marks: Sequence["AgentNodes"]) -> "AgentNodes":
        """Joins the nodes of successive marks, each of which is mark 0 of its own list."""
        return cls(
            entry=torch.cat([nodes.entry for nodes in marks]),
            agent=torch.cat([nodes.agent for nodes in marks]),
            mark=torch.cat([nodes.mark + mark for mark, nodes in enumerate(marks)]),
            poses=Poses(
                xy=torch.cat([nodes.poses.xy for nodes in marks]),
                heading=torch.cat([nodes.poses.heading for nodes in marks]),
                group=torch.cat([nodes.poses.group for nodes in marks]),
            ),
            token=torch.cat([nodes.token for nodes in marks]),
            type=torch.cat([nodes.type for nodes in marks]),
            size=torch.cat([nodes.size for nodes in marks]),
            motion=torch.cat([nodes.motion for nodes in marks]),
            num_agents=marks[0].num_agents,
        )

    @property
    def track(self) -> Int[Tensor, " nodes"]:
        """A number for each agent of each entry."""
        return self.entry * self.num_agents + self.agent

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return self.entry.shape[0]

    def pad(
        self, values: Float[Tensor, " nodes *features"], shape: torch.Size
    ) -> Float[Tensor, "..."]:
        """Puts values of the nodes at their places in a padded batch, with zeros elsewhere.

        Args:
            values: A value for each node.
            shape: Batch, agents, marks.
        """
        place = self.track * shape[-1] + self.mark
        padded = values.new_zeros(shape.numel(), *values.shape[1:])
        return padded.index_copy(0, place, values).view(*shape, *values.shape[1:])


class DistinctEntries:
    """The entries of a batch without the copies that `TensorTree.repeat` makes.

    Those are views of stride zero, so they can be told, and what they hold need not be computed
    again.

    Args:
        num_dims: Batch dimensions of the records.
        records: The batch, or several that belong together.
    """

    def __init__(self, num_dims: int, *records: TensorTree) -> None:
        values = [getattr(record, field.name) for record in records for field in fields(record)]
        tensors = [value for value in values if isinstance(value, Tensor)]
        self.batch = tensors[0].shape[:num_dims]
        repeated = 0
        while repeated < num_dims and all(t.stride(repeated) == 0 for t in tensors):
            repeated += 1
        self.num_repeated = repeated
        self.num_distinct = prod(self.batch[repeated:])

    @property
    def index(self) -> Int[Tensor, " entries"]:
        """The distinct entry that each entry of the flattened batch is a copy of."""
        return torch.arange(self.num_distinct).repeat(prod(self.batch[: self.num_repeated]))

    def flatten(self, tree: Tree) -> Tree:
        """Returns the distinct entries along one dimension."""
        first, inner = (0,) * self.num_repeated, len(self.batch)
        return tree.map(lambda t: t[first].reshape(self.num_distinct, *t.shape[inner:]))

    def expand(self, tensor: Shaped[Tensor, "distinct ..."]) -> Shaped[Tensor, "..."]:
        """Undoes `flatten`: the copies are views again."""
        distinct = tensor.view(*self.batch[self.num_repeated :], *tensor.shape[1:])
        return distinct.expand(*self.batch, *tensor.shape[1:])
