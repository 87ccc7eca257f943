"""Attention over lists of neighbours in C."""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from policies.smart.native import threads
from policies.smart.native.dropout import Dropout
from policies.smart.native.encoding import Encoding, Layer
from policies.smart.native.library import library, pointers

_INT = ctypes.c_int64


class _Attention(ctypes.Structure):
    """`struct attention`."""

    _fields_ = [
        *((name, _INT) for name in ("heads", "hidden", "head_dim", "stride", "head_stride")),
        ("drop", Dropout),
        *pointers("starts", "source", "encoding", "scale", "keys", "values"),
        *(*pointers("query"), ("query_stride", _INT)),
        *(*pointers("relation_query"), ("relation_stride", _INT)),
        *pointers("destination", "relation_key", "relation_value", "relation_bias"),
        *pointers("key_bias", "value_bias", "gathered"),
        *pointers("bias", "scale_sum", "weights", "value_sum", "relation_sum", "total"),
        *pointers("by_value_sum", "by_relation_sum", "by_total", "by_scale_sum", "by_bias"),
        *pointers("by_score", "dropped"),
        *pointers("by_query", "by_relation_query", "by_encoding"),
        *pointers("source_starts", "source_edge", "source_row", "by_keys_values"),
    ]


class _Gathering(ctypes.Structure):
    """`struct gathering`."""

    _fields_ = [
        ("rows", _INT),
        *pointers("starts", "source", "encoding", "scale", "destination"),
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class EdgeList:
    """Edges as the kernels read them: those of a row one behind the other.

    Attributes:
        starts: The first edge of each row, and where the last row ends.
        source: The source of each edge.
    """

    starts: Int[Tensor, " rows_and_end"]
    source: Int[Tensor, " edges"]
    _addresses: dict[tuple[tuple[int, int], ...], Tensor] = field(default_factory=dict)

    @cached_property
    def source32(self) -> Int[Tensor, " edges"]:
        """The sources, as narrow as the kernels read them."""
        return self.source.to(torch.int32)

    @cached_property
    def by_source(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sorts edges by source: where those of each source start, which they are, their rows.

        There are as many sources as have edges, up to the last.
        """
        order = self.source.argsort(stable=True)
        starts = torch.bincount(self.source).cumsum(0)
        degree = self.starts.diff()
        row = torch.arange(len(degree)).repeat_interleave(degree, output_size=len(order))
        starts = torch.cat([starts.new_zeros(1), starts])
        return starts, order.to(torch.int32), row[order].to(torch.int32)

    def addresses(self, tensors: Sequence[Shaped[Tensor, "_ ..."]]) -> Int[Tensor, " rows"]:
        """Tells where in memory what belongs to the first edge of each row lies.

        Args:
            tensors: What belongs to successive edges, which may lie in several places.
        """
        key = tuple((tensor.data_ptr(), tensor.stride(0)) for tensor in tensors)
        if key not in self._addresses:
            self._addresses[key] = self.addresses_of(tensors)
        return self._addresses[key]

    def addresses_of(self, tensors: Sequence[Shaped[Tensor, "_ ..."]]) -> Int[Tensor, " rows"]:
        """As `addresses`, of tensors that do not stay."""
        counts = torch.tensor([len(tensor) for tensor in tensors])
        ends, first = counts.cumsum(0), self.starts[:-1]
        part = torch.bucketize(first, ends, right=True)
        base = torch.tensor([tensor.data_ptr() for tensor in tensors])[part]
        size = tensors[0].stride(0) * tensors[0].element_size()
        return base + (first - (ends - counts)[part]) * size


def fits(num_heads: int, hidden: int, head_dim: int) -> bool:
    """Tells whether the kernels work on layers of a size."""
    kernels = library()
    if kernels is None:
        return False
    width = int(kernels.vector_width())
    return (
        num_heads in (4, 8)
        and hidden % width == 0
        and (num_heads * head_dim) % width == 0
        and (head_dim % width == 0 or width % head_dim == 0)
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class RelationWeights:
    """What a layer does with encodings.

    Attributes:
        key: W_kr for each head, the scale of queries included.
        value: W_vr.
        bias: What is added to what is attended to.
        layer: The last layer of the encodings, if attention takes it upon itself: then the
            weights are products with its weights.
        key_bias: W_kr times the bias of that layer.
        value_bias: W_vr times it.
    """

    key: Float[Tensor, "heads head hidden"]
    value: Float[Tensor, "heads head hidden"]
    bias: Float[Tensor, "heads head"]
    layer: Layer | None
    key_bias: Float[Tensor, "heads head"] | None = None
    value_bias: Float[Tensor, "heads head"] | None = None

    @classmethod
    def behind(
        cls,
        layer: Layer | None,
        *,
        key: Float[Tensor, "heads head hidden"],
        value: Float[Tensor, "heads head hidden"],
        bias: Float[Tensor, "heads head"],
    ) -> "RelationWeights":
        """Puts the weights and those of a last layer together."""
        if layer is None:
            return cls(key=key.contiguous(), value=value.contiguous(), bias=bias, layer=None)
        return cls(
            key=key @ layer.weight,
            value=value @ layer.weight,
            bias=bias,
            layer=layer,
            key_bias=key @ layer.bias,
            value_bias=value @ layer.bias,
        )

    @cached_property
    def structure(self) -> _Attention:
        """What kernels are told of them."""
        heads, head_dim, hidden = self.key.shape
        told = _Attention(
            heads=heads,
            hidden=hidden,
            head_dim=head_dim,
            relation_key=self.key.data_ptr(),
            relation_value=self.value.data_ptr(),
            relation_bias=self.bias.data_ptr(),
        )
        if self.key_bias is not None and self.value_bias is not None:
            told.key_bias, told.value_bias = self.key_bias.data_ptr(), self.value_bias.data_ptr()
        return told


@dataclass(frozen=True, eq=False, kw_only=True)
class Gathering:
    """What layers attend to, without a gradient; see `RelationalAttention`.

    Attributes:
        edges: Who attends to whom.
        destination: The one that each row of edges belongs to.
        encodings: Those of the edges, or what their last layer reads.
        scales: What of the last layer's bias is in each; none if that is not in the weights.
    """

    edges: EdgeList
    destination: Int[Tensor, " rows"]
    encodings: Sequence[Float[Tensor, "_ hidden"]]
    scales: Sequence[Float[Tensor, " _"]]

    @cached_property
    def structure(self) -> _Gathering:
        """What kernels are told of it."""
        assert all(part.dtype == torch.float32 and part.stride(1) == 1 for part in self.encodings)
        edges = self.edges
        return _Gathering(
            rows=len(self.destination),
            starts=edges.starts.data_ptr(),
            source=edges.source32.data_ptr(),
            encoding=edges.addresses(self.encodings).data_ptr(),
            scale=edges.addresses(self.scales).data_ptr() if self.scales else None,
            destination=self.destination.data_ptr(),
        )

    def cost(self, weights: RelationWeights) -> int:
        """Multiplications in all."""
        return len(self.edges.source) * _cost(weights.structure)

    def run(
        self,
        weights: RelationWeights,
        query: Float[Tensor, "destinations attention"],
        keys_values: Float[Tensor, "sources keys_values"],
        gathered: Float[Tensor, "destinations attention"],
    ) -> None:
        """Attends, by as many threads as torch uses.

        Args:
            weights: What is done with encodings.
            query: That of each destination.
            keys_values: Those of each source.
            gathered: Where what each destination attends to goes, if it has edges.
        """
        call, told = _Attention.from_buffer_copy(weights.structure), self.structure
        keys = keys_values.data_ptr()  # 0 where there are no sources.
        call.stride = keys_values.stride(0)
        call.starts, call.source, call.destination = told.starts, told.source, told.destination
        call.encoding, call.scale = told.encoding, told.scale
        call.keys = keys
        call.values = keys + keys_values.element_size() * call.heads * call.head_dim
        call.query, call.query_stride = query.data_ptr(), query.stride(0)
        call.gathered = gathered.data_ptr()
        _run("gather", call, self.edges.starts)


def attend(
    query: Float[Tensor, "rows attention"],
    relation_query: Float[Tensor, "rows heads hidden"],
    keys_values: Float[Tensor, "sources keys_values"],
    edges: EdgeList,
    encodings: Sequence[Float[Tensor, "_ hidden"]],
    *,
    dropout: float = 0.0,
) -> tuple[
    Float[Tensor, "rows attention"],
    Float[Tensor, "rows heads hidden"],
    Float[Tensor, "rows heads 1"],
]:
    """Sums values, relations and ones over the edges of each row, weighted by attention.

    Args:
        query: That of each row.
        relation_query: What encodings are multiplied with, for each head.
        keys_values: Those of each source.
        edges: Who attends to whom.
        encodings: Those of the edges.
        dropout: The part of the weights that is dropped.
    """
    none = query.new_empty(0)
    settings = edges, dropout, (), None
    sums = _Attend.apply(query, relation_query, none, keys_values, *settings, *encodings)
    return sums[:3]


def attend_unfinished(
    query: Float[Tensor, "rows attention"],
    relation_query: Float[Tensor, "rows heads hidden"],
    bias: Float[Tensor, "rows heads"],
    keys_values: Float[Tensor, "sources keys_values"],
    edges: EdgeList,
    encodings: Sequence[Encoding],
    *,
    dropout: float = 0.0,
    remake: Callable[[], Float[Tensor, "heads rows hidden"]] | None = None,
) -> tuple[
    Float[Tensor, "rows attention"],
    Float[Tensor, "rows heads hidden"],
    Float[Tensor, "rows heads 1"],
    Float[Tensor, "rows heads"],
]:
    """Does what `attend` does to encodings before their last layer, of which scales remain.

    Args:
        query: That of each row.
        relation_query: What the encodings' features are multiplied with, for each head.
        bias: What their scales are multiplied with.
        keys_values: Those of each source.
        edges: Who attends to whom.
        encodings: Those of the edges; they get no gradient.
        dropout: The part of the weights that is dropped.
        remake: Makes `relation_query` again for the gradient, which need not keep it then.

    Returns:
        Sums of values, features, ones and scales.
    """
    scales = tuple(part.scale for part in encodings)
    features = [part.features for part in encodings]
    settings = edges, dropout, scales, remake
    return _Attend.apply(query, relation_query, bias, keys_values, *settings, *features)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "rows attention"],
        relation_query: Float[Tensor, "rows heads hidden"],
        bias: Float[Tensor, "..."],
        keys_values: Float[Tensor, "sources keys_values"],
        edges: EdgeList,
        dropout: float,
        scales: tuple[Float[Tensor, " _"], ...],
        remake: Callable[[], Float[Tensor, "heads rows hidden"]] | None,
        *encodings: Float[Tensor, "_ hidden"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, heads, _ = relation_query.shape
        # Heads first, as the products before and after have them.
        relation_query = relation_query.transpose(0, 1).contiguous()
        query, keys_values = _dense_rows(query), _dense_rows(keys_values)
        encodings = tuple(encoding.contiguous() for encoding in encodings)
        bias = bias.contiguous()
        scale_sum = torch.empty_like(bias)
        relation_sum = torch.empty_like(relation_query)
        value_sum = query.new_empty(query.shape)
        total = query.new_ones(rows, heads, 1)
        learns = any(ctx.needs_input_grad)
        weights = query.new_empty(len(edges.source), heads) if learns else None
        drop = Dropout.draw(dropout)
        call = _Attention(
            **_sizes(query, relation_query, keys_values, edges),
            **_scales(bias, scales, edges),
            drop=drop,
            encoding=edges.addresses(encodings).data_ptr(),
            weights=None if weights is None else weights.data_ptr(),
            value_sum=value_sum.data_ptr(),
            relation_sum=relation_sum.data_ptr(),
            total=total.data_ptr() if drop.limit else None,
            scale_sum=scale_sum.data_ptr(),
        )
        _run("attend", call, edges.starts)
        if learns:
            kept = None if remake else relation_query
            ctx.save_for_backward(query, kept, bias, keys_values, weights, *encodings)
            ctx.remake, ctx.edges, ctx.drop, ctx.scales = remake, edges, drop, scales
        return value_sum, relation_sum.transpose(0, 1), total, scale_sum

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        query, relation_query, bias, keys_values, weights, *encodings = ctx.saved_tensors
        if ctx.remake:
            relation_query = ctx.remake().contiguous()
        edges: EdgeList = ctx.edges
        by_value_sum = grads[0].contiguous()
        by_relation_sum = grads[1].transpose(0, 1).contiguous()
        by_total = grads[2].contiguous() if ctx.drop.limit else None
        by_scale_sum = grads[3].contiguous()
        by_score = torch.empty_like(weights)
        dropped = torch.empty_like(weights) if ctx.drop.limit else weights
        by_query, by_relation_query = torch.empty_like(query), torch.empty_like(relation_query)
        by_bias = torch.empty_like(bias)
        by_encodings: Sequence[Tensor | None] = [None] * len(encodings)
        call = _Attention(
            **_sizes(query, relation_query, keys_values, edges),
            **_scales(bias, ctx.scales, edges),
            drop=ctx.drop,
            encoding=edges.addresses(encodings).data_ptr(),
            weights=weights.data_ptr(),
            by_value_sum=by_value_sum.data_ptr(),
            by_relation_sum=by_relation_sum.data_ptr(),
            by_total=None if by_total is None else by_total.data_ptr(),
            by_scale_sum=by_scale_sum.data_ptr(),
            by_bias=by_bias.data_ptr(),
            by_score=by_score.data_ptr(),
            dropped=dropped.data_ptr(),
            by_query=by_query.data_ptr(),
            by_relation_query=by_relation_query.data_ptr(),
        )
        if any(ctx.needs_input_grad[8:]):
            by_encodings = found = [torch.empty_like(encoding) for encoding in encodings]
            to_addresses = edges.addresses_of(found)
            call.by_encoding = to_addresses.data_ptr()
        _run("attend_back", call, edges.starts)
        by_keys_values = None
        if ctx.needs_input_grad[3]:
            by_keys_values = _sum_over_sources(call, edges, keys_values)
        return (
            by_query,
            by_relation_query.transpose(0, 1),
            by_bias if ctx.needs_input_grad[2] else None,
            by_keys_values,
            None,
            None,
            None,
            None,
            *by_encodings,
        )


def _sum_over_sources(call: _Attention, edges: EdgeList, keys_values: Tensor) -> Tensor:
    starts, edge, row = edges.by_source
    summed = keys_values.new_empty(keys_values.shape)
    summed[len(starts) - 1 :] = 0
    call.source_starts, call.source_edge = starts.data_ptr(), edge.data_ptr()
    call.source_row, call.by_keys_values = row.data_ptr(), summed.data_ptr()
    _run("attend_back_to_sources", call, starts)
    return summed


def _run(kernel: str, call: _Attention, starts: Tensor) -> None:
    threads.run(kernel, (ctypes.byref(call),), starts, cost=_cost(call))


def _cost(call: _Attention) -> int:
    """Multiplications for an edge."""
    return 2 * call.heads * (call.hidden + call.head_dim)


def _sizes(
    query: Tensor, relation_query: Tensor, keys_values: Tensor, edges: EdgeList
) -> dict[str, Any]:
    """Fills in what both directions need."""
    heads, _, hidden = relation_query.shape
    values = keys_values.data_ptr() + keys_values.element_size() * query.shape[1]
    return {
        "heads": heads,
        "hidden": hidden,
        "head_dim": query.shape[1] // heads,
        "stride": keys_values.stride(0),
        "head_stride": relation_query.stride(0),
        "starts": edges.starts.data_ptr(),
        "source": edges.source32.data_ptr(),
        "keys": keys_values.data_ptr(),
        "values": values,
        "query": query.data_ptr(),
        "query_stride": query.stride(0),
        "relation_query": relation_query.data_ptr(),
        "relation_stride": hidden,
    }


def _scales(bias: Tensor, scales: Sequence[Tensor], edges: EdgeList) -> dict[str, Any]:
    if not scales:
        return {}
    return {"bias": bias.data_ptr(), "scale": edges.addresses(scales).data_ptr()}


def _dense_rows(tensor: Tensor) -> Tensor:
    """Returns rows that may lie apart, but whose numbers do not."""
    return tensor if tensor.stride(1) == 1 else tensor.contiguous()
