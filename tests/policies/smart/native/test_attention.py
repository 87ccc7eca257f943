"""Attention in C, beside the same written out in float64, one row after the other."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from policies.smart.attention import RelationalAttention, Turn, take_turns
from policies.smart.config import PRESETS
from policies.smart.graph import Neighbors
from policies.smart.layers import FourierEmbedding
from policies.smart.native import threads
from policies.smart.native.attention import EdgeList, attend, fits
from policies.smart.native.encoding import Encoding
from policies.smart.relation import Relation

pytestmark = pytest.mark.usefixtures("kernels")

SIZES = sorted({(c.num_heads, c.head_dim, c.hidden_dim) for c in PRESETS.values()})
# Rows of one edge, of numbers that do not fill a tile, and of more than the cache prefetches.
DEGREES = (1, 2, 3, 5, 16, 31, 200)
SOURCES = 50
Operands = tuple[Tensor, Tensor, Tensor, Tensor]


def edge_list() -> EdgeList:
    starts = torch.tensor((0, *DEGREES)).cumsum(0)
    generator = torch.Generator().manual_seed(0)
    # The last sources have no edge.
    source = torch.randint(SOURCES - 5, (sum(DEGREES),), generator=generator)
    return EdgeList(starts=starts, source=source)


EDGES = edge_list()


def operands(size: tuple[int, int, int], seed: int = 1) -> Operands:
    """Query, query of relations, keys and values, encodings."""
    heads, head_dim, hidden = size
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator)).requires_grad_()

    rows = len(DEGREES)
    return (
        draw(rows, heads * head_dim, scale=head_dim**-0.5),
        draw(rows, heads, hidden, scale=hidden**-0.5),
        draw(SOURCES, 2 * heads * head_dim),
        draw(sum(DEGREES), hidden),
    )


def attend_as_written(operands: Operands, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what `attend` does, with weights multiplied by factors (edges, heads)."""
    query, relation_query, keys_values, encoding = operands
    heads = relation_query.shape[1]
    values, relations, totals = [], [], []
    for row, (begin, end) in enumerate(pairwise(EDGES.starts)):
        key, value = keys_values[EDGES.source[begin:end]].chunk(2, dim=1)
        score = (key * query[row]).unflatten(1, (heads, -1)).sum(dim=-1)
        score = score + encoding[begin:end] @ relation_query[row].T
        weight = score.softmax(dim=0) * factor[begin:end]
        values.append((weight[..., None] * value.unflatten(1, (heads, -1))).sum(dim=0).flatten())
        relations.append(weight.T @ encoding[begin:end])
        totals.append(weight.sum(dim=0)[:, None])
    return torch.stack(values), torch.stack(relations), torch.stack(totals)


