"""Attention between nodes that stand in a relation to each other."""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from policies.smart.config import SMARTConfig
from policies.smart.edges import HeadEdges
from policies.smart.layers import FeedForward, Memo, ParametersOf
from policies.smart.linear import Linear, linear
from policies.smart.native.attention import (
    EdgeList,
    RelationWeights,
    attend,
    attend_unfinished,
    fits,
)
from policies.smart.native.encoding import Layer
from policies.smart.native.layer import (
    LayerWeights,
    enter_learning,
    leave_learning,
    update,
)
from policies.smart.native.layer import Turn as TurnInC
from policies.smart.native.library import takes
from policies.smart.native.packing import fits as fits_layer
from policies.smart.relation import Relation


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
        self.query = Linear(hidden_dim, attention_dim)
        self.key = Linear(hidden_dim, attention_dim, bias=False)
        self.value = Linear(hidden_dim, attention_dim)
        self.relation_key = Linear(hidden_dim, attention_dim, bias=False)
        self.relation_value = Linear(hidden_dim, attention_dim)
        self.skip = Linear(hidden_dim, attention_dim)
        self.gate = Linear(attention_dim + hidden_dim, attention_dim)
        self.out = Linear(attention_dim, hidden_dim)
        self.feed_forward = FeedForward(hidden_dim, dropout)
        self._folded: Memo[_Folded] = Memo()
        self._weights: Memo[tuple[LayerWeights, RelationWeights]] = Memo()
        self._foldable = ParametersOf(
            *(self.query, self.key, self.value, self.skip, self.gate),
            *(self.relation_key, self.relation_value, self.norm_relation),
        )
        self._everything = ParametersOf(self)

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
        """Projects sources of another kind to keys and values, side by side."""
        assert self.norm_source is not None
        folded = self._fold()
        return linear(self.norm_source(sources), folded.key_value, folded.key_value_bias)

    def forward(
        self,
        destinations: Float[Tensor, "destinations hidden"],
        relation: Relation,
        keys_values: Float[Tensor, "sources keys_values"] | None = None,
    ) -> tuple[Float[Tensor, "destinations hidden"], Float[Tensor, "destinations own"]]:
        """Updates the destinations by what their neighbours are.

        Args:
            destinations: Features of the destinations.
            relation: Who attends to whom.
            keys_values: Those of the sources; by default of the destinations themselves.

        Returns:
            Features, and the destinations' own keys and values, unless sources are of another kind.
        """
        turn = Turn(self, relation, keys_values, remembers=self.norm_source is None)
        if _are_native(destinations, [turn]):
            features, own = update(destinations, [turn.in_c()])
            return features, own.flatten(1)
        folded = self._fold()
        if self._is_native(destinations) and not _is_autocast(destinations):
            return self._learn_natively(destinations, relation, keys_values, folded)
        projected = linear(self.norm(destinations), folded.project, folded.project_bias)
        # Parts of it have the strides of the whole, so that it must be cast as a whole.
        projected = projected.to(_computed_in(projected))
        width = self.num_heads * self.head_dim
        query, skip, gate = projected[:, : 3 * width].chunk(3, dim=1)
        own = projected[:, 3 * width :]
        sources = own if keys_values is None else keys_values
        gathered = self._gather(query, sources, relation, folded)
        gate = torch.sigmoid(gate + linear(gathered, folded.gate))
        gathered = torch.lerp(gathered, skip, gate)
        destinations = destinations + self.norm_out(self.out(gathered))
        return destinations + self.feed_forward(destinations), own

    def _fold(self) -> "_Folded":
        return self._folded(partial(_Folded.of, self), self._foldable)

    def _gather(
        self, query: Tensor, keys_values: Tensor, relation: Relation, folded: "_Folded"
    ) -> Float[Tensor, "destinations attention"]:
        """Returns the attended values; zero for destinations without neighbours."""
        neighbors = relation.neighbors
        if not len(neighbors.destination):
            return torch.zeros_like(query)
        dropout = self.dropout if self.training else 0.0
        edges = relation.edge_list if self._is_native(query) else None
        gathered = torch.zeros_like(query)
        query = query.index_select(0, neighbors.destination)
        if edges is not None and relation.unfinished and not _is_autocast(query):
            value = self._attend_unfinished(query, keys_values, relation, edges, dropout, folded)
            return gathered.index_copy(0, neighbors.destination, value)
        heads = query.unflatten(-1, (self.num_heads, self.head_dim)).transpose(0, 1)
        relation_query = torch.bmm(heads, folded.relation_key).transpose(0, 1)
        # It multiplies into given memory, which autocast would not convert.
        with torch.autocast(query.device.type, enabled=False):
            operands = query, relation_query.to(query.dtype), keys_values
            if edges is not None:
                encodings = [encoding.to(query.dtype) for encoding in relation.normalised]
                sums = attend(*operands, edges, encodings, dropout=dropout)
            else:
                encodings = relation.by_bucket(query.dtype)
                sums = _AttendToNeighbors.apply(*operands, relation.edges, dropout, *encodings)
        value_sum, relation_sum, total = sums
        value = torch.bmm(relation_sum.transpose(0, 1), folded.relation_value)
        value = torch.addcmul(value.transpose(0, 1), total, folded.relation_bias)
        value = value_sum + value.flatten(1)
        return gathered.index_copy(0, neighbors.destination, value.to(gathered.dtype))

    def _learn_natively(
        self,
        destinations: Tensor,
        relation: Relation,
        keys_values: Tensor | None,
        folded: "_Folded",
    ) -> tuple[Float[Tensor, "destinations hidden"], Float[Tensor, "destinations own"]]:
        with torch.no_grad():
            weights, _ = self._packed(relation)
        norm, first, second, norm_behind = self.feed_forward.weighty
        project = folded.project, folded.project_bias
        query, skip_gate, own = enter_learning(weights, destinations, project, self.norm)
        sources = own if keys_values is None else keys_values
        destinations = leave_learning(
            weights,
            destinations,
            skip_gate,
            self._gather(query, sources, relation, folded),
            linears=[(folded.gate, None), *((p.weight, p.bias) for p in (self.out, first, second))],
            norms=[self.norm_out, norm, norm_behind],
            dropout=self.dropout if self.training else 0.0,
        )
        return destinations, own

    def _packed(self, relation: Relation) -> tuple[LayerWeights, RelationWeights]:
        """Returns the weights as native kernels read them. They get no gradient."""
        unfinished = relation.unfinished
        layer = unfinished[0].layer if unfinished else None
        return self._weights(partial(self._pack, layer), self._everything, layer)

    def _pack(self, layer: Layer | None) -> tuple[LayerWeights, RelationWeights]:
        folded = self._fold()
        norm, first, second, norm_behind = self.feed_forward.weighty
        linears = [
            *((folded.project, folded.project_bias), (folded.gate, None)),
            *((part.weight, part.bias) for part in (self.out, first, second)),
        ]
        weights = LayerWeights.pack(linears, [self.norm, self.norm_out, norm, norm_behind])
        relation_weights = RelationWeights.behind(
            layer,
            key=folded.relation_key,
            value=folded.relation_value.mT,
            bias=folded.relation_bias,
        )
        return weights, relation_weights

    def _attend_unfinished(
        self,
        query: Tensor,
        keys_values: Tensor,
        relation: Relation,
        edges: EdgeList,
        dropout: float,
        folded: "_Folded",
    ) -> Float[Tensor, "rows attention"]:
        """Learns behind the last layer of encodings that learns nothing."""
        layer = relation.unfinished[0].layer
        heads = query.unflatten(-1, (self.num_heads, self.head_dim)).transpose(0, 1)
        relation_key = folded.relation_key @ layer.weight
        relation_query = torch.bmm(heads, relation_key)
        bias = torch.bmm(heads, (folded.relation_key @ layer.bias)[..., None])
        value_sum, relation_sum, total, scale_sum = attend_unfinished(
            query,
            relation_query.transpose(0, 1),
            bias[..., 0].T,
            keys_values,
            edges,
            relation.unfinished,
            dropout=dropout,
            # Much larger than what it is a product of.
            remake=partial(torch.bmm, heads.detach(), relation_key.detach()),
        )
        relation_value = folded.relation_value.mT
        value = torch.bmm(relation_sum.transpose(0, 1), (relation_value @ layer.weight).mT)
        value = torch.addcmul(value.transpose(0, 1), total, folded.relation_bias)
        value = torch.addcmul(value, scale_sum[..., None], relation_value @ layer.bias)
        return value_sum + value.flatten(1)

    @cached_property
    def fits_kernels(self) -> bool:
        """Whether native kernels, if there are any, work on layers of this size."""
        hidden_dim = self.norm.normalized_shape[0]
        width = self.num_heads * self.head_dim
        is_whole = fits_layer(width, 5 * width, hidden_dim)
        return is_whole and fits(self.num_heads, hidden_dim, self.head_dim)

    def _is_native(self, query: Tensor) -> bool:
        """Tells whether native kernels work on this layer."""
        return takes(query) and self.fits_kernels


