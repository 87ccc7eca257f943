"""Products over the edges of a relation, for all heads of attention at once."""

import warnings
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from policies.smart.graph import Bucket, Neighbors


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadEdges:
    """The edges of a relation, once for each head, as a sparse matrix.

    Its rows are the heads of the relation's destinations. Its columns are the rows of a table
    that holds features of sources: those of a head are a row, those of a source follow each other.
    Its entries come bucket by bucket, in the order (destination, head, slot).

    On a processor nothing is gathered: sparse kernels read the table in place.

    Attributes:
        neighbors: Who has an edge to whom.
        num_heads: Heads of attention.
        stride: Rows of the table from a source to the next.
    """

    neighbors: Neighbors
    num_heads: int
    stride: int

    def of(self, entries: Tensor, bucket: Bucket) -> Tensor:
        """Views the entries of a bucket: (destinations, heads, slots of each)."""
        (rows, width), heads = bucket.shape, self.num_heads
        start, stop = bucket.slots.start * heads, bucket.slots.stop * heads
        return entries[start:stop].view(rows, heads, width)

    @cached_property
    def columns(self) -> Int[Tensor, " entries"]:
        """The row of the table that each entry refers to."""
        source = self.neighbors.source.to(torch.int32) * self.stride
        columns = source.new_empty(self.num_heads * source.shape[0])
        head = torch.arange(self.num_heads, dtype=torch.int32, device=source.device)[:, None]
        for bucket in self.neighbors.buckets:
            sources = source[bucket.slots].view(bucket.shape)[:, None]
            torch.add(sources, head, out=self.of(columns, bucket))
        return columns

    @cached_property
    def starts(self) -> Int[Tensor, " rows_and_end"]:
        """The first entry of each row, and where the last row ends."""
        ends = self.neighbors.width.repeat_interleave(self.num_heads).cumsum(0)
        return torch.cat([ends.new_zeros(1), ends]).to(torch.int32)

    @cached_property
    def padding(self) -> Float[Tensor, " entries"]:
        """Zero, and minus infinity where an entry is padding."""
        is_padding = self.neighbors.is_padding
        slots = torch.zeros(is_padding.shape, device=is_padding.device)
        slots.masked_fill_(is_padding, -torch.inf)
        padding = slots.new_empty(self.num_heads * slots.shape[0])
        for bucket in self.neighbors.buckets:
            self.of(padding, bucket).copy_(slots[bucket.slots].view(bucket.shape)[:, None])
        return padding

    def dot(
        self,
        rows: Float[Tensor, "rows features"],
        table: Float[Tensor, "columns features"],
        *,
        plus: Float[Tensor, " entries"],
    ) -> Float[Tensor, " entries"]:
        """Multiplies each row with those rows of the table that it has entries for."""
        if not rows.is_cpu:
            pairs = rows.repeat_interleave(self.starts.diff(), dim=0, output_size=len(self.columns))
            return (pairs * table.index_select(0, self.columns)).sum(dim=-1) + plus
        _hush_sparse_warning()
        matrix = torch.sparse_csr_tensor(
            self.starts,
            self.columns,
            plus,
            size=(rows.shape[0], table.shape[0]),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(matrix, rows, table.mT).values()

    def sum(
        self, weights: Float[Tensor, " entries"], table: Float[Tensor, "columns features"]
    ) -> Float[Tensor, "rows features"]:
        """Sums, for each row, the rows of the table that it has entries for, times weights."""
        return _weighted_sums(weights, self.columns, self.starts, table)

    def sum_back(
        self,
        weights: Float[Tensor, " entries"],
        rows: Float[Tensor, "rows features"],
        num_sources: int,
    ) -> Float[Tensor, "sources head_features"]:
        """Sums, for each source and head, the rows that have entries for it, times weights."""
        source, entry, row = self._by_source
        first = torch.bincount(source, minlength=num_sources).cumsum(0)
        begins = torch.arange(self.num_heads, device=first.device) * source.shape[0]
        starts = torch.cat([first.new_zeros(1), (begins[:, None] + first).flatten()])
        sums = _weighted_sums(weights.index_select(0, entry), row, starts.to(row.dtype), rows)
        return sums.view(self.num_heads, num_sources, -1).transpose(0, 1).flatten(1)

    @cached_property
    def _by_source(
        self,
    ) -> tuple[Int[Tensor, " edges"], Int[Tensor, " entries"], Int[Tensor, " entries"]]:
        """Sorts edges by source; returns sources, and, head by head, their entries and rows."""
        real = (~self.neighbors.is_padding).nonzero()[:, 0]
        source = self.neighbors.source[real]
        order = source.argsort(stable=True)
        slot, heads, widths = real[order], self.num_heads, self.neighbors.width
        destination = torch.arange(len(widths), device=slot.device).repeat_interleave(
            widths, output_size=len(self.neighbors.source)
        )[slot]
        first_slot = (widths.cumsum(0) - widths)[destination]
        head = torch.arange(heads, device=slot.device)[:, None]
        entry = slot + first_slot * (heads - 1) + head * widths[destination]
        row = destination * heads + head
        return source[order], entry.flatten().to(torch.int32), row.flatten().to(torch.int32)


def _weighted_sums(weights: Tensor, index: Tensor, starts: Tensor, table: Tensor) -> Tensor:
    """Sums rows of a table, from each start to the next."""
    # As `functional.embedding_bag`, whose checks cost more than a small sum.
    sums, *_ = torch.embedding_bag(
        table, index, starts, False, _SUM, False, weights, include_last_offset=True
    )
    return sums


_SUM = 0


@cache
def _hush_sparse_warning() -> None:
    """Has torch say now, and unheard, that sparse matrices are new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        none = torch.zeros(0, dtype=torch.int32)
        torch.sparse_csr_tensor(
            torch.zeros(1, dtype=torch.int32), none, none.float(), (0, 0), check_invariants=False
        )