def directions(outputs: tuple[Tensor, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Sums of a few hundred float32 numbers of order one."""
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=2e-5)


def double(tensors: Operands) -> Operands:
    one, two, three, four = (tensor.detach().double().requires_grad_() for tensor in tensors)
    return one, two, three, four


@pytest.mark.parametrize("size", SIZES)
def test_sums_and_gradients_are_those_of_attention(size: tuple[int, int, int]) -> None:
    inputs, exact = operands(size), double(operands(size))
    found = attend(inputs[0], inputs[1], inputs[2], EDGES, [inputs[3]])[:2]
    expected = attend_as_written(exact, torch.ones(1).double().expand(sum(DEGREES), size[0]))[:2]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
    # As seen from values and relations at once, so that their derivatives add up.
    by_found = torch.autograd.grad(found, inputs, directions(found))
    by_expected = torch.autograd.grad(expected, exact, directions(expected))
    for one, other in zip(by_found, by_expected, strict=True):
        assert_close(one, other)


def test_encodings_may_lie_in_several_places() -> None:
    query, relation_query, keys_values, encoding = operands((8, 16, 128))
    whole = attend(query, relation_query, keys_values, EDGES, [encoding])
    # Both of several rows.
    parts = [part.clone() for part in encoding.split([6, sum(DEGREES) - 6])]
    split = attend(query, relation_query, keys_values, EDGES, parts)
    assert all(torch.equal(one, other) for one, other in zip(whole, split, strict=True))
    grads = [
        torch.autograd.grad(out, to, directions(out))
        for out, to in ((whole, encoding), (split, parts))
    ]
    assert torch.equal(torch.cat(grads[1]), grads[0][0])


def test_queries_keys_and_values_may_be_parts_of_wider_rows() -> None:
    query, relation_query, keys_values, encoding = operands((4, 8, 64))
    apart = [torch.cat([t, t + 1, t], dim=1)[:, : t.shape[1]] for t in (query, keys_values)]
    dense = attend(query, relation_query, keys_values, EDGES, [encoding])
    strided = attend(apart[0], relation_query, apart[1], EDGES, [encoding])
    assert all(torch.equal(one, other) for one, other in zip(dense, strided, strict=True))
    grads = [
        torch.autograd.grad(out, (query, keys_values), directions(out)) for out in (dense, strided)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_only_what_is_learnt_gets_a_gradient() -> None:
    inputs = operands((4, 8, 32))
    frozen = inputs[3].detach()
    sums = attend(inputs[0], inputs[1], inputs[2], EDGES, [frozen])
    assert all(grad is not None for grad in torch.autograd.grad(sums[0].sum(), inputs[:3]))
    assert frozen.grad is None


def test_gradients_are_right_under_dropout() -> None:
    """Encodings of ones and zeros make the sum of relations tell every weight."""
    size, dropout = (8, 16, 256), 0.3
    query, relation_query, keys_values, _ = operands(size)
    places = torch.cat([torch.arange(degree) for degree in DEGREES])
    encoding = torch.eye(256)[places].requires_grad_()
    inputs = query, relation_query, keys_values, encoding
    torch.manual_seed(0)
    found = attend(inputs[0], inputs[1], inputs[2], EDGES, [encoding], dropout=dropout)
    kept = torch.cat([row[:, :degree].T for row, degree in zip(found[1], DEGREES, strict=True)])
    factor = (kept != 0).double() / (1 - dropout)
    assert 0.6 < (kept != 0).double().mean() < 0.8
    exact = double(inputs)
    expected = attend_as_written(exact, factor)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
    by_found = torch.autograd.grad(found, inputs, directions(found))
    by_expected = torch.autograd.grad(expected, exact, directions(expected))
    for one, other in zip(by_found, by_expected, strict=True):
        assert_close(one, other)


def test_what_is_dropped_depends_on_torchs_seed() -> None:
    inputs = operands((4, 8, 32))

    def total(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return attend(inputs[0], inputs[1], inputs[2], EDGES, [inputs[3]], dropout=0.5)[2]

    assert torch.equal(total(0), total(0))
    assert not torch.equal(total(0), total(1))


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = operands((8, 16, 128))

    def run() -> list[Tensor]:
        torch.manual_seed(0)
        sums = attend(inputs[0], inputs[1], inputs[2], EDGES, [inputs[3]], dropout=0.2)
        return [*sums, *torch.autograd.grad(sums, inputs, directions(sums))]

    alone = run()
    monkeypatch.setattr(threads, "_WORTHWHILE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert all(torch.equal(one, other) for one, other in zip(alone, run(), strict=True))


def test_what_is_not_a_number_is_seen() -> None:
    query, *others = (tensor.detach() for tensor in operands((4, 8, 32)))
    query[2, 0] = torch.nan
    value_sum, _, _ = attend(query, others[0], others[1], EDGES, [others[2]])
    assert value_sum[2, :8].isnan().all()
    assert value_sum[2, 8:].isfinite().all()
    assert value_sum[[0, 1, 3, 4, 5, 6]].isfinite().all()


def test_odd_sizes_are_left_to_torch() -> None:
    assert all(fits(heads, hidden, head_dim) for heads, head_dim, hidden in SIZES)
    assert not fits(3, 64, 16)
    assert not fits(4, 12, 16)
    assert not fits(4, 64, 12)


def layer_and_inputs(
    size: tuple[int, int, int], *, is_bipartite: bool
) -> tuple[RelationalAttention, Tensor, Neighbors, Tensor, Tensor | None]:
    heads, head_dim, hidden = size
    torch.manual_seed(0)
    layer = RelationalAttention(
        hidden, num_heads=heads, head_dim=head_dim, dropout=0.1, is_bipartite=is_bipartite
    ).eval()
    # Every second destination has no edge.
    count = 2 * len(DEGREES)
    destination = 2 * torch.arange(len(DEGREES)).repeat_interleave(torch.tensor(DEGREES))
    source = EDGES.source if is_bipartite else EDGES.source % count
    neighbors = Neighbors.from_edges(destination, source, count, padded=False)
    sources = torch.randn(SOURCES, hidden)
    keys_values = layer.keys_values(sources) if is_bipartite else None
    return (
        layer,
        torch.randn(count, hidden),
        neighbors,
        torch.randn(sum(DEGREES), hidden),
        keys_values,
    )


@pytest.mark.parametrize("is_bipartite", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_layer_is_the_same_with_and_without_gradients(
    size: tuple[int, int, int], is_bipartite: bool
) -> None:
    layer, nodes, neighbors, encoding, keys_values = layer_and_inputs(
        size, is_bipartite=is_bipartite
    )
    relation = Relation.from_encoding(
        neighbors, encoding, num_heads=size[0], stride=2 * size[0] if is_bipartite else None
    )
    learning, _ = layer(nodes, relation, keys_values)
    with torch.no_grad():
        gathered, _ = layer(nodes, relation, keys_values)
    # Float32, through five normalisations.
    torch.testing.assert_close(gathered, learning, atol=5e-5, rtol=1e-4)


def test_without_kernels_torch_attends_to_the_same_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, nodes, neighbors, encoding, _ = layer_and_inputs((4, 8, 64), is_bipartite=False)
    relation = Relation.from_encoding(neighbors, encoding, num_heads=4)
    native, _ = layer(nodes, relation)
    monkeypatch.setattr("policies.smart.attention.takes", lambda _: False)
    torchs, _ = layer(nodes, relation)
    torch.testing.assert_close(native, torchs, atol=5e-5, rtol=1e-4)
    # The first bucket of the second reaches back into the first.
    joined = Relation.cat([relation, relation], [len(nodes)] * 2, sources=[len(nodes)] * 2)
    twice, _ = layer(torch.cat([nodes, nodes]), joined)
    torch.testing.assert_close(twice, torch.cat([torchs, torchs]), atol=5e-5, rtol=1e-4)


def test_joined_relations_are_attended_to_each_by_its_own() -> None:
    layer, nodes, neighbors, encoding, _ = layer_and_inputs((8, 16, 128), is_bipartite=False)
    relation = Relation.from_encoding(neighbors, encoding, num_heads=8)
    other = Relation.from_encoding(neighbors, encoding.flip(0).clone(), num_heads=8)
    joined = Relation.cat([relation, other], [len(nodes)] * 2, sources=[len(nodes)] * 2)
    with torch.no_grad():
        both, _ = layer(torch.cat([nodes, nodes]), joined)
        each = torch.cat([layer(nodes, one)[0] for one in (relation, other)])
    torch.testing.assert_close(both, each, atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow() -> None:
    query, relation_query, keys_values, encoding = operands((8, 16, 128))
    large = (query, 100 * relation_query, keys_values, encoding)
    found = attend(*large[:3], EDGES, [encoding])[1]
    expected = attend_as_written(double(large), torch.ones(sum(DEGREES), 8).double())[1]
    # A score of a few hundred is rounded to 3e-5.
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-3)


def unfinished_encoding(hidden: int) -> Encoding:
    embedding = FourierEmbedding(((0.0, 1.0),), 8, hidden).requires_grad_(False)
    for parameter in embedding.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    encoding = embedding.encode(torch.rand(sum(DEGREES), 1))
    assert isinstance(encoding, Encoding)
    return encoding


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("size", SIZES)
def test_gradients_go_around_the_last_layer_of_encodings(
    size: tuple[int, int, int], dropout: float
) -> None:
    layer, nodes, neighbors, _, keys_values = layer_and_inputs(size, is_bipartite=True)
    layer.dropout = dropout
    layer.train(dropout > 0)
    encoding = unfinished_encoding(size[2])
    leaves = [*layer.relation_key.parameters(), *layer.relation_value.parameters()]
    leaves = [*leaves, *layer.query.parameters(), *layer.norm_relation.parameters()]
    assert keys_values is not None
    leaves = [*leaves, keys_values]

    def run(encoding: Tensor | Encoding) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        relation = Relation.from_encoding(
            neighbors, encoding, num_heads=size[0], stride=2 * size[0]
        )
        features, _ = layer(nodes, relation, keys_values)
        return features, *torch.autograd.grad(features, leaves, directions((features,)))

    for one, other in zip(run(encoding), run(encoding.normalised), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("is_bipartite", [False, True])
def test_attention_takes_the_last_layer_of_encodings_upon_itself(is_bipartite: bool) -> None:
    layer, nodes, neighbors, _, keys_values = layer_and_inputs(
        (8, 16, 128), is_bipartite=is_bipartite
    )
    encoding = unfinished_encoding(128)

    def run(encoding: Tensor | Encoding) -> Tensor:
        stride = 2 * 8 if is_bipartite else None
        relation = Relation.from_encoding(neighbors, encoding, num_heads=8, stride=stride)
        return layer(nodes, relation, keys_values)[0]

    learning = run(encoding)
    with torch.no_grad():
        torch.testing.assert_close(run(encoding), learning, atol=5e-5, rtol=1e-4)
        finished = run(encoding.normalised)
    torch.testing.assert_close(finished, learning, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("threads_used", [1, 3])
def test_layers_that_take_turns_are_these_layers(
    threads_used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4, 8, 64
    own, nodes, neighbors, encoding, _ = layer_and_inputs(size, is_bipartite=False)
    other, _, neighbors_there, encoding_there, keys_values = layer_and_inputs(
        size, is_bipartite=True
    )
    other.dropout = own.dropout
    among = Relation.from_encoding(neighbors, encoding, num_heads=4)
    there = Relation.from_encoding(neighbors_there, encoding_there, num_heads=4, stride=8)
    apart = Relation.from_encoding(neighbors, encoding.flip(0).clone(), num_heads=4)
    turns = [
        Turn(own, among, remembers=True),
        Turn(other, there, keys_values),
        Turn(own, apart, remembers=True),
    ]
    given = nodes.clone()
    learning, remembered = take_turns(nodes, turns)
    assert remembered.shape == (len(nodes), 2, 64)
    if threads_used > 1:
        monkeypatch.setattr(threads, "_WORTHWHILE", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads_used)
    with torch.no_grad():
        features, kept = take_turns(nodes, turns)
    assert torch.equal(nodes, given)
    torch.testing.assert_close(features, learning, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(kept, remembered, atol=5e-5, rtol=1e-4)
