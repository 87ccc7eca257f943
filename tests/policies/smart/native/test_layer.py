"""A layer before and after it attends in C, beside the same in float64 by torch's own gradients."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.smart.attention import RelationalAttention
from policies.smart.config import PRESETS
from policies.smart.graph import Neighbors
from policies.smart.layers import FourierEmbedding
from policies.smart.native import threads
from policies.smart.native.dropout import Dropout
from policies.smart.native.layer import LayerWeights, enter_learning, leave_learning
from policies.smart.relation import Relation

pytestmark = pytest.mark.usefixtures("kernels")

SIZES = sorted({(c.attention_dim, c.hidden_dim) for c in PRESETS.values() if c.hidden_dim < 512})
# None, one, and more than are worked on together but no multiple of these.
ROWS = (0, 1, 77)


@dataclass
class Parts:
    """A layer's weights, and what goes through it."""

    linears: list[nn.Linear]
    norms: list[nn.LayerNorm]
    rows: Tensor
    gathered: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        modules = [*self.linears, *self.norms]
        parameters = [weight for module in modules for weight in module.parameters()]
        return [self.rows, self.gathered, *parameters]

    def double(self) -> "Parts":
        rows, gathered = (v.detach().double().requires_grad_() for v in (self.rows, self.gathered))
        linears, norms = deepcopy((self.linears, self.norms))
        for module in (*linears, *norms):
            module.double()
        return Parts(linears, norms, rows, gathered)


def parts(size: tuple[int, int], num_rows: int) -> Parts:
    width, hidden = size
    torch.manual_seed(0)
    sizes = [(hidden, 5 * width), (width, width), (width, hidden), (hidden, 4 * hidden)]
    linears = [nn.Linear(i, o, bias=place != 1) for place, (i, o) in enumerate(sizes)]
    linears.append(nn.Linear(4 * hidden, hidden))
    norms = [nn.LayerNorm(hidden) for _ in range(4)]
    for norm in norms:
        nn.init.normal_(norm.weight, mean=1, std=0.3)
        nn.init.normal_(norm.bias, std=0.3)
    rows, gathered = torch.randn(num_rows, hidden), torch.randn(num_rows, width)
    return Parts(linears, norms, rows.requires_grad_(), gathered.requires_grad_())


def in_c(given: Parts, dropout: float = 0.0) -> tuple[Tensor, Tensor]:
    pairs = [(linear.weight, linear.bias) for linear in given.linears]
    weights = LayerWeights.pack(pairs, given.norms)
    query, skip_gate, own = enter_learning(weights, given.rows, pairs[0], given.norms[0])
    torch.manual_seed(1)
    left = leave_learning(
        weights,
        given.rows,
        skip_gate,
        given.gathered,
        linears=pairs[1:],
        norms=given.norms[1:],
        dropout=dropout,
    )
    return left, torch.cat([query, own], dim=1)