class Turn(NamedTuple):
    """A layer whose turn it is to update features."""

    layer: RelationalAttention
    """The layer."""

    relation: Relation
    """Who attends to whom."""

    keys_values: Float[Tensor, "sources keys_values"] | None = None
    """Those of the sources; by default of the features that are updated."""

    remembers: bool = False
    """Whether the keys and values of these are asked for."""

    def in_c(self) -> TurnInC:
        """Tells native kernels of it."""
        gathering = self.relation.gathering
        assert gathering is not None
        weights, relation_weights = self.layer._packed(self.relation)
        return TurnInC(weights, relation_weights, gathering, self.keys_values, self.remembers)


def take_turns(
    features: Float[Tensor, "destinations hidden"], turns: Sequence[Turn]
) -> tuple[
    Float[Tensor, "destinations hidden"], Float[Tensor, "destinations remembering keys_values"]
]:
    """Updates features by layers of a size, one after the other.

    Returns:
        Features, and their keys and values in each layer that remembers them.
    """
    if _are_native(features, turns):
        return update(features, [turn.in_c() for turn in turns])
    remembered = []
    for turn in turns:
        features, own = turn.layer(features, turn.relation, turn.keys_values)
        if turn.remembers:
            remembered.append(own)
    return features, torch.stack(remembered, dim=1)


