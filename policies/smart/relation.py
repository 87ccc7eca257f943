"""Who attends to whom, and how they stand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from policies.smart.edges import HeadEdges
from policies.smart.graph import Neighbors
from policies.smart.native.attention import EdgeList, Gathering
from policies.smart.native.encoding import Encoding


@dataclass(frozen=True, eq=False, kw_only=True)
class Relation:
    """Who attends to whom, and the normalised encoding of how they stand to each other.

    Attributes:
        neighbors: Who attends to whom.
        edges: The same for each head.
        encodings: Those of the slots; of successive slots, if there are several tensors.
    """

    neighbors: Neighbors
    edges: HeadEdges
    encodings: tuple[Float[Tensor, "_ hidden"] | Encoding, ...]

    @classmethod
    def from_encoding(
        cls,
        neighbors: Neighbors,
        encoding: Float[Tensor, "slots hidden"] | Encoding,
        *,
        num_heads: int,
        stride: int | None = None,
    ) -> "Relation":
        """Relates neighbours by the encodings of their slots.

        Args:
            neighbors: Who attends to whom.
            encoding: How, normalised; the layers share the statistics of the normalisation.
            num_heads: Heads of attention.
            stride: Heads from a source's keys to the next source's, if the sources are not the
                destinations themselves.
        """
        # Queries, skips and gates lie between the keys and values of two destinations.
        edges = HeadEdges(neighbors=neighbors, num_heads=num_heads, stride=stride or 5 * num_heads)
        return cls(neighbors=neighbors, edges=edges, encodings=(encoding,))

    @classmethod
    def cat(
        cls,
        relations: Sequence["Relation"],
        destinations: Sequence[int],
        *,
        sources: Sequence[int] | None = None,
    ) -> "Relation":
        """Joins relations. Their encodings are shared.

        Args:
            relations: With the same heads and stride.
            destinations: How many destinations there are to each.
            sources: How many sources there are to each, if each has its own.
        """
        joined = Neighbors.cat([part.neighbors for part in relations], destinations, sources)
        first = relations[0].edges
        return cls(
            neighbors=joined,
            edges=HeadEdges(neighbors=joined, num_heads=first.num_heads, stride=first.stride),
            encodings=tuple(encoding for part in relations for encoding in part.encodings),
        )

    @cached_property
    def edge_list(self) -> EdgeList | None:
        """The edges as native kernels read them, if nothing is padded."""
        if self.neighbors.shapes is not None:
            return None
        return EdgeList(starts=self.neighbors.starts, source=self.neighbors.source)

    @cached_property
    def gathering(self) -> Gathering | None:
        """The same with encodings, for those who learn nothing."""
        if self.edge_list is None:
            return None
        unfinished = self.unfinished
        return Gathering(
            edges=self.edge_list,
            destination=self.neighbors.destination,
            encodings=[part.features for part in unfinished] or self.normalised,
            scales=[part.scale for part in unfinished],
        )

    @cached_property
    def normalised(self) -> tuple[Float[Tensor, "_ hidden"], ...]:
        """The encodings with their last layer."""
        parts = self.encodings
        return tuple(part.normalised if isinstance(part, Encoding) else part for part in parts)

    @cached_property
    def unfinished(self) -> tuple[Encoding, ...]:
        """The encodings, if all of them leave the same last layer to attention."""
        parts = [part for part in self.encodings if isinstance(part, Encoding)]
        same = all(part.layer is parts[0].layer for part in parts)
        return tuple(parts) if same and len(parts) == len(self.encodings) else ()

    def by_bucket(self, dtype: torch.dtype) -> list[Float[Tensor, "_ _ hidden"]]:
        """Views the encodings of each bucket."""
        encodings = self.normalised
        if self.neighbors.shapes is None and len(encodings) > 1:
            # A bucket may reach from one into the next.
            encodings = (torch.cat(encodings),)
        views, begin, parts = [], 0, iter(encodings)
        part = next(parts).to(dtype)
        for _, slots, shape in self.neighbors.buckets:
            while slots.start >= begin + len(part):
                begin += len(part)
                part = next(parts).to(dtype)
            views.append(part[slots.start - begin : slots.stop - begin].unflatten(0, shape))
        return views
