"""Scenarios of any size, with arbitrary content."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from catk_sim.datasets.schema import Leaf, ScenarioSize, build, leaves
from catk_sim.datatypes import Scenario

sizes = st.builds(
    ScenarioSize,
    agents=st.integers(1, 4),
    steps=st.integers(1, 5),
    points=st.integers(0, 6),
    features=st.integers(0, 3),
    links=st.integers(0, 3),
    lights=st.integers(0, 2),
).map(lambda size: size if size.features else size._replace(points=0, links=0))

_INDICES = ("roadgraph.feature", "roadgraph.links.feature")


def arbitrary_scenario(
    size: ScenarioSize, seed: int, dtype: torch.dtype = torch.float64
) -> Scenario:
    """Draws a scenario: all random, but in time order and valid at the end of each dimension."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(leaf: Leaf) -> Tensor:
        shape = leaf.shape(size)
        if leaf.name == "timestamps":
            return 0.1 * torch.arange(size.steps, dtype=dtype)
        if leaf.name in _INDICES:
            return torch.randint(max(1, size.features), shape, generator=generator)
        if leaf.name in _BOOLS:
            valid = torch.rand(shape, generator=generator) < 0.5
            valid[-1:] = True
            return valid
        if leaf.name in _INTS:
            return torch.randint(-(2**20), 2**20, shape, generator=generator)
        return 1000 * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    labels = {"scenario_id": f"scenario {seed}", "lacks": "a map" if seed % 2 else ""}
    return build(Scenario, tensor, lambda name: (labels[name],))


def _leaves_of(kind: str) -> set[str]:
    """Lists the tensors of a kind: Bool or Int."""
    return {leaf.name for leaf in leaves(Scenario) if _kind(leaf.name) == kind}


def _kind(name: str) -> str:
    record: type = Scenario
    *parents, field = name.split(".")
    for parent in parents:
        record = record.__annotations__[parent]
    return record.__annotations__[field].__name__.partition("[")[0]


_BOOLS = _leaves_of("Bool")
_INTS = _leaves_of("Int")


def assert_equal(one: Scenario, other: Scenario) -> None:
    """Checks that two scenarios are the same bit for bit, in the same dtypes."""
    for leaf in leaves(Scenario):
        a, b = leaf.of(one), leaf.of(other)
        assert (leaf.name, a.dtype, a.shape) == (leaf.name, b.dtype, b.shape)
        assert a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes(), leaf.name
    assert (one.scenario_id, one.lacks) == (other.scenario_id, other.lacks)