def _are_native(features: Tensor, turns: Sequence[Turn]) -> bool:
    """Tells whether native kernels do all of it: nothing is learnt or dropped."""
    if torch.is_grad_enabled() or _is_autocast(features) or not takes(features):
        return False
    return all(
        layer.fits_kernels
        and not (layer.training and layer.dropout)
        and relation.edge_list is not None
        for layer, relation, *_ in turns
    )


def split_blocks(
    keys_values: Float[Tensor, "*batch blocks keys_values"],
) -> tuple[Float[Tensor, "sources keys_values"], ...]:
    """Views the keys and values of all sources in each block."""
    return keys_values.to(_computed_in(keys_values)).flatten(0, -3).unbind(dim=1)


def _is_autocast(features: Tensor) -> bool:
    return torch.is_autocast_enabled(features.device.type)


def _computed_in(features: Tensor) -> torch.dtype:
    """On a processor, sparse kernels know no half precision."""
    is_cpu = features.device.type == "cpu"
    return torch.promote_types(features.dtype, torch.float32) if is_cpu else features.dtype


class _Folded(NamedTuple):
    """Weights of a layer, put together so that there are few products.

    The scale of the queries and the affine part of r's normalisation are in the weights.
    """

    project: Float[Tensor, "projections hidden"]
    project_bias: Float[Tensor, " projections"]
    key_value: Float[Tensor, "keys_values hidden"]
    key_value_bias: Float[Tensor, " keys_values"]
    gate: Float[Tensor, "attention attention"]
    relation_key: Float[Tensor, "heads head hidden"]
    relation_value: Float[Tensor, "heads hidden head"]
    relation_bias: Float[Tensor, "heads head"]

    @classmethod
    def of(cls, layer: "RelationalAttention") -> "_Folded":
        heads, norm = (layer.num_heads, layer.head_dim), layer.norm_relation
        attention_dim = layer.num_heads * layer.head_dim
        scale = 1 / math.sqrt(layer.head_dim)
        gate, gate_skip = layer.gate.weight.split([attention_dim, norm.weight.shape[0]], dim=1)
        value = layer.relation_value.weight
        value_bias = layer.relation_value.bias + value @ norm.bias
        project = [layer.query.weight * scale, layer.skip.weight, gate_skip]
        project_bias = [layer.query.bias * scale, layer.skip.bias, layer.gate.bias]
        key_value = [layer.key.weight, layer.value.weight]
        key_value_bias = [torch.zeros_like(layer.value.bias), layer.value.bias]
        if layer.norm_source is None:
            project, project_bias = project + key_value, project_bias + key_value_bias
        return cls(
            project=torch.cat(project),
            project_bias=torch.cat(project_bias),
            key_value=torch.cat(key_value),
            key_value_bias=torch.cat(key_value_bias),
            gate=gate.contiguous(),
            relation_key=(layer.relation_key.weight * norm.weight).unflatten(0, heads),
            relation_value=(value * norm.weight).unflatten(0, heads).mT,
            relation_bias=value_bias.unflatten(0, heads),
        )


