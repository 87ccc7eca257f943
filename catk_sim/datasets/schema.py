"""What a `Scenario` is made of: its tensors and the dimensions that vary between scenarios."""

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

from torch import Tensor

from catk_sim.datatypes import Scenario, TensorTree

Tree = TypeVar("Tree", bound=TensorTree)


class ScenarioSize(NamedTuple):
    """How many of everything a scenario has."""

    agents: int
    steps: int
    points: int
    features: int
    links: int
    lights: int


@dataclass(frozen=True)
class Leaf:
    """A tensor of a record.

    Attributes:
        name: Path from the record, such as `log.xy`.
        dimensions: Names of the dimensions after `*batch`; a fixed length stands as a digit.
    """

    name: str
    dimensions: tuple[str, ...]

    def shape(self, size: ScenarioSize) -> tuple[int, ...]:
        """Returns the shape that the tensor has in a scenario of some size."""
        lengths = size._asdict()
        return tuple(int(lengths.get(name, name)) for name in self.dimensions)

    def of(self, record: TensorTree) -> Tensor:
        """Returns the tensor."""
        value: Any = record
        for name in self.name.split("."):
            value = getattr(value, name)
        return value


@cache
def leaves(record: type[TensorTree]) -> tuple[Leaf, ...]:
    """Lists the tensors of a record and their dimensions, as its annotations name them."""
    found: list[Leaf] = []
    for field in fields(record):
        if _is_record(field.type):
            found += [
                Leaf(name=f"{field.name}.{leaf.name}", dimensions=leaf.dimensions)
                for leaf in leaves(cast(type[TensorTree], field.type))
            ]
        elif dimensions := _dimensions(field):
            found.append(Leaf(name=field.name, dimensions=dimensions))
    return tuple(found)


def build(
    record: type[Tree],
    tensor: Callable[[Leaf], Tensor],
    label: Callable[[str], tuple[str, ...]],
    *,
    prefix: str = "",
) -> Tree:
    """Makes a record from a function that gives its tensors and one that gives its labels.

    Both see names as paths from the outermost record. `prefix` is the path that led here.
    """
    values: dict[str, Any] = {}
    for field in fields(record):
        name = prefix + field.name
        if _is_record(field.type):
            kind = cast(type[TensorTree], field.type)
            values[field.name] = build(kind, tensor, label, prefix=f"{name}.")
        elif dimensions := _dimensions(field):
            values[field.name] = tensor(Leaf(name=name, dimensions=dimensions))
        else:
            values[field.name] = label(name)
    return record(**values)


def size_of(scenario: Scenario) -> ScenarioSize:
    """Tells how many of everything a scenario has, or each scenario of a padded batch.

    Raises:
        ValueError: If two tensors disagree about a dimension.
    """
    lengths: dict[str, int] = {}
    for leaf in leaves(Scenario):
        shape = leaf.of(scenario).shape
        inner = shape[len(shape) - len(leaf.dimensions) :]
        for name, length in zip(leaf.dimensions, inner, strict=True):
            known = int(name) if name.isdigit() else lengths.setdefault(name, length)
            if known != length:
                raise ValueError(f"{leaf.name} has {length} of {name}, expected {known}")
    return ScenarioSize(**lengths)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, TensorTree)


def _dimensions(field: Field[Any]) -> tuple[str, ...]:
    shape: str = getattr(field.type, "dim_str", "")
    return tuple(shape.split()[1:])
