import pytest
import torch
from torch import Tensor
from torch.nn import functional

from policies.smart.attention import RelationalAttention
from policies.smart.graph import Neighbors
from policies.smart.relation import Relation

# Of six destinations one has no neighbours and one has many.
DESTINATION = torch.tensor([0, 0, 0, 1, 3, 3, *[4] * 40, 5])
SOURCE = torch.tensor([1, 2, 2, 0, 4, 5, *range(40), 39])
NEIGHBORS = Neighbors.from_edges(DESTINATION, SOURCE, 6)


def make_layer(*, is_bipartite: bool, dropout: float = 0.0) -> RelationalAttention:
    torch.manual_seed(0)
    layer = RelationalAttention(
        12, num_heads=3, head_dim=4, dropout=dropout, is_bipartite=is_bipartite
    ).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    destinations = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    sources = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    encoding = torch.randn(len(NEIGHBORS.source), 12, generator=generator, dtype=torch.float64)
    return destinations, sources, encoding


def attend(
    layer: RelationalAttention, destinations: Tensor, sources: Tensor, encoding: Tensor
) -> Tensor:
    normalised = functional.layer_norm(encoding, (12,))
    if layer.norm_source is None:
        relation = Relation.from_encoding(NEIGHBORS, normalised, num_heads=3)
        return layer(torch.cat([destinations, sources[6:]]), relation)[0][:6]
    relation = Relation.from_encoding(NEIGHBORS, normalised, num_heads=3, stride=6)
    return layer(destinations, relation, layer.keys_values(sources))[0]


def attend_as_written(
    layer: RelationalAttention, destinations: Tensor, sources: Tensor, encoding: Tensor
) -> Tensor:
    """The layer of the paper, one destination and head after the other."""
    normed = layer.norm(destinations)
    norm_source = layer.norm_source
    if norm_source is None:
        norm_source, sources = layer.norm, torch.cat([destinations, sources[6:]])
    outputs = []
    for node in range(len(destinations)):
        slots = (NEIGHBORS.slot_destination == node) & ~NEIGHBORS.is_padding
        relation = layer.norm_relation(encoding[slots])
        neighbors = norm_source(sources[NEIGHBORS.source[slots]])
        query = layer.query(normed[node])
        key = layer.key(neighbors) + layer.relation_key(relation)
        value = layer.value(neighbors) + layer.relation_value(relation)
        heads = [
            (key[:, head] @ query[head] / 2.0).softmax(dim=0) @ value[:, head]
            for head in (slice(0, 4), slice(4, 8), slice(8, 12))
        ]
        outputs.append(torch.cat(heads))
    gathered = torch.stack(outputs)
    gate = layer.gate(torch.cat([gathered, normed], dim=-1)).sigmoid()
    gathered = gathered + gate * (layer.skip(normed) - gathered)
    result = destinations + layer.norm_out(layer.out(gathered))
    return result + layer.feed_forward(result)


@pytest.mark.parametrize("is_bipartite", [False, True])
def test_attention_is_that_of_the_paper(is_bipartite: bool) -> None:
    layer, values = make_layer(is_bipartite=is_bipartite), inputs()
    torch.testing.assert_close(attend(layer, *values), attend_as_written(layer, *values))


@pytest.mark.parametrize("is_bipartite", [False, True])
def test_gradients_are_those_of_the_paper(is_bipartite: bool) -> None:
    layer, values = make_layer(is_bipartite=is_bipartite), inputs()
    leaves = [*layer.parameters(), *(value.requires_grad_() for value in values)]
    direction = torch.randn(6, 12, generator=torch.Generator().manual_seed(2)).double()
    ours = torch.autograd.grad((attend(layer, *values) * direction).sum(), leaves)
    written = torch.autograd.grad((attend_as_written(layer, *values) * direction).sum(), leaves)
    for mine, expected in zip(ours, written, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-9, rtol=1e-6)


def test_gradients_are_right_under_dropout() -> None:
    layer, values = make_layer(is_bipartite=True, dropout=0.3).train(), inputs()

    def seeded(*values: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend(layer, *values)

    assert torch.autograd.gradcheck(
        seeded, tuple(value.requires_grad_() for value in values), fast_mode=True
    )


def test_dropout_drops_a_neighbor_wholly_or_makes_up_for_it() -> None:
    """Destination 1 has one neighbour."""
    layer, values = make_layer(is_bipartite=True, dropout=0.2), inputs()
    relation = Relation.from_encoding(NEIGHBORS, values[2], num_heads=3, stride=6)
    query = values[0]
    keys_values = layer.keys_values(values[1])
    with torch.no_grad():
        calm = (
            layer.eval()
            ._gather(query, keys_values, relation, layer._fold())[1]
            .unflatten(0, (3, 4))
        )
        layer.train()
        torch.manual_seed(0)
        draws = [layer._gather(query, keys_values, relation, layer._fold())[1] for _ in range(300)]
    heads = torch.stack(draws).unflatten(-1, (3, 4))  # (draws, heads, head)
    dropped = (heads == 0).all(dim=-1)
    assert 0.1 < dropped.double().mean() < 0.3
    torch.testing.assert_close(heads[~dropped], (calm / 0.8).expand_as(heads)[~dropped])


def test_without_any_neighbor_nothing_is_gathered() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    neighbors = Neighbors.from_edges(none, none, 6)
    relation = Relation.from_encoding(neighbors, torch.zeros(0, 12).double(), num_heads=3, stride=6)
    layer, (destinations, sources, _) = make_layer(is_bipartite=True), inputs()
    keys_values = layer.keys_values(sources)
    gathered = layer._gather(destinations, keys_values, relation, layer._fold())
    assert not gathered.any()
    assert layer(destinations, relation, keys_values)[0].isfinite().all()
