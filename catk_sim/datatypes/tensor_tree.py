"""Immutable records of tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

# Not `typing.Self`, which the runtime shape check does not understand.
Tree = TypeVar("Tree", bound="TensorTree")


@dataclass(frozen=True, eq=False)
class TensorTree:
    """Base of every record: a frozen dataclass of tensors, of further records, and of labels.

    Records are never changed in place. `replace` makes the next one and shares what did not
    change, so an old state stays valid, can be compared with the new one and can be replayed.

    Every record may carry leading batch dimensions, written `*batch`, that all its tensors share.
    The same class therefore describes one scenario, a batch, or a batch of rollouts. A label is a
    tuple with one entry for each scenario, in row-major order of the batch.
    """

    def map(self: Tree, fn: Callable[[Tensor], Tensor]) -> Tree:
        """Applies a function to every tensor."""
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, TensorTree):
                changes[field.name] = value.map(fn)
            elif isinstance(value, Tensor):
                changes[field.name] = fn(value)
        return replace(self, **changes)

    def replace(self: Tree, **changes: Any) -> Tree:
        """Returns a copy with some fields changed."""
        return replace(self, **changes)

    def to(self: Tree, device_or_dtype: torch.device | str | torch.dtype) -> Tree:
        """Moves every tensor to a device, or casts every floating tensor to a floating dtype."""
        if isinstance(device_or_dtype, torch.dtype):
            dtype = device_or_dtype
            return self.map(
                lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor
            )
        return self.map(lambda tensor: tensor.to(device_or_dtype))

    def pin_memory(self: Tree) -> Tree:
        """Pins every tensor. `DataLoader` calls this when it runs with `pin_memory=True`."""
        return self.map(lambda tensor: tensor.pin_memory())

    def repeat(self: Tree, count: int) -> Tree:
        """Adds a leading dimension of equal entries, as views that take no memory."""
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, TensorTree):
                changes[field.name] = value.repeat(count)
            elif isinstance(value, Tensor):
                changes[field.name] = value.expand(count, *value.shape)
            elif isinstance(value, tuple):
                changes[field.name] = value * count
        return replace(self, **changes)

    @classmethod
    def stack(cls: type[Tree], trees: Sequence[Tree]) -> Tree:
        """Stacks records of equal shape along a new leading batch dimension."""
        if not trees:
            raise ValueError("stack needs at least one record")
        return _join(trees, torch.stack)

    @classmethod
    def cat(cls: type[Tree], trees: Sequence[Tree]) -> Tree:
        """Joins batches of equal inner shape along their first batch dimension."""
        if not trees:
            raise ValueError("cat needs at least one record")
        return _join(trees, torch.cat)

    def select(self: Tree, index: int) -> Tree:
        """Returns one entry of the first batch dimension."""
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, TensorTree):
                changes[field.name] = value.select(index)
            elif isinstance(value, Tensor):
                changes[field.name] = value[index]
            elif isinstance(value, tuple):
                inner = len(value) // self.batch_size
                first = (index % self.batch_size) * inner
                changes[field.name] = value[first : first + inner]
        return replace(self, **changes)

    @property
    def batch_size(self) -> int:
        """Length of the first dimension of every tensor, which is the first batch dimension."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, TensorTree):
                return value.batch_size
            if isinstance(value, Tensor):
                return value.shape[0]
        raise ValueError(f"{type(self).__name__} holds no tensor")


def _join(trees: Sequence[Tree], join: Callable[[list[Tensor]], Tensor]) -> Tree:
    first = trees[0]
    changes: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(tree, field.name) for tree in trees]
        if isinstance(values[0], TensorTree):
            changes[field.name] = _join(values, join)
        elif isinstance(values[0], Tensor):
            changes[field.name] = join(values)
        elif isinstance(values[0], tuple):
            changes[field.name] = tuple(entry for value in values for entry in value)
    return replace(first, **changes)
