"""Sparse products, beside the same written out with every edge on its own."""

import pytest
import torch
from torch import Tensor

from policies.smart.edges import HeadEdges
from policies.smart.graph import Neighbors

HEADS, FEATURES, SOURCES = 3, 4, 40
# Of six destinations one has no neighbours and one has many.
DESTINATION = torch.tensor([0, 0, 0, 1, 3, 3, *[4] * 30, 5])
SOURCE = torch.tensor([1, 2, 2, 0, 4, 5, *range(30), 39])
NEIGHBORS = Neighbors.from_edges(DESTINATION, SOURCE, 6)


def make_edges(stride: int = HEADS) -> HeadEdges:
    return HeadEdges(neighbors=NEIGHBORS, num_heads=HEADS, stride=stride)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_slot(edges: HeadEdges, entries: Tensor) -> Tensor:
    """Lists the entries of every slot, (slots, heads)."""
    parts = [edges.of(entries, bucket).transpose(1, 2) for bucket in NEIGHBORS.buckets]
    return torch.cat([part.flatten(0, 1) for part in parts])


ROW = torch.cat(
    [
        torch.arange(rows.start, rows.stop).repeat_interleave(shape[1])
        for rows, _, shape in NEIGHBORS.buckets
    ]
)


@pytest.mark.parametrize("stride", [HEADS, 7])
def test_a_row_is_multiplied_with_its_sources(stride: int) -> None:
    edges = make_edges(stride)
    rows = random(len(NEIGHBORS.destination) * HEADS, FEATURES)
    table, plus = random(SOURCES * stride, FEATURES), random(HEADS * len(NEIGHBORS.source))
    found = by_slot(edges, edges.dot(rows, table, plus=plus))
    sources = table.view(SOURCES, stride, FEATURES)[NEIGHBORS.source, :HEADS]
    products = (rows.view(-1, HEADS, FEATURES)[ROW] * sources).sum(dim=-1)
    torch.testing.assert_close(found, products + by_slot(edges, plus), atol=1e-12, rtol=0)


def test_the_sources_of_a_row_are_summed() -> None:
    edges, weights = make_edges(), random(HEADS * len(NEIGHBORS.source))
    table = random(SOURCES * HEADS, FEATURES)
    sources = table.view(SOURCES, HEADS, FEATURES)[NEIGHBORS.source]
    expected = torch.zeros(len(NEIGHBORS.destination), HEADS, FEATURES, dtype=torch.float64)
    expected.index_add_(0, ROW, sources * by_slot(edges, weights)[..., None])
    found = edges.sum(weights, table)
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=1e-12, rtol=0)


def test_the_rows_that_refer_to_a_source_are_summed() -> None:
    edges, weights = make_edges(), random(HEADS * len(NEIGHBORS.source))
    rows = random(len(NEIGHBORS.destination) * HEADS, FEATURES)
    real = ~NEIGHBORS.is_padding
    expected = torch.zeros(SOURCES, HEADS, FEATURES, dtype=torch.float64)
    terms = rows.view(-1, HEADS, FEATURES)[ROW] * by_slot(edges, weights)[..., None]
    expected.index_add_(0, NEIGHBORS.source[real], terms[real])
    found = edges.sum_back(weights, rows, SOURCES)
    torch.testing.assert_close(found, expected.flatten(1), atol=1e-12, rtol=0)


def test_padding_is_told() -> None:
    edges = make_edges()
    told = by_slot(edges, edges.padding)
    assert NEIGHBORS.is_padding.any()
    assert (told[NEIGHBORS.is_padding] == -torch.inf).all()
    assert (told[~NEIGHBORS.is_padding] == 0).all()


def test_accelerators_get_the_same_products(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = make_edges()
    rows = random(len(NEIGHBORS.destination) * HEADS, FEATURES)
    table, plus = random(SOURCES * HEADS, FEATURES), random(HEADS * len(NEIGHBORS.source))
    sparse = edges.dot(rows, table, plus=plus)
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda _: False))
    torch.testing.assert_close(edges.dot(rows, table, plus=plus), sparse, atol=1e-12, rtol=0)