def as_written(given: Parts, factor: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Returns what a layer makes of rows, what is fed forward multiplied by factors."""
    project, gate, out, first, second = given.linears
    before, behind_out, before_first, behind_second = given.norms
    width = given.gathered.shape[1]
    projected = project(before(given.rows))
    query, skip, gate_own, own = projected.split([width, width, width, 2 * width], dim=1)
    share = torch.sigmoid(gate_own + gate(given.gathered))
    passed = share * skip + (1 - share) * given.gathered
    rows = given.rows + behind_out(out(passed))
    between = functional.relu(first(before_first(rows))) * factor
    return rows + behind_second(second(between)), torch.cat([query, own], dim=1)


def factors(dropout: float, shape: tuple[int, int]) -> Tensor:
    """Works out what `keep` of vectors.h returns for the first draw after a seed of 1."""
    torch.manual_seed(1)
    drop = Dropout.draw(dropout)

    def mix(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
        return x ^ (x >> 16)

    place = np.arange(shape[0] * shape[1], dtype=np.uint32)
    drawn = mix(mix(place ^ np.uint32(drop.seed)) + np.uint32(drop.other_seed))
    kept = torch.from_numpy(drawn >= np.uint32(drop.limit)).view(shape)
    return kept.double() / (1 - dropout)


def assert_alike(
    found: Sequence[Tensor], expected: Sequence[Tensor], mine: Parts, theirs: Parts
) -> None:
    """Sums of a few hundred float32 numbers of order one, and their gradients."""
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(o.shape, generator=generator) for o in found]
    for ours, written in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), written, atol=2e-5, rtol=2e-5)
    ours = sum((o * d).sum() for o, d in zip(found, directions, strict=True))
    written = sum((o * d).sum() for o, d in zip(expected, directions, strict=True))
    assert isinstance(ours, Tensor)
    assert isinstance(written, Tensor)
    for one, other in zip(
        torch.autograd.grad(ours, mine.leaves),
        torch.autograd.grad(written, theirs.leaves),
        strict=True,
    ):
        torch.testing.assert_close(one.double(), other, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize("size", SIZES)
def test_a_layer_and_its_gradients_are_as_written(size: tuple[int, int], num_rows: int) -> None:
    mine = parts(size, num_rows)
    theirs = mine.double()
    assert_alike(in_c(mine), as_written(theirs), mine, theirs)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_dropped_has_no_gradient_and_the_rest_grows(size: tuple[int, int]) -> None:
    mine = parts(size, 77)
    theirs = mine.double()
    factor = factors(0.2, (77, 4 * size[1]))
    assert float((factor == 0).double().mean()) == pytest.approx(0.2, abs=0.02)
    assert_alike(in_c(mine, dropout=0.2), as_written(theirs, factor), mine, theirs)


def test_gradients_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = parts(SIZES[0], 77), parts(SIZES[0], 77).double()
    monkeypatch.setattr(threads, "_WORTHWHILE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert_alike(in_c(mine), as_written(theirs), mine, theirs)


def relation(num_rows: int, hidden: int) -> Relation:
    """Relates each row but the first to itself and the one before."""
    destination = torch.arange(1, num_rows).repeat_interleave(2)
    source = destination - torch.tensor([0, 1]).repeat(num_rows - 1)
    neighbors = Neighbors.from_edges(destination, source, num_rows, padded=False)
    embedding = FourierEmbedding(((0.0, 1.0),), 4, hidden).requires_grad_(False)
    encoding = embedding.encode(torch.rand(len(source), 1))
    return Relation.from_encoding(neighbors, encoding, num_heads=4)


def test_a_layer_in_one_call_is_that_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = RelationalAttention(64, num_heads=4, head_dim=8, dropout=0.1, is_bipartite=False)
    given, rows = relation(77, 64), torch.randn(77, 64)
    with torch.no_grad():
        at_once = layer.eval()(rows, given)
        monkeypatch.setattr(threads, "_WORTHWHILE", 1)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        divided = layer(rows, given)
    for one, other in zip(at_once, divided, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("num_rows", [0, 3])
@pytest.mark.parametrize("is_bipartite", [False, True])
def test_a_layer_without_sources_is_that_of_torch(
    num_rows: int, is_bipartite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = RelationalAttention(64, num_heads=4, head_dim=8, dropout=0.1, is_bipartite=is_bipartite)
    layer, nothing = layer.eval(), torch.zeros(0, dtype=torch.int64)
    neighbors = Neighbors.from_edges(nothing, nothing, num_rows, padded=False)
    embedding = FourierEmbedding(((0.0, 1.0),), 4, 64).requires_grad_(False)
    given = Relation.from_encoding(neighbors, embedding.encode(torch.rand(0, 1)), num_heads=4)
    rows = torch.randn(num_rows, 64)
    keys_values = torch.zeros(0, 2 * 32) if is_bipartite else None

    def both() -> list[Tensor]:
        with torch.no_grad():
            quick = layer(rows, given, keys_values)[0]
        return [quick, layer(rows, given, keys_values)[0].detach()]

    here = both()
    monkeypatch.setattr(RelationalAttention, "_is_native", lambda *_: False)
    for one in here:
        torch.testing.assert_close(one, both()[1], atol=1e-5, rtol=1e-5)


def test_there_is_no_second_derivative_rather_than_a_wrong_one() -> None:
    given = parts(SIZES[0], 3)
    for result in in_c(given):
        (by_rows,) = torch.autograd.grad(result.square().sum(), given.rows, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            by_rows.sum().backward()
