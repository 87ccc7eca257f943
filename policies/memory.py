"""What policies remember that have nothing to remember."""

from dataclasses import dataclass

from catk_sim.datatypes import TensorTree


@dataclass(frozen=True, eq=False, kw_only=True)
class NoMemory(TensorTree):
    """The memory of a policy that looks at the state alone."""