class _AttendToNeighbors(torch.autograd.Function):
    """Sums values, relations and ones over the neighbours of each row, weighted by attention.

    Works through one bucket after the other, and keeps only the weights for the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "rows attention"],
        relation_query: Float[Tensor, "rows heads hidden"],
        keys_values: Float[Tensor, "sources keys_values"],
        edges: HeadEdges,
        dropout: float,
        *encodings: Float[Tensor, "_ _ hidden"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads = edges.num_heads
        keys, values = _tables(keys_values, heads)
        rows = query.reshape(-1, keys.shape[1])
        score = edges.dot(rows, keys, plus=edges.padding.to(query.dtype))
        weight = torch.empty_like(score)
        for bucket, encoding in zip(edges.neighbors.buckets, encodings, strict=True):
            scores = edges.of(score, bucket).baddbmm_(relation_query[bucket.rows], encoding.mT)
            torch.softmax(scores, dim=-1, out=edges.of(weight, bucket))
        dropped, keep = weight, None
        total = query.new_ones(*relation_query.shape[:2], 1)
        if dropout:
            dropped, keep = torch.native_dropout(weight, dropout, True)
            for bucket in edges.neighbors.buckets:
                rows = total[bucket.rows]
                torch.sum(edges.of(dropped, bucket), dim=-1, keepdim=True, out=rows)
        relation_sum = torch.empty_like(relation_query, memory_format=torch.contiguous_format)
        for bucket, encoding in zip(edges.neighbors.buckets, encodings, strict=True):
            torch.bmm(edges.of(dropped, bucket), encoding, out=relation_sum[bucket.rows])
        value_sum = edges.sum(dropped, values).view(query.shape)
        ctx.save_for_backward(query, relation_query, keys_values, weight, keep, *encodings)
        ctx.edges, ctx.dropout = edges, dropout
        return value_sum, relation_sum, total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, relation_query, keys_values, weight, keep, *encodings = ctx.saved_tensors
        edges, buckets = ctx.edges, ctx.edges.neighbors.buckets
        keys, values = _tables(keys_values, edges.num_heads)
        by_value = grads[0].reshape(-1, keys.shape[1])
        by_weight = edges.dot(by_value, values, plus=torch.zeros_like(weight))
        for bucket, encoding in zip(buckets, encodings, strict=True):
            edges.of(by_weight, bucket).baddbmm_(grads[1][bucket.rows], encoding.mT)
        dropped = weight
        if keep is not None:
            scale = keep.to(weight.dtype) / (1 - ctx.dropout)
            dropped = weight * scale
            for bucket in buckets:
                edges.of(by_weight, bucket).add_(grads[2][bucket.rows])
            by_weight *= scale
        by_score = torch.empty_like(weight)
        grad_relation_query = torch.empty_like(
            relation_query, memory_format=torch.contiguous_format
        )
        grad_encodings: list[Tensor | None] = []
        for index, (bucket, encoding) in enumerate(zip(buckets, encodings, strict=True)):
            weights, rows = edges.of(weight, bucket), bucket.rows
            # The derivative of softmax.
            scores = edges.of(by_weight, bucket).mul_(weights)
            scores = torch.addcmul(
                scores,
                weights,
                scores.sum(dim=-1, keepdim=True),
                value=-1,
                out=edges.of(by_score, bucket),
            )
            torch.bmm(scores, encoding, out=grad_relation_query[rows])
            grad_encodings.append(None)
            if ctx.needs_input_grad[5 + index]:
                grad = torch.bmm(scores.mT, relation_query[rows])
                grad_encodings[-1] = grad.baddbmm_(edges.of(dropped, bucket).mT, grads[1][rows])
        grad_query = edges.sum(by_score, keys).view(query.shape)
        grad_keys_values = None
        if ctx.needs_input_grad[2]:
            grad_keys_values = torch.cat(
                [
                    edges.sum_back(by_score, query.reshape(by_value.shape), len(keys_values)),
                    edges.sum_back(dropped, by_value, len(keys_values)),
                ],
                dim=-1,
            )
        return grad_query, grad_relation_query, grad_keys_values, None, None, *grad_encodings


def _tables(
    keys_values: Float[Tensor, "sources keys_values"], heads: int
) -> tuple[Float[Tensor, "rows head"], Float[Tensor, "rows head"]]:
    """Views keys and values as tables of one row for each head.

    Sources may lie apart in memory, by a whole number of rows.
    """
    count, width = keys_values.shape
    head_dim = width // (2 * heads)
    rows = (count - 1) * (keys_values.stride(0) // head_dim) + 2 * heads if count else 0
    table = keys_values.as_strided((rows, head_dim), (head_dim, 1))
    return table[: rows - heads], table[heads:]
