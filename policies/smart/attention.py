"""Attention between nodes that stand in a relation to each other."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from policies.smart.config import SMARTConfig
from policies.smart.graph import Bucket, Neighbors
from policies.smart.layers import FourierEmbedding

_CHUNK = 8192


@dataclass(frozen=True, eq=False, kw_only=True)
class Relation:
    """Who attends to whom, and the normalised encoding of how they stand to each other."""

    neighbors: Neighbors
    encoding: Float[Tensor, "slots hidden"]

    @classmethod
    def encode(
        cls,
        embedding: FourierEmbedding,
        scalars: Float[Tensor, "slots scalars"],
        neighbors: Neighbors,
    ) -> "Relation":
        """Encodes and normalises; the layers share the statistics of the normalisation."""
        if torch.is_grad_enabled():
            encoding = _normalise(embedding(scalars))
        else:
            # Piece by piece, so that intermediate results stay in the processor's cache.
            pieces = [_normalise(embedding(piece)) for piece in scalars.split(_CHUNK)]
            encoding = torch.cat(pieces)
        return cls(neighbors=neighbors, encoding=encoding)


def _normalise(features: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows hidden"]:
    return functional.layer_norm(features, features.shape[-1:])


class RelationalAttention(nn.Module):
    """Attention whose keys and values depend on where the source is, seen from the destination.

    With r the encoding of a relative pose, source x' and destination x (layer-normalised),
    k = W_k x' + W_kr r and v = W_v x' + W_vr r. Done as written, each relation of each layer
    costs two projections of r. Instead
        q . W_kr r = (W_kr^T q) . r    and    sum_e a_e W_vr r_e = W_vr sum_e a_e r_e,
    so that r is projected once for each destination. r's normalisation is the same in all layers
    but for its affine part, which moves into W_kr and W_vr: a constant added to all scores of a
    destination does not change their softmax.

    Args:
        hidden_dim: Features of destinations, sources and relations.
        num_heads: Attention heads.
        head_dim: Features of a query in one head.
        dropout: Dropped attention weights and feed-forward features.
        is_bipartite: Whether sources are of another kind and have their own normalisation.
    """

    def __init__(
        self,
        hidden_dim: int,
        *,
        num_heads: int,
        head_dim: int,
        dropout: float,
        is_bipartite: bool,
    ) -> None:
        super().__init__()
        attention_dim = num_heads * head_dim
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.norm = nn.LayerNorm(hidden_dim)
        self.norm_source = nn.LayerNorm(hidden_dim) if is_bipartite else None
        self.norm_relation = nn.LayerNorm(hidden_dim)
        self.norm_out = nn.LayerNorm(hidden_dim)
        self.query = nn.Linear(hidden_dim, attention_dim)
        self.key = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.value = nn.Linear(hidden_dim, attention_dim)
        self.relation_key = nn.Linear(hidden_dim, attention_dim, bias=False)
        self.relation_value = nn.Linear(hidden_dim, attention_dim)
        self.skip = nn.Linear(hidden_dim, attention_dim)
        self.gate = nn.Linear(attention_dim + hidden_dim, attention_dim)
        self.out = nn.Linear(attention_dim, hidden_dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, 4 * hidden_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4 * hidden_dim, hidden_dim),
            nn.LayerNorm(hidden_dim),
        )

    @classmethod
    def from_config(cls, config: SMARTConfig, *, is_bipartite: bool) -> "RelationalAttention":
        """Makes a layer of the size that a model has."""
        return cls(
            config.hidden_dim,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            dropout=config.dropout,
            is_bipartite=is_bipartite,
        )

    def keys_values(
        self, sources: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch keys_values"]:
        """Projects sources to keys and values, side by side."""
        norm = self.norm if self.norm_source is None else self.norm_source
        sources = norm(sources)
        return torch.cat([self.key(sources), self.value(sources)], dim=-1)

    def forward(
        self,
        destinations: Float[Tensor, "destinations hidden"],
        keys_values: Float[Tensor, "sources keys_values"],
        relation: Relation,
    ) -> Float[Tensor, "destinations hidden"]:
        """Updates the destinations by what their neighbours are.

        Args:
            destinations: Features of the destinations.
            keys_values: What `keys_values` made of the sources.
            relation: Who attends to whom.
        """
        normed = self.norm(destinations)
        gathered = self._gather(normed, keys_values, relation)
        gate = torch.sigmoid(self.gate(torch.cat([gathered, normed], dim=-1)))
        gathered = torch.lerp(gathered, self.skip(normed), gate)
        destinations = destinations + self.norm_out(self.out(gathered))
        return destinations + self.feed_forward(destinations)

    def _gather(
        self, normed: Tensor, keys_values: Tensor, relation: Relation
    ) -> Float[Tensor, "destinations attention"]:
        """Returns the attended values; zero for destinations without neighbours."""
        neighbors, query = relation.neighbors, self.query(normed)
        if not neighbors.buckets:
            return torch.zeros_like(query)
        gathered = torch.zeros_like(query)
        query = query.index_select(0, neighbors.destination) / math.sqrt(self.head_dim)
        # Zero outside the own head: one product with all keys is faster than one for each head.
        own_head = torch.eye(self.num_heads, dtype=query.dtype, device=query.device)[..., None]
        query = (own_head * query.unflatten(-1, (1, self.num_heads, self.head_dim))).flatten(-2)
        relation_query = query @ (self.relation_key.weight * self.norm_relation.weight)
        # It multiplies into given memory, which autocast would not convert.
        with torch.autocast(query.device.type, enabled=False):
            value_sum, relation_sum, total = _AttendToNeighbors.apply(
                query,
                relation_query,
                keys_values.to(query.dtype),
                relation.encoding.to(query.dtype),
                neighbors,
                self.dropout if self.training else 0.0,
            )
        weight = self.relation_value.weight
        bias = functional.linear(self.norm_relation.bias, weight, self.relation_value.bias)
        value = functional.linear(relation_sum, weight * self.norm_relation.weight)
        value = value_sum + value + total * bias
        value = value.unflatten(-1, (self.num_heads, self.head_dim)).diagonal(dim1=1, dim2=2)
        return gathered.index_copy(0, neighbors.destination, value.mT.flatten(-2))


class _AttendToNeighbors(torch.autograd.Function):
    """Sums values, relations and ones over the neighbours of each row, weighted by attention.

    Works through one bucket after the other, and keeps only the weights for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "rows heads attention"],
        relation_query: Float[Tensor, "rows heads hidden"],
        keys_values: Float[Tensor, "sources keys_values"],
        encoding: Float[Tensor, "slots hidden"],
        neighbors: Neighbors,
        dropout: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        value_sum, relation_sum = torch.empty_like(query), torch.empty_like(relation_query)
        total = query.new_ones(*query.shape[:2], 1)
        weights, kept = [], []
        for bucket in neighbors.buckets:
            rows = bucket.rows
            key, value = _keys_values(keys_values, neighbors, bucket)
            relation = encoding[bucket.slots].unflatten(0, bucket.shape)
            score = torch.baddbmm(torch.bmm(query[rows], key.mT), relation_query[rows], relation.mT)
            is_padding = neighbors.is_padding[bucket.slots].view(bucket.shape)
            weight = score.masked_fill_(is_padding[:, None], -math.inf).softmax(dim=-1)
            weights.append(weight)
            if dropout:
                weight, keep = torch.native_dropout(weight, dropout, True)
                kept.append(keep)
                torch.sum(weight, dim=-1, keepdim=True, out=total[rows])
            torch.bmm(weight, value, out=value_sum[rows])
            torch.bmm(weight, relation, out=relation_sum[rows])
        ctx.save_for_backward(query, relation_query, keys_values, encoding, *weights, *kept)
        ctx.neighbors, ctx.dropout = neighbors, dropout
        return value_sum, relation_sum, total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, relation_query, keys_values, encoding, *saved = ctx.saved_tensors
        neighbors, count = ctx.neighbors, len(ctx.neighbors.buckets)
        weights, kept = saved[:count], saved[count:]
        grad_query, grad_relation_query = torch.empty_like(query), torch.empty_like(relation_query)
        grad_keys_values = torch.zeros_like(keys_values)
        grad_encoding = torch.empty_like(encoding) if ctx.needs_input_grad[3] else None
        for index, bucket in enumerate(neighbors.buckets):
            rows, weight = bucket.rows, weights[index]
            by_value, by_relation, by_total = (grad[rows] for grad in grads)
            key, value = _keys_values(keys_values, neighbors, bucket)
            relation = encoding[bucket.slots].unflatten(0, bucket.shape)
            dropped = weight
            by_weight = torch.baddbmm(torch.bmm(by_value, value.mT), by_relation, relation.mT)
            if kept:
                scale = kept[index].to(weight.dtype) / (1 - ctx.dropout)
                dropped = weight * scale
                by_weight = (by_weight + by_total) * scale
            # The derivative of softmax.
            by_score = weight * by_weight
            by_score -= weight * by_score.sum(dim=-1, keepdim=True)
            torch.bmm(by_score, key, out=grad_query[rows])
            torch.bmm(by_score, relation, out=grad_relation_query[rows])
            grad_key_value = torch.cat(
                [torch.bmm(by_score.mT, query[rows]), torch.bmm(dropped.mT, by_value)], dim=-1
            )
            grad_keys_values.index_add_(
                0, neighbors.source[bucket.slots], grad_key_value.flatten(0, 1)
            )
            if grad_encoding is not None:
                grad_relation = grad_encoding[bucket.slots].unflatten(0, bucket.shape)
                torch.bmm(by_score.mT, relation_query[rows], out=grad_relation)
                grad_relation.baddbmm_(dropped.mT, by_relation)
        return grad_query, grad_relation_query, grad_keys_values, grad_encoding, None, None


def _keys_values(
    keys_values: Tensor, neighbors: Neighbors, bucket: Bucket
) -> tuple[Tensor, Tensor]:
    chosen = keys_values.index_select(0, neighbors.source[bucket.slots])
    key, value = chosen.unflatten(0, bucket.shape).chunk(2, dim=-1)
    return key, value
